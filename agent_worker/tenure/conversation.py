"""A conversation as one job holds it: opened, leased, and shown to be alive.

Two things outside of this process may be away: Ray and Redis. Neither may cost the caller the call. So a
job waits for its conversation only for a while; what happens meanwhile is kept, and recorded later. A conversation
that is gone in the middle of a call is opened again, and told what the job still knows.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agent_worker.failures import Failures
from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.announcement import Announcement
from agent_worker.tenure.assignment import Assignment, CallDeclinedError, RestartReason
from agent_worker.tenure.backlog import Operation
from agent_worker.tenure.expected import find_expectation
from agent_worker.tenure.heartbeat_details import HeartbeatDetails, copied_metadata
from agent_worker.tenure.local_copy import LocalCopy
from agent_worker.tenure.once import Held, Mark, Todo, mark_name
from agent_worker.tenure.pace import Pace
from agent_worker.tenure.post import Post
from agent_worker.tenure.pulse import News, Tenure
from agent_worker.tenure.recording import OnMissed, OnRemoved
from agent_worker.tenure.role import (
    AGENT,
    AGENT_ROLE,
    LEASE,
    attribute_name,
    record_role,
)
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import HANDOVER, LEASE_DURATION, REFUSED, Succession, Successor, wish_of
from agent_worker.tenure.telling import SETTLE_SECONDS, Telling
from agent_worker.timing import TIMING, Timing
from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    Heartbeats,
    Item,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    Participant,
    Settings,
)
from conversation_actors.backoff import Backoff
from conversation_actors.client.heartbeats import Expectation
from conversation_actors.clock import uptime
from conversation_actors.errors import (
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    InvalidInputError,
    RefusedError,
)

__all__ = ["AGENT", "HANDOVER", "LEASE", "LEASE_DURATION", "REFUSED", "CallConversation", "OnMissed", "Post"]

logger = logging.getLogger(__name__)

_DECLINED_KEPT = timedelta(minutes=1)


class CallConversation:
    """A conversation, held by one job. Made by `open_conversation`; belongs to the job's event loop.

    What it writes carries the agent's lease: once another agent has taken over, nothing more of this one's
    is taken. `record` and `later` never block and never raise for the sake of Ray or Redis.

    What looks after the conversation in the background is ended by nothing but `aclose`, or a successor: what goes
    wrong there is counted in `failures`, which the heartbeat's record shows, and tried again.
    """

    def __init__(  # the parts are carved out next
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
        self._standing = Standing(conversation_id, role=role, holder=holder, post=post)
        self.settings = call or CallSettings()
        self.timing = timing
        """How long the parts of the call wait."""
        self.handover_asked = asyncio.Event()
        """Set when a successor waits for this agent to finish its sentence and to release the lease."""
        self.redialled = asyncio.Event()
        """Set while an agent in another room asks for the conversation, and has no answer: see `refuse_redial`."""
        self.is_restart = False
        """Whether an agent of this role held this call before, and died or gave it over."""
        self.restart_reason: RestartReason | None = None
        """Why this agent follows another one; None where it follows nobody, or before it is open."""
        self.failures = Failures()
        """What went wrong in the background of this call."""
        self._assignment, self._store = assignment, store or Settings()
        self._takeover, self._stack = takeover or TakeoverSettings(), AsyncExitStack()
        self._announcement = Announcement(self._store, holder, self.role, self.failures)
        self._copy = LocalCopy(self._standing, self._store.history)
        self._expectation: Expectation | None = None
        self._heartbeats: Heartbeats | None = None
        self._is_assigned, self._is_readable, self._is_ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._telling = Telling(
            self._standing, self.failures, settings=self._store, on_trouble=self._doubt, timing=timing
        )
        self._refusal: ConversationError | None = None
        self._doubting = Pace(self._doubt_now, pauses=timing.opening)
        self._has_begun_without = False
        self._opened_at, self._beaten_at = 0.0, float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._holding: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show which conversation, and whether it is open."""
        return f"<CallConversation {self.id!r} {'open' if self._standing.handle else 'not open yet'}>"

    # What the recorder and the restore use: see agent_worker.session.protocol.Conversation.

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._standing.conversation_id

    @property
    def role(self) -> str:
        """Which of several agents of one conversation this one is: each is followed by itself."""
        return self._standing.role

    @property
    def holder(self) -> str:
        """The job's id, by which it holds the lease."""
        return self._standing.holder

    @property
    def post(self) -> Post:
        """Where this agent stands."""
        return self._standing.post

    @property
    def deposed(self) -> asyncio.Event:
        """Set when another agent has the call, or is about to: this one has to leave it."""
        return self._standing.deposed

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, as far as it is this role's; empty while the conversation cannot be read."""
        return self._copy.items

    @property
    def seq(self) -> int:
        """The position of the local copy; 0 while the conversation cannot be read."""
        return self._copy.seq

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who is and was here, by identity."""
        return self._copy.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes."""
        return self._copy.attributes

    @property
    def is_beside(self) -> bool:
        """Whether this agent has another role in a call that `agent` leads: what is said of the call is that one's."""
        return self._copy.is_beside

    @property
    def is_open(self) -> bool:
        """Whether the conversation is open, and this job its agent."""
        return self._standing.handle is not None

    @property
    def is_full(self) -> bool:
        """Whether the history is near a bound, so that old items may have left it."""
        return self._copy.is_full

    @property
    def is_over(self) -> bool:
        """Whether the call has ended in order, and not only this agent's part in it."""
        return self._standing.is_over

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether this agent leaves, or has left, a call that goes on: handed over, deposed, or interrupted."""
        return self._standing.goes_on_elsewhere

    def ended(self) -> None:
        """Note that the call is over: nobody is there any more, or whoever may end it has. Idempotent."""
        self._standing.end()

    def left(self) -> None:
        """Note that this job ends, and the call does not: another agent is to come, or has come. Idempotent."""
        self._standing.leave()

    async def confirm(self) -> bool:
        """Ask Redis, by a beat, whether this job is still the agent, or was until it let go of a call that is over.

        False where another one has the call, or is to have it; and where that cannot be known: this job never held
        the conversation, or Redis does not answer.
        """
        await asyncio.sleep(0)  # of callbacks that run at a job's end others' may come before ours
        if self._standing.is_released or self.goes_on_elsewhere or self._standing.handle is None:
            return self._standing.is_released and not self.goes_on_elsewhere
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
        if self._standing.is_released or self.goes_on_elsewhere or self.is_waiting_for_handover:
            return self.goes_on_elsewhere or not self._standing.is_released
        try:
            async with asyncio.timeout(self._store.timeouts.command.total_seconds()):
                return await (self.is_another_here() if self._standing.handle is None else self._is_claimed())
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
        return HeartbeatDetails.from_dict(record.details).room in {None, self.post.room}

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
        todo = await self._telling.marks.begin(mark, self._held_now)
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
            await self._standing.opened.wait()
        if self._refusal is not None:
            raise self._refusal

    def _held_now(self) -> Held | None:
        return None if self._standing.is_closing else self._standing.held_to_tell

    async def _settle_mark(self, mark: Mark, value: Mapping[str, Any] | None) -> None:
        """Say what became of it; returns when that is durable, or after a while: it is told as soon as it can be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.timing.flush):
                await self._telling.marks.settle(mark, value)

    @property
    def lost(self) -> int:
        """Items that could not be kept: too many waited."""
        return self._telling.recording.lost

    @property
    def is_planned_handover(self) -> bool:
        """Whether this job follows an agent that gave the call over in order."""
        return self._assignment.is_planned

    @property
    def is_waiting_for_handover(self) -> bool:
        """Whether another agent has the call, and gives it over when this one is `ready`."""
        return self._assignment.is_planned and self._standing.handle is None

    def ready(self) -> None:
        """This job's session could listen at once: the agent that has the call may be asked to give it over."""
        self._is_ready.set()

    def record(self, item: Item, /) -> None:
        """Take an item for sending. Raises what the item's form deserves, and `OverloadedError`.

        Where the conversation has missed earlier items, this one waits until those were recorded again. One that was
        taken before anybody knew of that is stored before them: the conversation keeps the order in which it takes.
        """
        self._telling.record(item)

    def later(self, operation: Operation) -> None:
        """Do something with the handle, behind all that was put here before. Failures are counted.

        Where the conversation does not answer, or too much waits, what waits is dropped: see `on_changes_missed`.
        """
        self._telling.later(operation)

    def remove(self, *item_ids: str) -> None:
        """Take items out of the conversation, and forget what was stored before. Kept until it is done; never waits.

        What waits to be recorded is taken out too, and what was recorded or noted before is stored first, so that the
        store holds none of it at the end. See `ConversationHandle.remove`.
        """
        self._telling.remove(item_ids)

    def on_removed(self, callback: OnRemoved) -> None:
        """Have `callback` told of what is removed: whoever records again what is missed, is not to record that.

        At once of what is removed here; of what others remove, before anything is recorded again.
        """
        self._telling.recording.on_removed(callback)

    def note(self, name: str, value: Any) -> None:
        """Set a shared attribute; None removes it. Kept, as its latest value, until it is taken or refused.

        A name that begins with ``livekit.`` is this role's own: see `noted`.
        """
        self._telling.note(name, value)

    def noted(self, name: str) -> Any:
        """A shared attribute, as an agent of this role has set it by `note`; None where there is none."""
        return self._copy.noted(name)

    def on_items_missed(self, callback: OnMissed) -> None:
        """Have `callback` record again what the conversation lacks, when it answers after having missed items."""
        self._telling.recording.on_missed(callback)

    def on_changes_missed(self, callback: OnMissed) -> None:
        """Have `callback` look again at what `later` tells of, when the conversation answers after a drop."""
        self._telling.on_changes_missed(callback)

    async def flush(self) -> None:
        """Return when all that was put before is durable, or refused for its own sake.

        Raises what `ConversationHandle.flush` raises.
        """
        await self._telling.flush()

    async def settled(self) -> None:
        """Return when what was recorded is durable, or after a second: the call waits for nothing longer.

        While the conversation is not open it returns at once.
        """
        await self._telling.settled()

    async def is_durable(self, timeout: float) -> bool:  # noqa: ASYNC109  # asked of, not waited with
        """Whether all that was recorded so far is durable, at the latest after `timeout` seconds.

        False where an item was refused meanwhile, and where this job is not the agent any more. Never raises.
        """
        return await self._telling.is_durable(timeout)

    # Opening.

    async def open(self) -> bool:
        """Wait for the conversation, for at most `CallSettings.open_timeout`; whether it is open by then.

        In a planned handover it can only be read by then: it is given over when this job is `ready`. Raises
        `LeaseHeldError` where another agent has this call and is alive (and, in another room, has somebody there
        or does not answer), `CallDeclinedError` where this job shall not take it, and `RefusedError`s that no waiting
        mends.
        """
        self._opening = self._start(self._open_at_last())
        self._start(self.failures.forever("marks", self._telling.marks.tell, pause=self.timing.opening[0]))
        try:
            async with asyncio.timeout(self.settings.open_timeout.total_seconds()):
                await self._is_assigned.wait()
                await (self._is_readable if self._assignment.is_planned else self._standing.opened).wait()
        except TimeoutError:
            self._has_begun_without = not self._is_assigned.is_set()
            logger.warning("the call starts without its conversation", extra={"conversation_id": self.id})
            return False
        if self._refusal is not None:
            raise self._refusal
        return self.is_open

    async def wait_open(self) -> None:
        """Return when the conversation is open, however late. Raises as `open` does."""
        await self._standing.opened.wait()
        if self._refusal is not None:
            raise self._refusal

    async def _open_at_last(self) -> None:
        """Try until it is open, or refused; whatever else goes wrong is counted, and tried again after a pause."""
        backoff = Backoff(self.timing.opening)
        while self._standing.handle is None and self._refusal is None:
            try:
                await self._open_once()
            except Exception as error:  # noqa: BLE001  # whatever it is, the call goes on, and the next try may do
                if isinstance(error, RefusedError) and not isinstance(error, ConversationNotFoundError):
                    self._refusal = error
                    self.deposed.set()
                    if isinstance(error, LeaseHeldError | CallDeclinedError):
                        await self._announcement.withdraw()
                    self._telling.marks.give_up()
                    break
                told = "the conversation cannot be opened yet"
                self.failures.count("open", error, told, conversation_id=self.id)
                await self.failures.at_most_once("open", self._stack.aclose)
                await backoff.wait()
        self._is_assigned.set()
        self._is_readable.set()
        self._standing.opened.set()

    async def _open_once(self) -> None:
        heartbeats = await self._stack.enter_async_context(Heartbeats(self._store, lease=LEASE))
        await self._announcement.make(heartbeats, self.id)
        await self._learn_assignment(heartbeats)
        client = await self._stack.enter_async_context(ConversationClient(self._store))
        handle = await client.open(self.id)
        self._heartbeats = heartbeats
        self._standing.view = handle
        self._telling.marks.look(handle)
        self._is_readable.set()
        if handle.closing is not None:
            # whoever ended it did not know that somebody would call again
            await handle.reopen_conversation()
        lease = await self._succession(handle, heartbeats).acquire()
        await self._begin_heartbeats()
        if self._assignment.is_planned:
            # what happened in this job's session so far was not part of the call
            self._telling.recording.forget_waiting()
        self._standing.handle, self._opened_at = handle, uptime()
        self._standing.tenure = self._begin_tenure(handle, lease, client, heartbeats)
        self._look_after(handle, self._standing.tenure)
        self._start(self.failures.at_most_once("expectation", lambda: self._meet(heartbeats)))
        self._telling.begin()
        self.note(AGENT, {"holder": self.holder, "room": self.post.room, "since": time.time()})
        if self._telling.has_missed:
            self._standing.tenure.doubt()

    def _succession(self, handle: ConversationHandle, heartbeats: Heartbeats) -> Succession:
        return Succession(
            Successor(self.id, self.role, self.holder, self.post.room),
            handle,
            heartbeats,
            self._assignment,
            settings=self._takeover,
            is_ready=self._is_ready,
            on_restart=self._on_restart,
            timing=self.timing,
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
                self._standing.conversation_id = told.conversation_id or self.id
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
            timing=self.timing,
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
            timing=self.timing,
        )

    def _look_after(self, handle: ConversationHandle, tenure: Tenure) -> None:
        """Begin what goes on as long as this job has the conversation. A step that fails is counted and repeated."""
        forever, pause = self.failures.forever, self.timing.opening[0]
        for task, step in self._telling.steps(handle).items():
            self._start(forever(task, step, pause=pause))
        self._start(forever("guard", lambda: self._guard(handle), pause=pause))
        self._holding = self._start(forever("lease", tenure.hold, pause=pause))
        self._start(tenure.keep_alive())
        self._start(tenure.keep_conversation())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

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
        details = HeartbeatDetails(
            room=post.room,
            agent_name=post.agent_name,
            agent_identity=post.agent_identity,
            attempt=attempt,
            worker_id=post.worker_id,
            dispatch_id=post.dispatch_id,
            metadata=copied_metadata(post.metadata),
            host=socket.gethostname(),
            pid=os.getpid(),
            failures=self.failures.counts,
        )
        return details.to_dict()

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
        if self._standing.is_closing and is_gone and not self._standing.is_of_earlier_lease(error):
            self._give_up()
        elif self._standing.tenure is not None:
            self._doubting.ask()

    def _doubt_now(self) -> None:
        self._standing.held.doubt()

    def _on_renewed(self, news: News) -> None:
        """The conversation answers: let everybody tell what it missed."""
        if self.deposed.is_set():
            return  # while the lease was asked for
        self._telling.resume(news)

    async def _guard(self, handle: ConversationHandle) -> None:
        """Look at the local copy, which other processes' changes reach in milliseconds. No I/O."""
        self._standing.held.compare(handle.leases.get(self.role))
        wish = wish_of(handle, self.role)
        if wish.get("from") == self.holder and REFUSED not in wish:
            is_here = wish.get("room", self.post.room) == self.post.room
            (self.handover_asked if is_here else self.redialled).set()
        await asyncio.sleep(self.timing.guard)

    def _depose(self, reason: str) -> None:
        if not self.deposed.is_set() and not self._standing.is_closing:
            logger.warning("deposed", extra={"conversation_id": self.id, "holder": self.holder, "reason": reason})
            self.deposed.set()
            if self._standing.tenure is not None:
                self._standing.tenure.end()
            self._give_up()

    def _give_up(self) -> None:
        """Nothing more can be told: another agent has the conversation, or the call ends without one."""
        self._telling.give_up()

    async def refuse_redial(self) -> None:
        """Tell the agent in another room that the call goes on here; never raises. It may ask again."""
        wish = {} if self._standing.handle is None else wish_of(self._standing.handle, self.role)
        if self._standing.handle is not None and wish.get("from") == self.holder:
            try:
                # now or never: an answer that waited could take the place of another one's wish
                async with asyncio.timeout(SETTLE_SECONDS):
                    refused = {attribute_name(HANDOVER, self.role): {**wish, REFUSED: True}}
                    await self._standing.handle.set_attributes(refused, lease=self._standing.lease)
            except Exception as error:  # noqa: BLE001  # see the docstring
                self.failures.count("redial", error, "no answer to another room", conversation_id=self.id)
        self.redialled.clear()

    # The end.

    async def release(self) -> None:
        """End as the agent, in order: all is durable, nobody needs to take over. Idempotent, never raises."""
        self.ended()
        if self._standing.handle is None and not self._standing.is_closing:
            await self._open_no_more()
        await self._let_go(is_over=True)

    async def _open_no_more(self) -> None:
        """Break off what would open it, if anything still does, and have nobody follow: this job leaves in order."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._standing.handle is None:
            await self._announcement.withdraw()

    async def hand_over(self) -> None:
        """End as the agent for the successor that has asked; never raises.

        The heartbeat's record stays: the successor's takes its place, and if it died meanwhile another one is called.
        """
        self.left()
        await self._let_go(is_over=False)

    async def _let_go(self, *, is_over: bool) -> None:
        if self._standing.handle is None or self._standing.is_closing or self.deposed.is_set():
            return
        self._standing.is_closing = True
        handle = self._standing.handle
        self._standing.held.is_ending = True
        self.note(AGENT, None)
        self.note(HANDOVER, None)
        try:
            async with asyncio.timeout(self.timing.flush):
                await self.flush()
        except Exception as error:  # noqa: BLE001  # whatever was not taken, the lease can still be given back
            self.failures.count("release", error, "not all was taken", conversation_id=self.id)
        if self._holding is not None:
            self._holding.cancel()  # what is given back now must not be renewed
        try:
            async with asyncio.timeout(self.timing.flush):
                assert self._heartbeats is not None
                role = record_role(self.role)
                if not await self._heartbeats.beat(self.id, self.holder, role=role, valid_for=self._takeover.valid_for):
                    self.left()  # taken over a moment ago: the record is the successor's
                    return
                if is_over:
                    self._standing.is_released = True  # first: a beat is refused once it has stopped
                    await self._heartbeats.stop(self.id, self.holder, role=role)
                await handle.release_lease(self._standing.lease)
        except Exception as error:  # noqa: BLE001  # its heartbeat stops with this process, and a worker finds out
            self.failures.count("release", error, "the lease was not released", conversation_id=self.id)

    async def aclose(self) -> None:
        """Let go of everything, sending what is still to be sent. Releases nothing: see `release`."""
        self._standing.is_closing = True
        self._doubting.stop()
        self._telling.send_the_rest()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._telling.close()
        await self._stack.aclose()
