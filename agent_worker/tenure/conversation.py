"""A conversation as one job holds it: opened, leased, and shown to be alive.

Two things outside of this process may be away: Ray and Redis. Neither may cost the caller the call. So a
job waits for its conversation only for a while; what happens meanwhile is kept, and recorded later. A conversation
that is gone in the middle of a call is opened again, and told what the job still knows.
"""

import asyncio
import json
import logging
import os
import random
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from agent_worker.failures import Failures
from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.announcement import Announcement
from agent_worker.tenure.assignment import Assignment, CallDeclinedError, RestartReason
from agent_worker.tenure.backlog import MOST_OWNER_FAILURES, Changes, Operation, is_trouble
from agent_worker.tenure.expected import find_expectation
from agent_worker.tenure.once import Held, Mark, Marks, Todo, mark_name
from agent_worker.tenure.pace import Pace
from agent_worker.tenure.pulse import News, Tenure
from agent_worker.tenure.removals import Removals
from agent_worker.tenure.role import AGENT_ROLE, attribute_name, check_role, own_items, record_role, tagged
from agent_worker.tenure.succession import HANDOVER, LEASE_DURATION, REFUSED, Succession, Successor, wish_of
from agent_worker.timing import TIMING, Timing
from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    Heartbeats,
    Item,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    OutcomeUnknownError,
    OverloadedError,
    Participant,
    Settings,
)
from conversation_actors.client.heartbeats import Expectation
from conversation_actors.clock import uptime
from conversation_actors.errors import (
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    InvalidInputError,
    OwnerFailedError,
    RefusedError,
    RetryableError,
)
from conversation_actors.items import bytes_of

__all__ = ["AGENT", "HANDOVER", "LEASE", "LEASE_DURATION", "REFUSED", "CallConversation", "OnMissed", "Post"]

logger = logging.getLogger(__name__)

LEASE = AGENT_ROLE
"""The lease that the one agent of a conversation holds; its holder is the job's id. Other roles' have their names."""
AGENT = "livekit.agent"
"""The attribute that tells who the agent is, or that there is none and why."""

_GUARD_SECONDS = 0.1
_WAIT_SECONDS = 0.02
_BACKOFF = (0.2, 5.0)
_MOST_WAITING = 10_000
"""Items kept while the conversation is not open, or has missed earlier ones."""
_FULL_SHARE = 0.75
"""Of a bound of the history: what leaves is a message, or a call with its output, which may be a quarter of it."""
_FLUSH_SECONDS = 5.0
_DECLINED_KEPT = timedelta(minutes=1)
MOST_COPIED_CHARACTERS = 1 << 10
"""Of a job's metadata, as JSON: what is longer is not copied into its heartbeat's record."""
_SETTLE_SECONDS = 1.0

OnMissed = Callable[[bool], None]
"""Told whether the conversation knows nothing at all any more (True), or may lack something."""
OnRemoved = Callable[[frozenset[str]], None]
"""Told the ids of what is taken out of the conversation."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where an agent stands: written beside its heartbeat, so that whoever takes over knows where to go."""

    room: str
    agent_name: str
    agent_identity: str
    group: str = ""
    """The worker process that the job belongs to."""
    worker_id: str = ""
    """The same worker, as LiveKit's server names it."""
    dispatch_id: str = ""
    """The dispatch that the job came by: its successors' are to be alike."""
    metadata: str = ""
    """What that dispatch has told the job."""


@dataclass(slots=True)
class _Round:
    """One look at what became of recorded items, for all who had asked before it began."""

    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: RetryableError | None = None
    """Why they are not durable yet."""


