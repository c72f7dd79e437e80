"""What the worker's tests share."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

# before LiveKit is imported: it would load a 400 MB turn detector that no text session uses
os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"

import aiohttp
import pytest
import pytest_asyncio
from livekit.agents import Agent, AgentSession
from livekit.api.room_service import RoomService

from agent_worker.call.attach import Attached, attach
from agent_worker.example.pipeline import text_session
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import TranscriptScript
from agent_worker.offline.transcript import Transcript, load
from agent_worker.settings import LanguageModelSettings
from conversation_actors import Heartbeats, Settings
from tests.support.sessions.answering import answer, waits, world
from tests.support.sessions.fakes_call import Clock, ShakyStore, on_store
from tests.support.sessions.fakes_room import FakeConversation
from tests.support.sessions.following import follow
from tests.support.sessions.realtime_calls import models
from tests.support.sessions.room_service import asked

__all__ = ["answer", "asked", "follow", "models", "waits", "world"]

TRANSCRIPT = Path(__file__).parents[1] / "data" / "transcript.json"

SessionFactory = Callable[[OfflineServer], Awaitable[AgentSession[None]]]
Started = tuple[AgentSession[None], Attached]
Starter = Callable[[OfflineServer, Agent, FakeConversation], AbstractAsyncContextManager[Started]]


@pytest.fixture(scope="session")
def transcript_path() -> Path:
    """The file of the call that was written for the tests."""
    return TRANSCRIPT


@pytest.fixture(scope="session")
def transcript() -> Transcript:
    """The call that was written for the tests."""
    return load(TRANSCRIPT)


@pytest.fixture(autouse=True)
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call puts around LiveKit's room service is gone behind its test."""
    for name in ("delete_room", "remove_participant"):
        monkeypatch.setattr(RoomService, name, getattr(RoomService, name))


@pytest_asyncio.fixture
async def server(transcript: Transcript) -> AsyncIterator[OfflineServer]:
    """A running server that follows the transcript."""
    async with OfflineServer(TranscriptScript(transcript)) as running:
        yield running


@pytest_asyncio.fixture
async def new_session() -> AsyncIterator[SessionFactory]:
    """Make sessions that are not started; they are closed after the test."""
    async with AsyncExitStack() as stack:

        async def make(server: OfflineServer) -> AgentSession[None]:
            settings = LanguageModelSettings(base_url=server.base_url, api_key=None)
            return await stack.enter_async_context(text_session(settings))

        yield make


@pytest.fixture
def started(new_session: SessionFactory) -> Starter:
    """Start an agent on a conversation, and close its session at the end."""

    @asynccontextmanager
    async def start(server: OfflineServer, agent: Agent, conversation: FakeConversation) -> AsyncIterator[Started]:
        session = await new_session(server)
        attached = await attach(session, agent, conversation)
        await session.start(agent, record=False)
        yield session, attached
        await session.aclose()

    return start


@pytest.fixture
def say() -> Callable[[AgentSession[None], str], Awaitable[str]]:
    """Say something to a session, and hear its answer."""

    async def speak(session: AgentSession[None], text: str) -> str:
        result: Any = await session.run(user_input=text)
        spoken = [event.item for event in result.events if event.type == "message" and event.item.role == "assistant"]
        return spoken[-1].text_content or "" if spoken else ""

    return speak


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections of realtime models."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def job_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what a job is told by its environment."""
    monkeypatch.setenv("AGENT_TAKEOVER_HEARTBEAT", "0.01")
    monkeypatch.setenv("AGENT_OPEN_TIMEOUT", "5")


@pytest.fixture
def clock() -> Clock:
    """The clock of the workers, and of whoever watches heartbeats."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> ShakyStore:
    """Redis."""
    return ShakyStore(clock)


@pytest.fixture
async def heartbeats(monkeypatch: pytest.MonkeyPatch, store: ShakyStore, clock: Clock) -> AsyncIterator[Heartbeats]:
    """Signs of life."""
    with on_store(monkeypatch, store):
        async with Heartbeats(Settings(), clock=clock) as entered:
            yield entered
