"""A conversation, as an application holds it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from conversation_actors.client import arguments
from conversation_actors.client.copy import LocalCopy, retention_of
from conversation_actors.client.following import Feed, Follower
from conversation_actors.client.outbox import Outbox
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.client.sigterm import flushed_at_sigterm
from conversation_actors.client.views import Receipt, Snapshot, snapshot_of
from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConversationError,
    InvalidInputError,
    RetryableError,
)
from conversation_actors.failures import Failures
from conversation_actors.items import Item
from conversation_actors.protocol import ActivationInfo, Done, Execute, Executed, Request, Seen, View
from conversation_actors.settings import Settings
from conversation_actors.state import (
    ClearHistory,
    Closing,
    Command,
    Entry,
    Lease,
    Participant,
    ReopenConversation,
    Summary,
)
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import check_id

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class ConversationHandle:
    """One conversation, bound to its id and to no process: it survives whatever happens to the owner.

    Everything sent through one handle keeps its order. Reading `items`, `participants`, `attributes`,
    `leases`, `summary`, `closing`, `retention` and `seq` does no I/O: it shows a copy of the durable state, which an
    awaited call of this handle is in and other handles' changes reach in milliseconds (not promised:
    it stands still while no owner can be reached).

    A write with `lease=` comes in that lease's name: the owner refuses it with `LeaseLostError` once the lease
    has another holder or token, or is one of a conversation that is gone and was made again, so that who was
    deposed cannot write. That it has expired alone refuses nothing.

    Every awaited call raises its refusal (`RefusedError`), or a `RetryableError` when its time is up.
    Cancelling an await takes back what was not sent yet; what was sent may happen. A closed handle refuses
    every call (`InvalidInputError`) and shows its last copy. Made by `ConversationClient.open`; belongs to one
    event loop.
    """

    def __init__(
        self, conversation_id: str, owner: RemoteOwner, view: View, settings: Settings, *, timing: Timing = TIMING
    ) -> None:
        """Follow the conversation from `view` on."""
        self._id, self._owner, self._settings, self._timing = conversation_id, owner, settings, timing
        self._limits = settings.history.limits()
        self.is_closed = False
        self._closing = asyncio.Event()
        self._copy = LocalCopy(view)
        self._catching_up = asyncio.Lock()
        self._told_by = view.owner
        """The owner that has answered last."""
        self._failures = Failures(timing=timing)
        self._outbox = Outbox(self._send, settings, self._failures, timing=timing)
        self._last_words = flushed_at_sigterm(self._outbox, seconds=settings.timeouts.close.total_seconds())
        feed = Feed(owner, timing=timing)
        self._follower = Follower(self._copy, feed, lambda: owner.read(fresh=False), self._failures, timing=timing)
        self._tasks = [asyncio.create_task(self._outbox.run()), asyncio.create_task(self._follower.run())]

    def __repr__(self) -> str:
        """Show which conversation, and where the local copy stands."""
        return f"<ConversationHandle {self._id!r} seq={self.seq}>"

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._id

    @property
    def seq(self) -> int:
        """The position of the local copy."""
        return self._copy.seq

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, oldest first, within its bounds."""
        return self._copy.items

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Participants by identity, those who have left too; ask again to see what has changed since."""
        return self._copy.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes, as they are now. Don't change nested values: they are the copy's own."""
        return self._copy.attributes

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Leases by name; an expired one stays listed for a while.

        `expires_at` is by the store's clock, which may differ from this process's: whether it is over the owner knows.
        """
        return dict(self._copy.state.leases)

    @property
    def summary(self) -> Summary | None:
        """What a summariser wrote, if one did."""
        return self._copy.state.summary

    @property
    def closing(self) -> Closing | None:
        """Why and when the conversation was closed; None while it is open."""
        return self._copy.state.closing

    @property
    def retention(self) -> timedelta | None:
        """How long the conversation is kept after its last use; None: as long as the owner's `Settings.ttl`."""
        return retention_of(self._copy.state)

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong in the background and was survived, by task: `following` (the local copy), `sending`."""
        return self._failures.counts

    @property
    def removed(self) -> tuple[str, ...]:
        """Ids of items that were removed, by whomever, while this handle looked; up to 2000. No I/O.

        A copy elsewhere of what was said is not to bring those back.
        """
        return tuple(self._copy.removed)

    @property
    def unacknowledged(self) -> int:
        """Commands put into the outbox and not answered yet."""
        return len(self._outbox)

    async def append(self, *items: Item, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Append items as one atomic entry; return when they are durable.

        An item whose `id` is in the window already takes the old one's place. A repeat with the same
        `request_id` returns the first receipt (for `HistoryLimits.request_age`, and `requests` of them).

        A `request_id` stands for its content: the same with other content, or of another call, is a `ConflictError`.
        Content is all that was given, in its order, but for an item's `created_at` and an `id` that it was not
        given: a process that was started again makes the same message anew. `lease` and `expected_seq`, of this
        and other calls, say when a call is good, and are no content.
        """
        done = await self._ask(arguments.append_items(items, self._limits), request_id, lease)
        return Receipt(done.seq, done.epoch)

    def record(self, *items: Item, lease: Lease | None = None) -> None:
        """Put items into the outbox and return at once: they are sent in order, with all else.

        Those of one call are taken or refused together. What many calls have put while an earlier batch was on
        its way (eight or more in a row, of one lease, no id twice) is stored as few entries, which a watch brings;
        where one is refused, each call's items are tried by themselves.
        Raises `InvalidInputError`, `ItemTooLargeError` or `OverloadedError` (outbox full; nothing taken).
        Acknowledged only by `flush`, which also raises a refusal. What is in the outbox when the process
        dies is lost.
        """
        if self.is_closed:
            raise self._closed()
        self._outbox.put(arguments.append_items(items, self._limits), lease=arguments.guard(lease))

    async def remove(self, *item_ids: str, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Take items out, each function call with its outputs, and forget what was stored before.

        When it returns, no key in Redis holds an item's bytes that is not in the history now: not those taken out, not
        what was replaced or left the window earlier, and no earlier values of anything else. Ids that are not in the
        history are passed over; with none at all only the past is forgotten, as `append` with an item's `id` replaces
        it. Allowed on a closed conversation. A watch brings `ItemsRemoved`, with the ids that were there; from a second
        later on, a position before it is a `PositionLostError`. It costs one snapshot.

        Not reached: what was copied elsewhere (a server's append-only file until it is rewritten, backups, processes
        that have read it), and what attributes, participants and the summary say now.
        """
        done = await self._ask(arguments.remove_items(item_ids), request_id, lease)
        return Receipt(done.seq, done.epoch)

    async def flush(self) -> None:
        """Return when all that was recorded before is durable.

        Raises the first refusal of it that is still to be told here: of what this task has recorded, of what a
        flush of this task was waiting for, and of what nobody was told of yet. So a refusal reaches everybody whom it
        concerns, each once. Or `OutcomeUnknownError` after `timeouts.command`; what is queued then stays queued.
        """
        if self.is_closed:
            raise self._closed()
        await self._outbox.flush()

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """Ask the owner for the durable state.

        With `fresh`, the owner first makes sure in Redis that it is the owner still; without, an owner
        that is cut off and does not know it may show an old state.
        """
        if self.is_closed:
            raise self._closed()
        view = await self._owner.read(fresh=fresh)
        if view.life != self._copy.seen.life:
            self._copy.replace(view)  # else a watch from this snapshot's position would be one of the old life
        state = decode_snapshot(view.snapshot)
        return snapshot_of(self._id, state, epoch=view.epoch)

    async def join(
        self,
        identity: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        device_id: str | None = None,
        language: str | None = None,
        request_id: str | None = None,
        lease: Lease | None = None,
    ) -> Participant:
        """A participant is here, on `device_id` (None: one unnamed device). What is None stays as it was.

        Coming back after having left with every device raises `reconnect_count`.
        """
        command = arguments.join(identity, device_id, self._limits, name=name, metadata=metadata, language=language)
        done = await self._ask(command, request_id, lease)
        assert isinstance(done.result, Participant)
        return done.result

    async def leave(
        self,
        identity: str,
        *,
        device_id: str | None = None,
        request_id: str | None = None,
        lease: Lease | None = None,
    ) -> Participant | None:
        """A participant left with `device_id`, or with every device (None). Unknown ones are passed over."""
        done = await self._ask(arguments.leave(identity, device_id), request_id, lease)
        assert not isinstance(done.result, Lease)
        return done.result

    async def update_participant(
        self,
        identity: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        language: str | None = None,
        context: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        lease: Lease | None = None,
    ) -> Participant:
        """Change what is known of a participant; None leaves a value as it is. `ConflictError` if unknown."""
        command = arguments.update_participant(
            identity, self._limits, name=name, metadata=metadata, language=language, context=context
        )
        done = await self._ask(command, request_id, lease)
        assert isinstance(done.result, Participant)
        return done.result

    async def set_attributes(
        self,
        changes: Mapping[str, Any],
        *,
        expected_seq: int | None = None,
        request_id: str | None = None,
        lease: Lease | None = None,
    ) -> Receipt:
        """Merge shared attributes; a value of None removes its key.

        With `expected_seq` (of the copy or snapshot the decision was made on), `ConflictError` when any
        attribute has changed since.
        """
        command = arguments.set_attributes(changes, expected_seq, self._limits)
        done = await self._ask(
            command, request_id, lease, seen=None if expected_seq is None else self._seen_at(expected_seq)
        )
        return Receipt(done.seq, done.epoch)

    async def acquire_lease(
        self,
        name: str,
        *,
        holder: str,
        duration: timedelta,
        replacing: str | None = None,
        request_id: str | None = None,
    ) -> Lease:
        """Take a lease, or renew one's own, which keeps its token as long as nobody else had it in between.

        `LeaseHeldError` while somebody else holds it, unless that is `replacing`: a holder that is known to
        be gone is deposed before its time, and what it still sends in the lease's name is refused.
        """
        done = await self._ask(arguments.acquire_lease(name, holder, duration, replacing), request_id)
        assert isinstance(done.result, Lease)
        return done.result

    async def release_lease(self, lease: Lease, *, request_id: str | None = None) -> None:
        """Give a lease back; nothing happens if it is held no longer."""
        await self._ask(arguments.release_lease(lease), request_id)

    async def set_summary(
        self, text: str, *, through_seq: int, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """Keep a summary of the history up to `through_seq`. `ConflictError` if there is a later one."""
        command = arguments.set_summary(text, through_seq, self._limits)
        done = await self._ask(command, request_id, lease, seen=self._seen_at(command.through_seq))
        return Receipt(done.seq, done.epoch)

    async def clear_history(self, *, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Drop all items (system messages too) and the summary. Participants and attributes stay."""
        done = await self._ask(ClearHistory(), request_id, lease)
        return Receipt(done.seq, done.epoch)

    async def set_retention(
        self, duration: timedelta | None, *, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """Keep the conversation for this long after its last use, 1 second to 366 days; None: for `Settings.ttl`.

        Commands, reads that ask the owner, and being followed or watched are use: while a handle is open,
        it is kept. Then Redis forgets it, and the handle raises `ConversationNotFoundError`. Listings, which
        hold its id under its participants' identities, forget it when they are read, or after half as long again.
        """
        done = await self._ask(arguments.set_retention(duration), request_id, lease)
        return Receipt(done.seq, done.epoch)

    async def close_conversation(
        self, reason: str = "", *, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """End the conversation: writes raise `ConversationClosedError` until it is reopened."""
        done = await self._ask(arguments.close_conversation(reason, self._limits), request_id, lease)
        return Receipt(done.seq, done.epoch)

    async def reopen_conversation(self, *, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Take writes again."""
        done = await self._ask(ReopenConversation(), request_id, lease)
        return Receipt(done.seq, done.epoch)

    def watch(self, *, after_seq: int | None = None) -> AsyncGenerator[Entry, None]:
        """Durable entries in order, without a gap, from behind `after_seq` (None: from this call on) for ever.

        Resume with the `seq` of the last entry seen. Raises `PositionLostError` when the owner does not
        keep entries that far back, or Redis has lost what this watch brought: take a snapshot, and watch from its
        `seq`. Being watched keeps an owner from being passivated; watching alone starts none. Ends with
        `InvalidInputError` when the handle is closed.
        """
        if self.is_closed:
            raise self._closed()
        position = self.seq if after_seq is None else arguments.check_position(after_seq, "after_seq")
        return self._watch(position, self._seen_at(position))

    async def _watch(self, position: int, seen: Seen) -> AsyncGenerator[Entry, None]:
        feed = Feed(self._owner, timing=self._timing)
        try:
            while True:
                try:
                    entries, owner = await self._unless_closed(feed.after(position, seen))
                except RetryableError:  # an owner that cannot recover yet, or has too many watchers: a delay, no more
                    await self._unless_closed(asyncio.sleep(self._timing.dormant[1]))
                    continue
                seen = seen._replace(owner=owner)
                for data in entries:
                    entry = decode_entry(data)
                    position = entry.seq
                    yield entry
        finally:
            await feed.let_go()

    async def catch_up(self, view: View) -> None:
        """Return when the local copy is where a view of the owner is, which was read a moment ago.

        Raises `ClusterUnavailableError` when it does not get there within `timeouts.command`.
        """
        if self.is_closed:
            raise self._closed()
        if view.seen != self._copy.seen:
            self._copy.replace(view)
        seq = view.seq
        self._follower.fell_behind()
        try:
            async with asyncio.timeout(self._command_seconds):
                await self._unless_closed(self._copy.reach(seq))
        except TimeoutError:
            message = f"the local copy stands at {self.seq}, and did not reach {seq} in {self._command_seconds} s"
            raise ClusterUnavailableError(message) from None

    async def passivate(self) -> None:
        """Have the owner save a snapshot and exit; the next call brings the conversation back."""
        if self.is_closed:
            raise self._closed()
        await self._owner.passivate()

    async def info(self) -> ActivationInfo:
        """Facts about the owner that runs now; starts one if none does."""
        if self.is_closed:
            raise self._closed()
        return await self._owner.info()

    async def aclose(self) -> None:
        """Send what is in the outbox (for at most `timeouts.close`), then let go. Idempotent.

        Whoever still waits then gets `OutcomeUnknownError`, or `ClusterUnavailableError` where nothing was sent; what
        was not acknowledged is counted in the log. Watches end. Let go, the owner may be passivated. The client's
        next `open` of this id makes a new handle.
        """
        self.is_closed = True
        self._closing.set()
        try:
            async with asyncio.timeout(self._settings.timeouts.close.total_seconds()):
                await self._outbox.flush()
        except (TimeoutError, ConversationError) as error:
            log.warning("closing: not all that was sent was taken", extra={"reason": str(error)})
        finally:
            if len(self._outbox):
                log.error("closed with unacknowledged commands", extra={"unacknowledged": len(self._outbox)})
            for task in self._tasks:
                task.cancel()
            self._outbox.close(self._closed())
            if self._last_words is not None:
                self._last_words.remove(self._outbox)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._follower.let_go()

    @property
    def _command_seconds(self) -> float:
        return self._settings.timeouts.command.total_seconds()

    def _closed(self) -> InvalidInputError:
        message = f"conversation: this handle of {self._id!r} was closed; open it again with `ConversationClient.open`"
        return InvalidInputError(message, field="conversation")

    async def _unless_closed(self, waited: Coroutine[Any, Any, Answer]) -> Answer:
        """What `waited` returns or raises; or, when the handle is closed first, the error that says so."""
        work, closing = asyncio.create_task(waited), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({work, closing}, return_when=asyncio.FIRST_COMPLETED)
            answered = work.done() and not self.is_closed
        finally:
            work.cancel()
            closing.cancel()
            await asyncio.gather(work, closing, return_exceptions=True)
        if not answered:
            raise self._closed()
        return work.result()

    def _seen_at(self, seq: int) -> Seen:
        """The history that a position named by the caller is one of; of one beyond the copy only the life is known."""
        seen = self._copy.seen
        return seen if seq <= self._copy.seq else seen._replace(owner=None)

    async def _ask(
        self, command: Command, request_id: str | None, lease: Lease | None = None, *, seen: Seen | None = None
    ) -> Done:
        """Send a command in its turn; return when it is durable and the local copy has it."""
        if self.is_closed:
            raise self._closed()
        if request_id is not None:
            request_id = check_id(request_id, "request_id")
        done = await self._outbox.ask(command, request_id, lease=arguments.guard(lease), seen=seen)
        await self._show(done.seq)
        return done

    async def _show(self, seq: int) -> None:
        """Return when the local copy has what was acknowledged at `seq`. The write stands where that takes too long."""
        owner = self._told_by
        with suppress(TimeoutError):
            # The entries usually came with the answer. If not, the poll brings them,
            async with asyncio.timeout(self._timing.entries):
                await self._copy.reach(seq, owner=owner)
        if not self._copy.shows(seq, owner):
            # unless the owner has died since (to be followed only, none is started), or the copy is one of what was
            # lost: then it may be further on, and shows nothing of this.
            try:
                async with asyncio.timeout(self._settings.timeouts.attempt.total_seconds()), self._catching_up:
                    if not self._copy.shows(seq, owner):  # no other call has read it meanwhile
                        view = await self._owner.read(fresh=False)
                        if view.seq >= seq:
                            self._copy.replace(view)
            except (ConversationError, TimeoutError) as error:
                log.warning("the local copy does not show a write yet", extra={"reason": str(error)})

    async def _send(self, requests: Sequence[Request], seconds: float) -> Executed:
        asked = self._copy.position

        def compose() -> Execute:
            nonlocal asked
            asked = self._copy.position  # the copy may have gone on since the last attempt
            return Execute(requests, self._follower.watcher, *asked)

        try:
            executed = await self._owner.execute(compose, seconds)
        except RetryableError:
            self._follower.fell_behind()  # entries that came with a lost answer are not announced again
            raise
        self._told_by = executed.owner
        commands = [request.command for request in requests]
        self._copy.apply(executed.entries, owner=executed.owner, asked=asked, sent=commands)
        return executed
