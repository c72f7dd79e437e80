"""A room that is followed into a conversation, and what comes of it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from agent_worker.call.participants import Participants
from agent_worker.lines import Welcome
from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import OutcomeUnknownError, Participant
from tests.support.fakes import PATIENCE, until
from tests.support.sessions.fakes_call import FakeRoom, World

GRACE = timedelta(hours=1)
STEPS = (timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=30))


@dataclass
class Followed:
    """A room that is followed, and what came of it."""

    room: FakeRoom
    call: CallConversation
    participants: Participants
    welcomes: list[tuple[Welcome, str | None]] = field(default_factory=list)
    empty: list[bool] = field(default_factory=list)

    async def settled(self) -> dict[str, Participant]:
        """Return everybody, when all that happened so far is durable."""
        await self._flushed()
        return dict(self.call.participants)

    async def person(self, identity: str = "alice") -> Participant:
        """Return one of them."""
        return (await self.settled())[identity]

    async def told(self) -> list[Welcome]:
        """Return what arrivals called for, in order."""
        await self._flushed()
        return [wanted for wanted, _ in self.welcomes]

    async def has_failed(self) -> None:
        """Wait until a change was given up."""
        await until(lambda: self.call.failures.counts.get("changes", 0) > 0)

    async def _flushed(self) -> None:
        """Wait until all that happened so far is durable, for longer than a call waits: this machine may be busy."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(OutcomeUnknownError):
                    return await self.call.flush()


Follow = Callable[..., Any]


@pytest.fixture
def follow(world: World) -> Follow:
    """Follow a room, as an agent that has the conversation."""

    async def begin(room: FakeRoom, holder: str = "job-1", **settings: Any) -> Followed:
        replaces = None if holder == "job-1" else "job-1"
        call = world.call(
            holder,
            Assignment(conversation_id="c", replaces=replaces),
            settings=CallSettings(**{"grace": GRACE, "retention": STEPS, **settings}),
        )
        assert await call.open()
        welcomes: list[tuple[Welcome, str | None]] = []
        empty: list[bool] = []
        participants = Participants(
            room.as_room,
            call,
            on_welcome=lambda wanted, person: welcomes.append((wanted, person.language)),
            on_empty=empty.append,
        )
        participants.start()
        return Followed(room, call, participants, welcomes, empty)

    return begin
