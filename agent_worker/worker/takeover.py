"""Calling the next agent into a call whose agent is dead.

Whoever runs this has claimed the dead agent's heartbeat, which exactly one worker can. It is asked again
until an agent holds the conversation's lease: that one's heartbeat takes the claim's place.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.tenure.heartbeat_details import HeartbeatDetails
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.rooms import Occupants, Original, Rooms, RoomServiceError, UnansweredError
from agent_worker.worker.summons import Vacancy, summon
from conversation_actors import HeartbeatRecord, Heartbeats
from conversation_actors.client.heartbeats import FORGET
from conversation_actors.errors import RetryableError

logger = logging.getLogger(__name__)

HOLD = timedelta(seconds=5)
"""How long a claim lasts unless it is postponed: if this worker dies too, another one goes on."""
NOTHING_KNOWN = Original("")
_AGENT_PREFIX = "agent-"
"""In LiveKit's own identities for agents: the job's id follows."""


class TakeoverOutcome(StrEnum):
    """What became of a call whose agent died."""

    DISPATCHED = "dispatched"
    """A successor was asked for; if none comes, the claim expires and the next worker asks again."""
    NOBODY_THERE = "nobody there"
    """No human is in the room, and none came in time: there is no call any more."""
    SUCCEEDED = "succeeded"
    """Another agent has the call already, or is about to."""
    GIVEN_UP = "given up"
    """Too many successors made no progress, or LiveKit could not be asked for as long as a death is remembered."""
    POSTPONED = "postponed"
    """LiveKit may have been asked, or nobody can say that the call is given up; somebody tries again."""


@dataclass(frozen=True, slots=True)
class Deceased:
    """The agent that died, as its heartbeat tells."""

    room: str
    agent_name: str
    agent_identity: str
    attempt: int
    was_open: bool = True
    """Whether it ever held the conversation's lease."""
    original: Original | None = None
    """The dispatch that it came by."""
    worker_id: str = ""
    """Its worker, as LiveKit names it."""

    @classmethod
    def of(cls, record: HeartbeatRecord) -> "Deceased | None":
        """Read a record; None if another program wrote it."""
        told = HeartbeatDetails.from_dict(record.details)
        if not told.room or told.agent_name is None or told.agent_identity is None or told.attempt is None:
            return None
        dispatch = Original(told.dispatch_id, told.metadata)
        return cls(
            told.room,
            told.agent_name,
            told.agent_identity,
            told.attempt + record.attempt,
            was_open=told.was_open,
            original=None if dispatch == NOTHING_KNOWN else dispatch,
            worker_id=told.worker_id,
        )

    @property
    def vacancy(self) -> Vacancy:
        """What it leaves."""
        return Vacancy(self.room, self.agent_name, self.original)


GiveUp = Callable[[HeartbeatRecord, int], Awaitable[None]]
Leave = Callable[[HeartbeatRecord], Awaitable[None]]