class CallConversation:
    """A conversation, held by one job. Made by `open_conversation`; belongs to the job's event loop.

    What it writes carries the agent's lease: once another agent has taken over, nothing more of this one's
    is taken. `record` and `later` never block and never raise for the sake of Ray or Redis.

    What looks after the conversation in the background is ended by nothing but `aclose`, or a successor: what goes
    wrong there is counted in `failures`, which the heartbeat's record shows, and tried again.
    """

    def __init__(
        self,
        conversation_id: str,
        *,
        holder: str,
        post: Post,
        assignment: Assignment,
        role: str = AGENT_ROLE,
        store: Settings | None = None,
        call: CallSettings | None = None,
        takeover: TakeoverSettings | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Nothing is connected before `open`. `store` None: read the environment."""
        self.id = conversation_id
        self.role = check_role(role)
        """Which of several agents of one conversation this one is: each is followed by itself."""
        self.holder = holder
        self.post = post
        self.settings, self.timing = call or CallSettings(), timing
        self.deposed = asyncio.Event()
        """Set when another agent has the call, or is about to: this one has to leave it."""
        self.handover_asked = asyncio.Event()
        """Set when a successor waits for this agent to finish its sentence and to release the lease."""
        self.redialled = asyncio.Event()
        """Set while an agent in another room asks for the conversation, and has no answer: see `refuse_redial`."""
        self.is_restart = False
        """Whether an agent of this role held this call before, and died or gave it over."""
        self.restart_reason: RestartReason | None = None
        """Why this agent follows another one; None where it follows nobody, or before it is open."""
        self.lost = 0
        """Items that could not be kept: too many waited."""
        self.failures = Failures()
        """What went wrong in the background of this call."""
        self._assignment, self._store = assignment, store or Settings()
        self._takeover, self._stack = takeover or TakeoverSettings(), AsyncExitStack()
        self._announcement = Announcement(self._store, holder, self.role, self.failures)
        self._expectation: Expectation | None = None
        self._heartbeats: Heartbeats | None = None
        self._handle: ConversationHandle | None = None
        self._tenure: Tenure | None = None
        self._view: ConversationHandle | None = None
        self._is_assigned, self._is_readable, self._is_ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._waiting: deque[Item] = deque()
        self._changes = Changes(
            self.failures,
            lease=lambda: self._held.lease,
            on_trouble=self._doubt,
            room=self._store.history.attributes_bytes,
        )
        self._removals, self._marks = (
            Removals(self.later, self._all_taken),
            Marks(self._held_to_tell, self.failures, on_trouble=self._doubt),
        )
        self._on_items_missed, self._on_removed = list[OnMissed](), list[OnRemoved]()
        self._on_changes_missed: list[OnMissed] = [self._removals.put_again]
        self._refusal: ConversationError | None = None
        self._refused_item: ConversationError | None = None
        self._missed_for: ConversationError | None = None
        self._opened, self._recorded, self._told_again = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._round = _Round()
        self._telling: set[str] | None = None
        self._tellings = self._owner_failures = self._sent = self._heard = 0
        self._doubting = Pace(self._doubt_now, pauses=_BACKOFF)
        self._has_given_up = self._has_looked = self._has_begun_without = self._has_missed_items = False
        self._opened_at, self._beaten_at = 0.0, float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._holding: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing = self._has_ended = self._has_left = self._is_released = False
        self._own: tuple[tuple[Item, ...], tuple[Item, ...]] = ((), ())

    def __repr__(self) -> str:
        """Show which conversation, and whether it is open."""
        return f"<CallConversation {self.id!r} {'open' if self._handle else 'not open yet'}>"

    # What the recorder and the restore use: see agent_worker.session.protocol.Conversation.

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, as far as it is this role's; empty while the conversation cannot be read."""
        items = () if self._view is None else self._view.items
        if self._own[0] is not items:
            self._own = items, own_items(items, self.role)
        return self._own[1]

    @property
    def seq(self) -> int:
        """The position of the local copy; 0 while the conversation cannot be read."""
        return 0 if self._view is None else self._view.seq

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who is and was here, by identity."""
        return {} if self._handle is None else self._handle.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes."""
        return {} if self._handle is None else self._handle.attributes

    @property
    def is_beside(self) -> bool:
        """Whether this agent has another role in a call that `agent` leads: what is said of the call is that one's."""
        lead = None if self.role == AGENT_ROLE or self._handle is None else self._handle.leases.get(AGENT_ROLE)
        return lead is not None and lead.expires_at > time.time()

    @property
    def is_open(self) -> bool:
        """Whether the conversation is open, and this job its agent."""
        return self._handle is not None

    @property
    def is_full(self) -> bool:
        """Whether the history is near a bound, so that old items may have left it."""
        bounds, items = self._store.history, () if self._view is None else self._view.items
        if len(items) >= _FULL_SHARE * bounds.items:
            return True
        return bytes_of([item.to_stored() for item in items]) >= _FULL_SHARE * bounds.bytes

    @property
    def is_over(self) -> bool:
        """Whether the call has ended in order, and not only this agent's part in it."""
        return self._has_ended and not self.goes_on_elsewhere

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether this agent leaves, or has left, a call that goes on: handed over, deposed, or interrupted."""
        return self._has_left or self.deposed.is_set()

    def ended(self) -> None:
        """The call is over: nobody is there any more, or whoever may end it has. Idempotent."""
        self._has_ended = True

    def left(self) -> None:
        """This job ends, and the call does not: another agent is to come, or has come. Idempotent; it is for good."""
        self._has_left = True

    async def confirm(self) -> bool:
        """Ask Redis, by a beat, whether this job is still the agent, or was until it let go of a call that is over.

        False where another one has the call, or is to have it; and where that cannot be known: this job never held
        the conversation, or Redis does not answer.
        """
        await asyncio.sleep(0)  # of callbacks that run at a job's end others' may come before ours
        if self._is_released or self.goes_on_elsewhere or self._handle is None:
            return self._is_released and not self.goes_on_elsewhere
        try:
            async with asyncio.timeout(self._store.timeouts.command.total_seconds()):
                return await self._beat()
        except (ConversationError, TimeoutError) as error:
            self.failures.count("confirm", error, "nobody can tell whose call it is", conversation_id=self.id)
            return False

    async def may_be_others(self) -> bool:
        """Whether another agent has the call, or is to have it, as far as anybody can tell. Never raises.

        Redis is asked, by a beat; where this job has not opened the conversation, for an agent that lives in this room.
        Where Redis does not answer it is this job's as long as nobody can have claimed it, and where it follows nobody
        and never had the conversation. Else nobody can tell: then it may be another's, and the log says so.
        """
        await asyncio.sleep(0)  # see `confirm`
        if self._is_released or self.goes_on_elsewhere or self.is_waiting_for_handover:
            return self.goes_on_elsewhere or not self._is_released
        try:
            async with asyncio.timeout(self._store.timeouts.command.total_seconds()):
                return await (self.is_another_here() if self._handle is None else self._is_claimed())
        except (ConversationError, TimeoutError) as error:
            if not self._may_have_been_claimed():
                return False
            told = "nobody can tell whose call it is: what would end it is not done"
            self.failures.count("confirm", error, told, conversation_id=self.id)
            return True

    async def _is_claimed(self) -> bool:
        return not await self._beat()

    async def is_another_here(self) -> bool:
        """Whether Redis has another agent of this role that lives, in this room. Raises where Redis does not answer."""
        async with Heartbeats(self._store, lease=LEASE) as heartbeats:
            record = await heartbeats.find(self.id, role=record_role(self.role))
        if record is None or not record.is_alive or record.holder in {self.holder, self._assignment.replaces}:
            return False
        return bool(record.details.get("room", self.post.room) == self.post.room)

    def _may_have_been_claimed(self) -> bool:
        if self._beaten_at < 0:
            return self.is_restart or self._assignment.replaces is not None
        return uptime() - self._beaten_at >= self._takeover.valid_for.total_seconds()

    @asynccontextmanager
    async def once(self, name: str) -> AsyncIterator[Todo]:
        """Do something at most once in the conversation's life, whichever job or role gets to it, and whatever dies.

            async with conversation.once("dial") as todo:
                if todo:
                    await dial()

        Waits until the conversation is open, or can be read by a job that stands by for it. That it begins is durable
        before the body runs. An `Exception` of the body takes that back, so that it may be tried again; where the
        process dies in the body it stays begun, and later jobs get a `Todo` that is false and `is_unknown`. Raises
        `InvalidInputError` for a name that is none, and `NoRoomError`, before the body, where the conversation is full.
        """
        mark = Mark(mark_name(name), self.holder)
        await self._until_told_whose()
        todo = await self._marks.begin(mark, self._held_now)
        if not todo:
            yield todo
            return
        try:
            yield todo
        except Exception:
            await self._settle_mark(mark, None)
            raise
        await self._settle_mark(mark, mark.done)

    async def _until_told_whose(self) -> None:
        """Return when it is open; to a job that stands by, when it can be read: it is given over to one that is ready.

        Raises as `open` does.
        """
        await self._is_assigned.wait()
        if self._assignment.is_planned:
            await self._is_readable.wait()
        else:
            await self._opened.wait()
        if self._refusal is not None:
            raise self._refusal

    def _held_now(self) -> Held | None:
        return None if self._closing else self._held_to_tell()

    def _held_to_tell(self) -> Held | None:
        """What marks are written to; at the end of a call too, until the lease is given back."""
        if self.deposed.is_set() or self._view is None:
            return None
        return self._view, None if self._tenure is None else self._tenure.lease

    async def _settle_mark(self, mark: Mark, value: Mapping[str, Any] | None) -> None:
        """Say what became of it; returns when that is durable, or after a while: it is told as soon as it can be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._marks.settle(mark, value)

    @property
    def is_planned_handover(self) -> bool:
        """Whether this job follows an agent that gave the call over in order."""
        return self._assignment.is_planned

    @property
    def is_waiting_for_handover(self) -> bool:
        """Whether another agent has the call, and gives it over when this one is `ready`."""
        return self._assignment.is_planned and self._handle is None

    def ready(self) -> None:
        """This job's session could listen at once: the agent that has the call may be asked to give it over."""
        self._is_ready.set()

    def record(self, item: Item, /) -> None:
        """Take an item for sending. Raises what the item's form deserves, and `OverloadedError`.

        Where the conversation has missed earlier items, this one waits until those were recorded again. One that was
        taken before anybody knew of that is stored before them: the conversation keeps the order in which it takes.
        """
        item = tagged(item, self.role)
        if self._handle is None or self._tenure is None or self._has_missed_items:
            # refused now, as the handle would: what is refused later can no longer be shortened
            item.to_stored(limit=self._store.history.item_bytes)
            self._keep(item)
        else:
            self._record(self._handle, item, self._tenure.lease)
        if self._telling is not None:
            self._telling.add(item.id)

    def later(self, operation: Operation) -> None:
        """Do something with the handle, behind all that was put here before. Failures are counted.

        Where the conversation does not answer, or too much waits, what waits is dropped: see `on_changes_missed`.
        """
        self._changes.put(operation)

    def remove(self, *item_ids: str) -> None:
        """Take items out of the conversation, and forget what was stored before. Kept until it is done; never waits.

        What waits to be recorded is taken out too, and what was recorded or noted before is stored first, so that the
        store holds none of it at the end. See `ConversationHandle.remove`.
        """
        gone = set(item_ids)
        self._waiting = deque(item for item in self._waiting if item.id not in gone)
        self._tell_removed(gone)
        self._removals.put(item_ids)

    def on_removed(self, callback: OnRemoved) -> None:
        """Have `callback` told of what is removed: whoever records again what is missed, is not to record that.

        At once of what is removed here; of what others remove, before anything is recorded again.
        """
        self._on_removed.append(callback)

    def _tell_removed(self, item_ids: Iterable[str]) -> None:
        gone = frozenset(item_ids)
        for callback in self._on_removed if gone else ():
            try:
                callback(gone)
            except Exception as error:  # noqa: BLE001  # one that fails must not keep anything here
                self.failures.count("removed", error, conversation_id=self.id)

    async def _all_taken(self) -> None:
        """Return when what was noted and recorded so far is stored, or refused."""
        await self._changes.notes_taken()
        await self._flush_items()

    def note(self, name: str, value: Any) -> None:
        """Set a shared attribute; None removes it. Kept, as its latest value, until it is taken or refused.

        A name that begins with ``livekit.`` is this role's own: see `noted`.
        """
        self._changes.note(attribute_name(name, self.role), value)

    def noted(self, name: str) -> Any:
        """A shared attribute, as an agent of this role has set it by `note`; None where there is none."""
        return self.attributes.get(attribute_name(name, self.role))

    def on_items_missed(self, callback: OnMissed) -> None:
        """Have `callback` record again what the conversation lacks, when it answers after having missed items."""
        self._on_items_missed.append(callback)

    def on_changes_missed(self, callback: OnMissed) -> None:
        """Have `callback` look again at what `later` tells of, when the conversation answers after a drop."""
        self._on_changes_missed.append(callback)

    async def flush(self) -> None:
        """Return when all that was put before is durable, or refused for its own sake.

        Raises what `ConversationHandle.flush` raises.
        """
        if self._handle is None:
            return
        seconds = self._store.timeouts.command.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await self._changes.settled()
                await self._marks.settled()
                await self._flush_items()
        except TimeoutError:
            message = f"{len(self._changes)} changes, or items, are not acknowledged after {seconds} s"
            raise OutcomeUnknownError(message) from None
        refused = self._refused_item or self._missed_for
        self._refused_item = self._missed_for = None
        if refused is not None:
            raise refused

    async def _flush_items(self) -> None:
        """Return when what was recorded is durable or refused; what has to be recorded again, when it was."""
        while True:
            told_again, tellings = self._told_again, self._tellings
            await self._ask_for_items()
            if self._has_given_up:
                return
            if self._has_missed_items:
                await told_again.wait()
            elif tellings == self._tellings:
                return

    async def _ask_for_items(self) -> None:
        """Return when what was recorded so far is durable, or refused. Raises `RetryableError`s."""
        asked = self._round
        self._recorded.set()
        await asked.is_over.wait()
        if asked.trouble is not None:
            raise asked.trouble

    async def settled(self) -> None:
        """Return when what was recorded is durable, or after a second: the call waits for nothing longer.

        While the conversation is not open it returns at once.
        """
        if self._handle is None:
            return
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._flush_items()
        except (ConversationError, TimeoutError) as error:
            self.failures.count("settled", error, "not durable yet", conversation_id=self.id)

    async def is_durable(self, timeout: float) -> bool:  # noqa: ASYNC109  # asked of, not waited with
        """Whether all that was recorded so far is durable, at the latest after `timeout` seconds.

        False where an item was refused meanwhile, and where this job is not the agent any more. Never raises.
        """
        refused = self._refused_item
        try:
            async with asyncio.timeout(timeout):
                await self._opened.wait()
                await self._flush_items_at_last()
        except (ConversationError, TimeoutError) as error:
            self.failures.count("durable", error, "not durable yet", conversation_id=self.id)
            return False
        is_refused = self._refused_item is not None and self._refused_item is not refused
        return not (is_refused or self.deposed.is_set() or self._handle is None)

    async def _flush_items_at_last(self) -> None:
        """Do as `_flush_items`, again and again where that may help; not in a conversation that is another agent's."""
        while not self.deposed.is_set():
            try:
                await self._flush_items()
            except RetryableError:
                await asyncio.sleep(_GUARD_SECONDS)
            else:
                return

    # Opening.

    async def open(self) -> bool:
        """Wait for the conversation, for at most `CallSettings.open_timeout`; whether it is open by then.

        In a planned handover it can only be read by then: it is given over when this job is `ready`. Raises
        `LeaseHeldError` where another agent has this call and is alive (and, in another room, has somebody there
        or does not answer), `CallDeclinedError` where this job shall not take it, and `RefusedError`s that no waiting
        mends.
        """
        self._opening = self._start(self._open_at_last())
        self._start(self.failures.forever("marks", self._marks.tell, pause=_BACKOFF[0]))
        try:
            async with asyncio.timeout(self.settings.open_timeout.total_seconds()):
                await self._is_assigned.wait()
                await (self._is_readable if self._assignment.is_planned else self._opened).wait()
        except TimeoutError:
            self._has_begun_without = not self._is_assigned.is_set()
            logger.warning("the call starts without its conversation", extra={"conversation_id": self.id})
            return False
        if self._refusal is not None:
            raise self._refusal
        return self.is_open

    async def wait_open(self) -> None:
        """Return when the conversation is open, however late. Raises as `open` does."""
        await self._opened.wait()
        if self._refusal is not None:
            raise self._refusal

    async def _open_at_last(self) -> None:
        """Try until it is open, or refused; whatever else goes wrong is counted, and tried again after a pause."""
        delay, longest = _BACKOFF
        while self._handle is None and self._refusal is None:
            try:
                await self._open_once()
            except Exception as error:  # noqa: BLE001  # whatever it is, the call goes on, and the next try may do
                if isinstance(error, RefusedError) and not isinstance(error, ConversationNotFoundError):
                    self._refusal = error
                    self.deposed.set()
                    if isinstance(error, LeaseHeldError | CallDeclinedError):
                        await self._announcement.withdraw()
                    self._marks.give_up()
                    break
                told = "the conversation cannot be opened yet"
                self.failures.count("open", error, told, conversation_id=self.id)
                await self.failures.at_most_once("open", self._stack.aclose)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing
                delay = min(delay * 2, longest)
        self._is_assigned.set()
        self._is_readable.set()
        self._opened.set()

    async def _open_once(self) -> None:
        heartbeats = await self._stack.enter_async_context(Heartbeats(self._store, lease=LEASE))
        await self._announcement.make(heartbeats, self.id)
        await self._learn_assignment(heartbeats)
        client = await self._stack.enter_async_context(ConversationClient(self._store))
        handle = await client.open(self.id)
        self._heartbeats = heartbeats
        self._view = handle
        self._marks.look(handle)
        self._is_readable.set()
        if handle.closing is not None:
            # whoever ended it did not know that somebody would call again
            await handle.reopen_conversation()
        lease = await self._succession(handle, heartbeats).acquire()
        await self._begin_heartbeats()
        if self._assignment.is_planned:
            # what happened in this job's session so far was not part of the call
            self._waiting.clear()
            self._has_missed_items = False
        self._handle, self._opened_at = handle, uptime()
        self._tenure = self._begin_tenure(handle, lease, client, heartbeats)
        self._look_after(handle, self._tenure)
        self._start(self.failures.at_most_once("expectation", lambda: self._meet(heartbeats)))
        # those that waited come before those that were missed because too many waited
        has_missed, self._has_missed_items = self._has_missed_items, False
        self._record_waiting(self._taken_out())
        self._has_missed_items = self._has_missed_items or has_missed
        self.note(AGENT, {"holder": self.holder, "room": self.post.room, "since": time.time()})
        if self._has_missed_items or self._changes.has_missed:
            self._tenure.doubt()

    def _succession(self, handle: ConversationHandle, heartbeats: Heartbeats) -> Succession:
        return Succession(
            Successor(self.id, self.role, self.holder, self.post.room),
            handle,
            heartbeats,
            self._assignment,
            settings=self._takeover,
            is_ready=self._is_ready,
            on_restart=self._on_restart,
        )

    def _on_restart(self, reason: RestartReason | None) -> None:
        self.is_restart = True
        self.restart_reason = reason or self.restart_reason or RestartReason.UNKNOWN

    async def _learn_assignment(self, heartbeats: Heartbeats) -> None:
        """Find out, once, what this job was called for. Raises `CallDeclinedError` where it is not to take that."""
        if self._is_assigned.is_set():
            return
        try:
            found = await self._find_expectation(heartbeats)
        except InvalidInputError as error:
            found = None  # a room, or an agent, by whose name nobody can be called
            self.failures.count("expectation", error, "nobody is called here", conversation_id=self.id)
        if found is not None:
            told = Assignment.of(found.told)
            reason = self._why_declined(told)
            if reason is not None:
                await self._decline(heartbeats, found, reason)
            self._expectation, self._assignment = found, told
            if told.conversation_id not in {None, self.id}:
                self.id = told.conversation_id or self.id
                await self._announcement.make(heartbeats, self.id)
            # known before the conversation is: whoever starts without it is not the first one either
            self.is_restart = self.is_restart or told.replaces is not None
        self._is_assigned.set()

    async def _find_expectation(self, heartbeats: Heartbeats) -> Expectation | None:
        return await find_expectation(
            heartbeats,
            self.post.room,
            self.post.agent_name,
            dispatch_id=self.post.dispatch_id,
            role=self.role,
            named=self._assignment.conversation_id,
        )

    def _why_declined(self, told: Assignment) -> str | None:
        if told.avoid and told.avoid == self.post.worker_id:
            return "the call is to leave this worker"
        if told.is_planned and self._has_begun_without:
            # it has answered the caller already, and another agent does
            return "it was not known in time that another agent is at it"
        return None

    async def _decline(self, heartbeats: Heartbeats, expectation: Expectation, reason: str) -> None:
        declined = replace(expectation, call=expectation.call or self.post.dispatch_id, is_declined=True)
        await self.failures.at_most_once("decline", lambda: heartbeats.amend(declined, keep=_DECLINED_KEPT))
        message = f"declined: {reason}"
        raise CallDeclinedError(message)

    async def _meet(self, heartbeats: Heartbeats) -> None:
        if self._expectation is not None:
            await heartbeats.met(self._expectation)

    def _begin_tenure(
        self, handle: ConversationHandle, lease: Lease, client: ConversationClient, heartbeats: Heartbeats
    ) -> Tenure:
        return Tenure(
            handle,
            lease,
            duration=LEASE_DURATION,
            beat=self._beat,
            keep=lambda: heartbeats.keep(self.id),
            open_anew=lambda: client.open(self.id),
            on_renewed=self._on_renewed,
            on_deposed=self._depose,
            failures=self.failures,
            interval=self._takeover.heartbeat,
        )

    @property
    def _held(self) -> Tenure:
        assert self._tenure is not None
        return self._tenure

    def _look_after(self, handle: ConversationHandle, tenure: Tenure) -> None:
        """Begin what goes on as long as this job has the conversation. A step that fails is counted and repeated."""
        forever, pause = self.failures.forever, _BACKOFF[0]
        self._start(forever("notes", lambda: self._changes.write_notes(handle), pause=pause))
        self._start(forever("changes", lambda: self._changes.operate(handle), pause=pause))
        self._start(forever("guard", lambda: self._guard(handle), pause=pause))
        self._start(forever("items", lambda: self._acknowledge(handle), pause=pause))
        self._holding = self._start(forever("lease", tenure.hold, pause=pause))
        self._start(tenure.keep_alive())
        self._start(tenure.keep_conversation())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    def _taken_out(self) -> Iterable[Item]:
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def _record_waiting(self, waiting: Iterable[Item]) -> None:
        """Send what has waited, in order; one that is refused costs only itself: the call goes on."""
        for item in waiting:
            try:
                self.record(item)
            except ConversationError as error:
                logger.warning("an item was not kept", extra={"conversation_id": self.id, "reason": str(error)})

    def _record(self, handle: ConversationHandle, item: Item, lease: Lease) -> None:
        try:
            handle.record(item, lease=lease)
        except OverloadedError as error:
            self.lost += 1
            self.failures.count("items", error, "an item does not fit into the outbox", conversation_id=self.id)
            self._has_missed_items = True
            self._doubt(error)
            raise
        self._sent += 1
        self._recorded.set()

    async def _begin_heartbeats(self) -> None:
        assert self._heartbeats is not None
        began = uptime()
        await self._heartbeats.start(
            self.id,
            self.holder,
            role=record_role(self.role),
            valid_for=self._takeover.valid_for,
            group=self.post.group,
            details=self._details(self._assignment.attempt),
        )
        self._beaten_at = began

    def _details(self, attempt: int) -> dict[str, Any]:
        post = self.post
        return {
            "room": post.room,
            "agent_name": post.agent_name,
            "agent_identity": post.agent_identity,
            "attempt": attempt,
            "worker_id": post.worker_id,
            "dispatch_id": post.dispatch_id,
            **copied_metadata(post.metadata),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "failures": dict(self.failures.counts),
        }

    # While it is open.

    async def _beat(self) -> bool:
        """Show that this job lives, and what went wrong in it; False, and deposed, where somebody else has the call."""
        assert self._heartbeats is not None
        began = uptime()
        # a successor that lived for so long is no sign that the call kills its agents
        has_progressed = uptime() - self._opened_at > self._takeover.progress.total_seconds()
        is_mine = await self._heartbeats.beat(
            self.id,
            self.holder,
            role=record_role(self.role),
            valid_for=self._takeover.valid_for,
            group=self.post.group,
            details=self._details(0 if has_progressed else self._assignment.attempt),
        )
        if is_mine:
            self._beaten_at = max(began, self._beaten_at)  # beats may be answered out of order
        else:
            self._depose("its heartbeat was claimed")
        return is_mine

    def _doubt(self, error: Exception) -> None:
        """Ask soon whose the conversation is, and whether it answers. At the end of a call nothing is begun anew."""
        is_gone = isinstance(error, LeaseLostError | ConversationNotFoundError | ConversationClosedError)
        if self._closing and is_gone and not self._is_of_earlier_lease(error):
            self._give_up()
        elif self._tenure is not None:
            self._doubting.ask()

    def _doubt_now(self) -> None:
        self._held.doubt()

    def _is_of_earlier_lease(self, error: Exception) -> bool:
        """Whether what was refused came in the name of a lease that this job has taken anew since."""
        if not isinstance(error, LeaseLostError) or self._tenure is None:
            return False
        lease = self._tenure.lease
        return error.name == lease.name and error.token != lease.token

    def _on_renewed(self, news: News) -> None:
        """The conversation answers: let everybody tell what it missed."""
        if self.deposed.is_set():
            return  # while the lease was asked for
        is_afresh = news is News.AFRESH
        # what was recorded in another lease's name meanwhile was refused
        are_items_missed = news is not News.NONE or self._has_missed_items
        are_changes_missed = is_afresh or self._changes.has_missed
        self._has_missed_items = False
        self._missed_for = None
        self._changes.resume(is_afresh=is_afresh)
        if self._view is not None:
            self._marks.look(self._view)  # of what was done in the life before, the new one is told at once
        if are_items_missed:
            self._tell_items(is_afresh=is_afresh)
        if are_changes_missed:
            self._tell(self._on_changes_missed, is_afresh=is_afresh)
        self._wake_flushes()

    def _tell_items(self, *, is_afresh: bool) -> None:
        """Have recorded again what was missed, and behind it what has waited for that."""
        self._tellings += 1
        waiting, told = self._taken_out(), set[str]()
        self._tell_removed(() if self._view is None else self._view.removed)
        self._telling = told
        try:
            self._tell(self._on_items_missed, is_afresh=is_afresh)
        finally:
            self._telling = None
        self._record_waiting(item for item in waiting if item.id not in told)

    def _tell(self, callbacks: list[OnMissed], *, is_afresh: bool) -> None:
        for callback in callbacks:
            try:
                callback(is_afresh)
            except Exception as error:  # noqa: BLE001  # one that fails must not hold up the others
                self.failures.count("missed", error, conversation_id=self.id)

    def _wake_flushes(self) -> None:
        told_again, self._told_again = self._told_again, asyncio.Event()
        told_again.set()

    async def _acknowledge(self, handle: ConversationHandle) -> None:
        """Learn what became of recorded items: whoever recorded them does not wait for it.

        Only this task flushes the handle, which tells each task that does of each refusal: so each is heard once.
        """
        await self._recorded.wait()
        self._recorded.clear()
        asked, self._round = self._round, _Round()
        asked.trouble = OutcomeUnknownError("it was not learnt whether the items are durable")
        try:
            asked.trouble = await self._learn(handle)
        finally:
            if asked.trouble is not None:
                self._recorded.set()
            asked.is_over.set()
        if asked.trouble is not None:
            self.failures.count("items", asked.trouble, "items are not durable yet", conversation_id=self.id)
            await asyncio.sleep(_BACKOFF[0])

    async def _learn(self, handle: ConversationHandle) -> RetryableError | None:
        """Wait until what was recorded is durable, or refused; return why that is not known yet."""
        tellings, (heard, self._heard) = self._tellings, (self._heard, self._sent)
        try:
            await handle.flush()
        except RetryableError as error:
            return error
        except ConversationError as error:
            # a flush hears only of what was put before it: all of that was told again since, if anything was
            is_mended = tellings != self._tellings or self._is_of_earlier_lease(error)
            if not (is_mended and is_trouble(error)):
                self._take_refusal(error)
        else:
            if self._heard > heard:  # else nothing was there to be refused
                self._owner_failures, self._has_looked = 0, False
        return None

    def _take_refusal(self, error: ConversationError) -> None:
        self.failures.count("items", error, "an item was refused", conversation_id=self.id)
        self._owner_failures = self._owner_failures + 1 if isinstance(error, OwnerFailedError) else 0
        if self._owner_failures >= MOST_OWNER_FAILURES:
            self._owner_failures = 0
            self._refused_item = error
        elif self._has_given_up or not (is_trouble(error) or self._may_hide_trouble(error)):
            self._refused_item = error
        else:
            self._missed_for = error if is_trouble(error) else None
            self._refused_item = self._refused_item if is_trouble(error) else error
            self._has_missed_items = True
            self._doubt(error)

    def _may_hide_trouble(self, error: ConversationError) -> bool:
        """Whether a refusal that is told with a note, of how many others there were, is to be followed by a look.

        Once, until all is taken: a look at what is refused for its own sake ends in the same.
        """
        is_news = bool(getattr(error, "__notes__", ())) and not self._has_looked
        self._has_looked = self._has_looked or is_news
        return is_news

    async def _guard(self, handle: ConversationHandle) -> None:
        """Look at the local copy, which other processes' changes reach in milliseconds. No I/O."""
        self._held.compare(handle.leases.get(self.role))
        wish = wish_of(handle, self.role)
        if wish.get("from") == self.holder and REFUSED not in wish:
            is_here = wish.get("room", self.post.room) == self.post.room
            (self.handover_asked if is_here else self.redialled).set()
        await asyncio.sleep(_GUARD_SECONDS)

    def _depose(self, reason: str) -> None:
        if not self.deposed.is_set() and not self._closing:
            logger.warning("deposed", extra={"conversation_id": self.id, "holder": self.holder, "reason": reason})
            self.deposed.set()
            if self._tenure is not None:
                self._tenure.end()
            self._give_up()

    def _give_up(self) -> None:
        """Nothing more can be told: another agent has the conversation, or the call ends without one."""
        self._has_given_up, self._has_missed_items = True, False
        self._changes.give_up()
        self._marks.give_up()
        self._waiting.clear()
        self._wake_flushes()

    def _keep(self, item: Item) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self.lost += 1
            self._has_missed_items = True
            message = f"{len(self._waiting)} items wait for the conversation to open; this one was not kept"
            raise OverloadedError(message)
        self._waiting.append(item)

    async def refuse_redial(self) -> None:
        """Tell the agent in another room that the call goes on here; never raises. It may ask again."""
        wish = {} if self._handle is None else wish_of(self._handle, self.role)
        if self._handle is not None and wish.get("from") == self.holder:
            try:
                # now or never: an answer that waited could take the place of another one's wish
                async with asyncio.timeout(_SETTLE_SECONDS):
                    refused = {attribute_name(HANDOVER, self.role): {**wish, REFUSED: True}}
                    await self._handle.set_attributes(refused, lease=self._held.lease)
            except Exception as error:  # noqa: BLE001  # see the docstring
                self.failures.count("redial", error, "no answer to another room", conversation_id=self.id)
        self.redialled.clear()

    # The end.

    async def release(self) -> None:
        """End as the agent, in order: all is durable, nobody needs to take over. Idempotent, never raises."""
        self.ended()
        if self._handle is None and not self._closing:
            await self._open_no_more()
        await self._let_go(is_over=True)

    async def _open_no_more(self) -> None:
        """Break off what would open it, if anything still does, and have nobody follow: this job leaves in order."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._handle is None:
            await self._announcement.withdraw()

    async def hand_over(self) -> None:
        """End as the agent for the successor that has asked; never raises.

        The heartbeat's record stays: the successor's takes its place, and if it died meanwhile another one is called.
        """
        self.left()
        await self._let_go(is_over=False)

    async def _let_go(self, *, is_over: bool) -> None:
        if self._handle is None or self._closing or self.deposed.is_set():
            return
        self._closing = True
        handle = self._handle
        self._held.is_ending = True
        self.note(AGENT, None)
        self.note(HANDOVER, None)
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.flush()
        except Exception as error:  # noqa: BLE001  # whatever was not taken, the lease can still be given back
            self.failures.count("release", error, "not all was taken", conversation_id=self.id)
        if self._holding is not None:
            self._holding.cancel()  # what is given back now must not be renewed
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                assert self._heartbeats is not None
                role = record_role(self.role)
                if not await self._heartbeats.beat(self.id, self.holder, role=role, valid_for=self._takeover.valid_for):
                    self.left()  # taken over a moment ago: the record is the successor's
                    return
                if is_over:
                    self._is_released = True  # first: a beat is refused once it has stopped
                    await self._heartbeats.stop(self.id, self.holder, role=role)
                await handle.release_lease(self._held.lease)
        except Exception as error:  # noqa: BLE001  # its heartbeat stops with this process, and a worker finds out
            self.failures.count("release", error, "the lease was not released", conversation_id=self.id)

    async def aclose(self) -> None:
        """Let go of everything, sending what is still to be sent. Releases nothing: see `release`."""
        self._closing = True
        self._doubting.stop()
        if self._handle is not None and self._waiting:
            # nobody will record again what was missed: what waits behind it is better there than lost
            self._has_missed_items = False
            self._record_waiting(self._taken_out())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # nobody is left who would tell whoever asks now
        self._changes.give_up()
        self._marks.give_up()
        self._round.trouble = OutcomeUnknownError("closed before the items were acknowledged")
        self._round.is_over.set()
        await self._stack.aclose()


def copied_metadata(metadata: str) -> dict[str, str]:
    """A job's metadata, where it is small: LiveKit's server may not know the job's dispatch any more when it dies."""
    return {"metadata": metadata} if metadata and len(json.dumps(metadata)) <= MOST_COPIED_CHARACTERS else {}
