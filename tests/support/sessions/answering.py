"""An agent that answers a call, in one process: a real session, a real owner, and a room that is not real."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession
from livekit.agents.llm import ChatMessage
from livekit.agents.voice.io import AudioInput, AudioOutput, TextOutput

from agent_worker.call.attach import Attached, attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.session.serialise import to_fields
from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.role import AGENT_ROLE
from conversation_actors import item_from_dict
from conversation_actors.items import Item
from tests.support.fakes import until
from tests.support.sessions.fake_livekit import FakeJob, fake_job
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import Clock, World, Worlds

SessionFactory = Callable[[OfflineServer], Awaitable[AgentSession[None]]]
GREETING, AGAIN, BACK = "Hello there.", "Welcome back.", "Sorry, I'm back."
LATE = 10.0
"""Seconds until something that does not happen fails its test."""


@pytest.fixture
def waits() -> dict[str, float]:
    """Return how long an owner and its clients wait, as `brief` takes it; a module that needs less overrides this."""
    return {"close": 0.5}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, clock: Clock, waits: dict[str, float]) -> AsyncIterator[World]:
    """A conversation that can be opened."""
    async with Worlds(monkeypatch, clock, **waits) as made:
        yield made


class Heard(TextOutput):
    """What the caller hears, sentence by sentence."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__(label="heard", next_in_chain=None)
        self.lines: list[str] = []
        self._line = ""

    async def capture_text(self, text: str) -> None:
        """Hear a part."""
        self._line += text

    def flush(self) -> None:
        """Hear its end."""
        if self._line:
            self.lines.append(self._line)
        self._line = ""


@dataclass
class Running:
    """An agent in a call."""

    session: AgentSession[None]
    call: CallConversation
    attached: Attached
    room: FakeRoom
    job: FakeJob
    heard: Heard
    starting: asyncio.Task[Any]
    """The session's start; done, unless the test has let it go on beside it."""

    async def ended(self) -> str:
        """The first reason to end the job."""
        await until(lambda: bool(self.job.ended))
        return self.job.ended[0]

    async def hears(self, *lines: str) -> None:
        """Wait until the caller has heard these lines, and nothing else for a moment."""
        try:
            await until(lambda: len(self.heard.lines) >= len(lines))
            await self.session_is_calm()
        finally:
            assert self.heard.lines == list(lines)

    async def session_is_calm(self) -> None:
        """Wait until the agent listens, and does so for a moment."""
        calm = 0
        async with asyncio.timeout(LATE):
            while calm < 20:
                await asyncio.sleep(0.002)
                calm = calm + 1 if self.session.agent_state == "listening" else 0

    async def is_known(self, text: str) -> None:
        """Wait until a message of this text is in the conversation."""
        await until(lambda: text in texts(self.call.items))


def texts(items: tuple[Item, ...]) -> list[str]:
    """What was said, as the conversation has it."""
    return ["".join(item.to_dict()["content"]) for item in items if item.type == "message"]


def settings(**given: Any) -> CallSettings:
    """Lines that can be told apart; nobody is waited for."""
    told = {"greeting": GREETING, "welcome_back": AGAIN, "back_line": BACK, **given}
    return CallSettings(**told)


Answer = Callable[..., Any]


@pytest.fixture
def answer(world: World, server: OfflineServer, new_session: SessionFactory) -> Answer:
    """Have an agent answer a call."""

    @asynccontextmanager
    async def answering(
        room: FakeRoom,
        holder: str = "job-1",
        *,
        agent: Agent | None = None,
        on: OfflineServer = server,
        assignment: Assignment | None = None,
        role: str = AGENT_ROLE,
        before_start: Callable[[], Awaitable[None]] | None = None,
        waits: bool = True,
        output: AudioOutput | None = None,
        microphone: AudioInput | None = None,
        **given: Any,
    ) -> AsyncIterator[Running]:
        if assignment is None:
            assignment = Assignment(conversation_id="c", replaces=None if holder == "job-1" else "job-1")
        with fake_job(room, job_id=holder) as job:
            takeover = TakeoverSettings(heartbeat=timedelta(milliseconds=5), valid_for=timedelta(seconds=3))
            given = {"open_timeout": LATE if world.may_open.is_set() else 0.05, **given}
            call = world.call(holder, assignment, settings=settings(**given), takeover=takeover, role=role)
            await call.open()
            session = await new_session(on)
            heard = Heard()
            session.output.transcription = heard
            session.output.audio = output
            session.input.audio = microphone
            speaker = agent or SupportAgent()
            attached = await attach(session, speaker, call, room=room.as_room)
            if before_start is not None:
                await before_start()
            starting = asyncio.create_task(session.start(speaker, record=False))
            if waits:
                await starting
            yield Running(session, call, attached, room, job, heard, starting)
            starting.cancel()
            await asyncio.wait({starting})
            await session.aclose()
            await call.aclose()

    return answering


async def crash(running: Running) -> None:
    """The agent's process is gone: nothing is released."""
    await running.call.flush()
    running.attached.recorder.stop()
    await running.call.aclose()


async def gone_for(call: CallConversation, seconds: float, identity: str = "alice") -> None:
    """Return when somebody who has left has been away for longer than so long, as the conversation knows it."""

    def is_gone() -> bool:
        one = call.participants[identity]
        return not one.connected and time.time() - one.last_seen > seconds

    await call.flush()
    await until(is_gone)


async def vanish(world: World) -> None:
    """The keys of the conversation are gone, and so is its owner."""
    await world.lose_everything()


async def seed(world: World, *items: Any, attributes: dict[str, Any] | None = None) -> FakeParticipant:
    """What a dead agent left: a caller who was there, what was said, what was heard."""
    alice = FakeParticipant("alice")
    handle = await world.cluster.handle()
    await handle.join("alice", device_id=alice.sid)
    await handle.update_participant("alice", context={"livekit.greeted": 0})
    for item in items:
        await handle.append(item_from_dict(to_fields(item)))
    if attributes:
        await handle.set_attributes(attributes)
    await handle.aclose()
    return alice


def user(text: str) -> ChatMessage:
    """Said by the caller."""
    return ChatMessage(role="user", content=[text])


def assistant(text: str) -> ChatMessage:
    """Said by the agent."""
    return ChatMessage(role="assistant", content=[text])
