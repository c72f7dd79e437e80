"""Handing a call over on purpose: to another worker, or to another agent."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.tenure.role import AGENT_ROLE, check_role, record_role
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.summons import Vacancy, summon
from agent_worker.worker.takeover import Deceased
from conversation_actors import (
    ConversationNotFoundError,
    HeartbeatRecord,
    Heartbeats,
    OutcomeUnknownError,
    Settings,
)
from conversation_actors.backoff import Backoff
from conversation_actors.client.expectations import Expectation
from conversation_actors.values import check_id


async def migrate(
    conversation_id: str,
    *,
    to: str | None = None,
    role: str = AGENT_ROLE,
    timeout: timedelta = timedelta(seconds=30),  # noqa: ASYNC109  # of the whole handover, whose parts go on without us
    store: Settings | None = None,
    livekit: LiveKitSettings | None = None,
    timing: Timing = TIMING,
) -> str:
    """Have another agent take a running call over, without a lost turn; return the new holder of the lease.

    `to` is the agent name to dispatch; None: the same agent on another worker. `role`: which of several agents of the
    conversation. The agent that speaks now goes when neither side is speaking. From any process; needs Redis and
    LiveKit, no Ray. Raises `ConversationNotFoundError` where no agent is in that conversation, `RoomServiceError` where
    LiveKit cannot be asked, `OutcomeUnknownError` where nobody has taken over in time (no such agent, no free worker);
    the call then stays where it is, unless a successor comes late.
    """
    check_id(conversation_id, "conversation_id")
    if to is not None:
        check_id(to, "to")
    wanted = record_role(check_role(role))
    async with Heartbeats(store) as heartbeats, Rooms(livekit or LiveKitSettings()) as rooms:
        record = await heartbeats.find(conversation_id, role=wanted)
        present = None if record is None or not record.is_alive else Deceased.of(record)
        if record is None or present is None:
            message = f"no agent is in conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)
        assignment = Assignment(
            conversation_id=conversation_id,
            role=role,
            replaces=record.holder,
            is_planned=True,
            avoid=present.worker_id if to is None else "",
            reason=RestartReason.MIGRATE,
        )
        vacancy = Vacancy(present.room, to or present.agent_name, present.original)
        moving = _Moving(heartbeats, rooms, record, vacancy, timing)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout.total_seconds()):
                return await moving.run(assignment)
    message = f"{to or present.agent_name} has not taken over in {timeout.total_seconds():g} s"
    raise OutcomeUnknownError(message)


class _Moving:
    """One call that is to move: another agent is asked for until somebody else has it."""

    def __init__(
        self, heartbeats: Heartbeats, rooms: Rooms, record: HeartbeatRecord, vacancy: Vacancy, timing: Timing
    ) -> None:
        self._heartbeats, self._rooms, self._record, self._vacancy = heartbeats, rooms, record, vacancy
        self._timing = timing

    async def run(self, assignment: Assignment) -> str:
        """Ask until it has moved; the new holder."""
        wait, declined = self._timing.ask, Backoff(self._timing.migration_declined)
        while True:
            expectation = await summon(self._heartbeats, self._rooms, self._vacancy, assignment)
            holder = await self._taken_by(expectation, until=time.monotonic() + wait)
            if holder is not None:
                return holder
            if await self._is_declined(expectation):
                await declined.wait()
            else:
                wait *= 2

    async def _taken_by(self, expectation: Expectation, *, until: float) -> str | None:
        """Who has the call; None where nobody else has it in time, or who came has declined it."""
        while time.monotonic() < until:
            now = await self._heartbeats.find(self._record.conversation_id, role=self._record.role)
            if now is not None and now.holder != self._record.holder:
                return now.holder
            if await self._is_declined(expectation):
                return None
            await asyncio.sleep(self._timing.migration_look)
        return None

    async def _is_declined(self, expectation: Expectation) -> bool:
        found = await self._heartbeats.expected(expectation.room, expectation.agent_name)
        return any(one.is_declined for one in found if one.token == expectation.token)