class Takeover:
    """Mends one call at a time as often as it is asked to; keeps nothing between calls."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        rooms: Rooms,
        settings: TakeoverSettings,
        *,
        linger: timedelta,
        give_up: GiveUp | None,
        leave: Leave | None = None,
        forget: timedelta = FORGET,
        timing: Timing = TIMING,
    ) -> None:
        """`linger`: how long somebody who has left the room is waited for. `give_up` says it in the conversation.

        Who cannot say it there (None) leaves a call that is to be given up to the next one. `leave` says there that
        nobody is in the room, if that can be said. `forget`: how long one claim is kept at most while LiveKit cannot be
        asked.
        """
        self._heartbeats, self._rooms, self._settings = heartbeats, rooms, settings
        self._linger, self._give_up, self._leave = linger, give_up, leave
        self._forget, self._timing = forget, timing

    async def run(self, record: HeartbeatRecord, *, reason: RestartReason = RestartReason.SILENCE) -> TakeoverOutcome:
        """Have the next agent come, for a record that was claimed, as its holder died of this `reason`.

        A claim is one attempt: this one is kept, however long LiveKit or Redis cannot be asked, until a successor was
        asked for or none is wanted. Only where this process dies meanwhile does an attempt count that was none.
        """
        started = time.monotonic()
        outcome, attempt = await self._run(record, reason)
        fields: dict[str, Any] = {
            "conversation_id": record.conversation_id,
            "holder": record.holder,
            "outcome": outcome.value,
            "attempt": attempt,
            "seconds": round(time.monotonic() - started, 3),
        }
        logger.warning("an agent died", extra=fields)
        return outcome

    async def _run(self, record: HeartbeatRecord, reason: RestartReason) -> tuple[TakeoverOutcome, int]:
        dead = Deceased.of(record)
        if dead is None:
            await self._heartbeats.settle(record)
            return TakeoverOutcome.GIVEN_UP, record.attempt
        if dead.attempt > self._settings.attempts:
            return await self._end(record, dead), dead.attempt - 1
        return await self._ask(record, dead, reason), dead.attempt

    async def _end(self, record: HeartbeatRecord, dead: Deceased) -> TakeoverOutcome:
        """Give the call up, if that can be said."""
        if self._give_up is None:
            return TakeoverOutcome.POSTPONED
        await self._give_up(record, dead.attempt - 1)
        await self._heartbeats.settle(record)
        return TakeoverOutcome.GIVEN_UP

    async def _ask(self, record: HeartbeatRecord, dead: Deceased, reason: RestartReason) -> TakeoverOutcome:
        """Ask for a successor, with growing pauses while LiveKit cannot be asked or one is on its way.

        While Redis does not answer, the claim is asked for until it does, and the room is looked at anew then.
        """
        deadline = time.monotonic() + self._forget.total_seconds()
        tries = 0
        while time.monotonic() < deadline:
            pause = self._retry_after(dead.attempt + tries)
            tries += 1
            try:
                outcome = await self._call_successor(record, dead, reason)
            except RoomServiceError as error:
                fields = {"conversation_id": record.conversation_id, "reason": str(error), "tries": tries}
                logger.warning("LiveKit cannot be asked", extra=fields)
                outcome = None
            except RetryableError as error:
                # no reason for a longer pause: LiveKit has answered, and somebody waits in the room
                tries, pause, outcome = tries - 1, timedelta(seconds=self._timing.takeover_redis), None
                _warn_of_redis(record, error)
            if outcome is not None:
                return outcome
            if not await self._is_kept(record, delay=pause + HOLD, deadline=deadline):
                return TakeoverOutcome.SUCCEEDED
            await asyncio.sleep(pause.total_seconds())
        return await self._end(record, dead)

    async def _is_kept(self, record: HeartbeatRecord, *, delay: timedelta, deadline: float) -> bool:
        """Keep the claim, as soon as Redis answers; False if it is lost. True if it is not known in time.

        While Redis does not answer nobody else can claim the call either.
        """
        is_told = False
        while time.monotonic() < deadline:
            try:
                return await self._heartbeats.postpone(record, delay=delay)
            except RetryableError as error:
                if not is_told:
                    is_told = True
                    _warn_of_redis(record, error)
            await asyncio.sleep(self._timing.takeover_redis)
        return True

    async def _call_successor(
        self, record: HeartbeatRecord, dead: Deceased, reason: RestartReason
    ) -> TakeoverOutcome | None:
        """Call a successor; return what became of it, None if nothing was asked for yet."""
        occupants = await self._with_people(record, dead.room)
        if occupants is None:
            return TakeoverOutcome.SUCCEEDED
        if not occupants.people:
            if await self._heartbeats.settle(record) and dead.was_open:
                await self._say_nobody_there(record)
            return TakeoverOutcome.NOBODY_THERE
        if await self._is_coming(occupants, dead, record):
            return None
        # first put off, then asked for: the successor's own heartbeat may come before the answer does
        if not await self._heartbeats.postpone(record, delay=self._retry_after(dead.attempt)):
            return TakeoverOutcome.SUCCEEDED
        if any(agent.identity == dead.agent_identity for agent in occupants.agents):
            await self._rooms.remove(dead.room, dead.agent_identity)
        assignment = Assignment(
            conversation_id=record.conversation_id,
            role=record.role or AGENT_ROLE,
            replaces=record.holder,
            attempt=dead.attempt,
            reason=await self._reason(record, dead, reason),
        )
        try:
            await summon(self._heartbeats, self._rooms, dead.vacancy, assignment)
        except UnansweredError as error:
            # asked for again now, two successors might come
            fields = {"conversation_id": record.conversation_id, "reason": str(error)}
            logger.warning("a successor may be on its way, or not", extra=fields)
            return TakeoverOutcome.POSTPONED
        return TakeoverOutcome.DISPATCHED

    async def _say_nobody_there(self, record: HeartbeatRecord) -> None:
        """Say it in the conversation; if that cannot be done soon, its call is over when nothing has come for long."""
        if self._leave is None:
            return
        try:
            async with asyncio.timeout(self._timing.last_note):
                await self._leave(record)
        except Exception as error:  # noqa: BLE001  # nobody waits for that, and there is nothing else to be done
            fields = {"conversation_id": record.conversation_id, "reason": type(error).__name__}
            logger.warning("it was not noted that nobody is in the room", extra=fields)

    async def _reason(self, record: HeartbeatRecord, dead: Deceased, reason: RestartReason) -> RestartReason:
        """Return what this death was told to be of before, by somebody whose successor did not come."""
        if record.attempt == 1:
            return reason
        told = [Assignment.of(one.told) for one in await self._heartbeats.expected(dead.room, dead.agent_name)]
        return next((one.reason for one in told if one.replaces == record.holder and one.reason is not None), reason)

    async def _with_people(self, record: HeartbeatRecord, room: str) -> Occupants | None:
        """Return the room's occupants when somebody is there or nobody comes; None when the claim is ours no more."""
        deadline = time.monotonic() + self._linger.total_seconds()
        while True:
            occupants = await self._rooms.occupants(room)
            if occupants.people or not occupants.exists or time.monotonic() > deadline:
                return occupants
            if not await self._heartbeats.postpone(record, delay=HOLD):
                return None
            await asyncio.sleep(self._timing.empty_room)

    async def _is_coming(self, occupants: Occupants, dead: Deceased, record: HeartbeatRecord) -> bool:
        """Return whether a successor that was asked for before is in the room: it may have to wait for Ray, for long.

        Two of them would both talk. One that died before it got the lease is a ghost for 22 seconds. Where the
        dead one never had the lease, any other agent may be the one that has the call. One that is known to be there
        for another role, or another conversation, is none of them.
        """
        if dead.attempt == 1 and dead.was_open:
            return False
        for agent in occupants.agents:
            if agent.agent_name == dead.agent_name and agent.identity != dead.agent_identity:
                begun = await self._begun_by(agent.identity)
                if not begun or (record.conversation_id, record.role) in begun:
                    return True
        return False

    async def _begun_by(self, identity: str) -> list[tuple[str, str]]:
        """Return what an agent in the room is there for; nothing is known if the application chose its identity."""
        job_id = identity.removeprefix(_AGENT_PREFIX)
        if job_id == identity or not job_id.isprintable():
            return []
        return await self._heartbeats.held_by(job_id) if job_id else []

    def _retry_after(self, attempt: int) -> timedelta:
        """Return how long to wait after an attempt: no `Backoff`, as Redis keeps the claim for just as long."""
        seconds = self._settings.retry.total_seconds() * 2.0 ** (attempt - 1)
        return timedelta(seconds=min(seconds, self._timing.takeover_longest_retry))


def _warn_of_redis(record: HeartbeatRecord, error: RetryableError) -> None:
    fields = {"conversation_id": record.conversation_id, "reason": str(error)}
    logger.warning("Redis cannot be asked about a claim", extra=fields)
