"""A conversation, as an application holds it."""

import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from conversation_actors.calls.names import OUTCOME
from conversation_actors.calls.outcome import Outcome, outcome_note, outcome_value
from conversation_actors.client import arguments
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.copy import StoredState, retention_of
from conversation_actors.client.digest import digest_of
from conversation_actors.client.history import Histories, no_archive
from conversation_actors.client.lifetime import Lifetime
from conversation_actors.client.link import Link
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.client.pictures import ConversationPictures
from conversation_actors.client.views import Page, Receipt, Snapshot, snapshot_of
from conversation_actors.codec import decode_snapshot
from conversation_actors.failures import Failures
from conversation_actors.items import Item
from conversation_actors.protocol import ActivationInfo, View
from conversation_actors.settings import Settings
from conversation_actors.state import (
    ClearHistory,
    Closing,
    Entry,
    Lease,
    Participant,
    ReopenConversation,
    Summary,
)
from conversation_actors.timing import TIMING, Timing


class ConversationHandle:
    """One conversation, bound to its id and to no process: it survives whatever happens to the owner.

    Everything sent through one handle keeps its order. The properties do no I/O: they show a local copy of the durable
    state. An awaited call has changed the copy when it returns. Changes by other handles reach it in milliseconds,
    which is not promised: it stands still while no owner can be reached.

    A write with `lease=` comes in the name of that lease. The owner refuses it with `LeaseLostError` if the lease has
    another holder or token by then, or belongs to a conversation that is gone and was made again: whoever was deposed
    cannot write. A lease that has merely expired refuses nothing.

    Every awaited call raises its refusal (`RefusedError`), or a `RetryableError` when its time is up. Cancelling an
    await takes back what was not sent yet; what was sent may happen. A closed handle refuses every call
    (`InvalidInputError`) and shows its last copy. `ConversationClient.open` makes handles; each belongs to one event
    loop.
    """

    def __init__(
        self,
        conversation_id: str,
        owner: RemoteOwner,
        view: View | StoredState,
        settings: Settings,
        *,
        histories: Histories | None = None,
        archive: ClientArchive | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Follow the conversation from `view` on. If that is what was stored, the owner is woken in the background."""
        self._id, self._owner, self._histories = conversation_id, owner, histories
        self._limits = settings.history.limits()
        self._lifetime = Lifetime(conversation_id)
        self._failures = Failures(timing=timing)
        self._link = Link(owner, view, settings, lifetime=self._lifetime, failures=self._failures, timing=timing)
        self._copy, self._outbox = self._link.copy, self._link.outbox
        self._pictures = ConversationPictures(
            conversation_id, archive, settings, self._failures, seen_at=lambda: self._copy.state.changed_at
        )

    def __repr__(self) -> str:
        """Show which conversation, and where the local copy stands."""
        return f"<ConversationHandle {self._id!r} seq={self.seq}>"

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._lifetime.is_over

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
        """Participants by identity, with those who have left; a later change is in what is asked for later."""
        return self._copy.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes as they are now. Nested values belong to the copy: do not change them."""
        return self._copy.attributes

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Leases by name, for a while also expired ones: only the owner knows the clock by which they expire."""
        return dict(self._copy.state.leases)

    @property
    def summary(self) -> Summary | None:
        """What a summariser wrote; None if none did."""
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
        """What went wrong in the background and was survived, by task.

        `following` (the local copy), `sending`, `opening` (waking the owner, if `ConversationClient.open` did not wait
        for it), and `pictures` (which the archive did not take, or give).
        """
        return self._failures.counts

    @property
    def removed(self) -> tuple[str, ...]:
        """The last 2000 ids of items that anybody removed since this handle was opened: no copy may bring them back."""
        return tuple(self._copy.removed)

    @property
    def unacknowledged(self) -> int:
        """Commands put into the outbox and not answered yet."""
        return len(self._outbox)

    async def append(self, *items: Item, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Append items as one atomic entry; return when they are durable.

        An item takes the place of one with the same `id` in the history. A repeat with the same `request_id` returns
        the first receipt, for `HistoryLimits.request_age` and for the last `HistoryLimits.requests` of them.

        A `request_id` stands for its content: `ConflictError` if it comes again with other content or with another
        method. An item's `created_at` is no content, nor is an `id` that was made up for it: a process that starts
        again makes the same message anew. Neither are `lease` and `expected_seq`, here and elsewhere.

        If there is an archive, it is given large pictures before the message is sent, which then refers to them; what
        other tasks append meanwhile comes before it. See `with_pictures`.

        Example:
            await conversation.append(Message(role="user", content="Where is my order?"), request_id="turn-1")
            assert conversation.items[-1].text == "Where is my order?"
        """
        self._lifetime.check()
        taken = await self._pictures.take_out(items)
        digest = None if request_id is None or taken is items else arguments.digest_of_items(items)
        return await self._link.write(arguments.append_items(taken, self._limits), request_id, lease, digest=digest)

    def record(self, *items: Item, lease: Lease | None = None) -> None:
        """Put items into the outbox and return at once; they are sent in order with everything else.

        The items of one call are taken or refused together. Eight or more calls in a row that wait for an earlier batch
        are stored together as few entries, if they have one lease and no id comes twice; if those are refused, each
        call is tried alone. Raises `InvalidInputError`, `ItemTooLargeError`, or `OverloadedError` for a full outbox.
        `flush` acknowledges, and raises refusals. A process that dies loses what is in its outbox.

        Example:
            conversation.record(Message(role="assistant", content="On its way."))  # in a loop that must not wait
            await conversation.flush()
        """
        self._link.put(arguments.append_items(items, self._limits), lease)

    async def remove(self, *item_ids: str, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Take items out, each function call with its outputs, and forget what was stored before.

        When this returns, no key in Redis holds the bytes of an item that is not in the history now, nor an earlier
        value of anything else. Where conversations are archived, that holds as soon as the archiver has been there, and
        of the archive too: also of items that have left the history, each by its own id. Unknown ids do no harm;
        without ids only the past is forgotten, for instance that of items which `append` has replaced. A closed
        conversation allows it. It costs one snapshot. A watch brings `ItemsRemoved` with the ids; from a second later
        on, it cannot begin before that (`PositionLostError`).

        Not forgotten is what was copied elsewhere (an append-only file until it is rewritten, backups, processes that
        have read it), nor what attributes, participants and the summary say now.

        Example:
            card = Message(role="user", content="4111 1111 1111 1111")
            await conversation.append(card)
            await conversation.remove(card.id)
            assert card not in conversation.items
        """
        return await self._link.write(arguments.remove_items(item_ids), request_id, lease)

    async def flush(self) -> None:
        """Return when everything that was recorded before is durable.

        Raises the first refusal that this task was not told of yet: of what it has recorded, of what it was flushing,
        or of what nobody was told of. So each refusal reaches everybody whom it concerns, once. Raises
        `OutcomeUnknownError` after `timeouts.command`; what is queued then stays queued.

        Example:
            conversation.record(Message(role="user", content="Hello"))
            await conversation.flush()
            assert conversation.unacknowledged == 0
        """
        await self._link.flush()

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """Ask the owner for the durable state.

        If `fresh`, the owner first makes sure in Redis that it still is the owner. If not, an owner that is cut off
        without knowing it may show an old state.

        Example:
            state = await conversation.snapshot(fresh=True)
            print(state.seq, [item.text for item in state.items], dict(state.attributes))
        """
        view = await self._link.read(fresh=fresh)
        return snapshot_of(self._id, decode_snapshot(view.snapshot), epoch=view.epoch)

    async def history(self, cursor: str | None = None, limit: int = 100, *, newest_first: bool = False) -> Page:
        """Return a page of everything that was ever appended, of 1 to 1000 items: needs an archive, and no owner.

        It has what was acknowledged before, whether it is archived already or still waits in Redis. All pages together
        have each item once, as it was written last, in the order in which the items came; none that was removed or
        cleared. One that had left the window and was appended again stands where it came again.

        Pass `next_cursor` of one page as the `cursor` of the next, with the same `newest_first`. Raises
        `ArchiveMisconfiguredError` without an archive, `ArchiveUnavailableError` after `archive.timeout`,
        `StoreUnavailableError` after `timeouts.command`, `ConflictError` for a cursor from before the conversation was
        deleted or lost, and `ConversationNotFoundError` once it is deleted.

        Example:
            await conversation.append(Message(role="user", content="Hello"), Message(role="assistant", content="Hi"))
            page = await conversation.history(limit=1)
            older = page.items
            page = await conversation.history(page.next_cursor)
            assert [item.text for item in (*older, *page.items)] == ["Hello", "Hi"]
            assert page.next_cursor is None
        """
        self._lifetime.check()
        if self._histories is None:
            raise no_archive()
        life = self._copy.seen.life
        page = await self._histories.page(self._id, life, cursor=cursor, limit=limit, newest_first=newest_first)
        return replace(page, items=await self._pictures.bring_back(page.items))

    async def with_pictures(self, items: Iterable[Item] | None = None) -> tuple[Item, ...]:
        """Return the history, or these items of it, with the pictures that the archive has of them.

        In `items` a large picture is a reference, as long as there is an archive (see `conversation_actors.pictures`).
        One that cannot be had stays a reference, and is counted in `failures`. `history` has the pictures already.

        Example:
            for item in await conversation.with_pictures():
                print(item.text)
        """
        self._lifetime.check()
        return await self._pictures.bring_back(self.items if items is None else tuple(items))

    async def picture(self, address: str) -> bytes | None:
        """Return the picture behind the ``image`` of a part of a message; None if the archive has it no more.

        The address is a reference (``archive:…``), or the data themselves (``data:…``). Raises
        `ArchiveUnavailableError` after `archive.timeout`.

        Example:
            assert await conversation.picture("data:image/gif;base64,R0lGODlh") == b"GIF89a"
        """
        self._lifetime.check()
        return await self._pictures.data(address)

    def takes_picture(self, address: str) -> bool:
        """Tell whether a picture of this address (``data:…``) is large enough for the archive, if there is one.

        Example:
            assert not conversation.takes_picture("data:image/gif;base64,R0lGODlh")
        """
        return self._pictures.takes(address)

    async def keep_picture(self, address: str) -> str:
        """Give the archive a picture, if `takes_picture`; return the reference to it, or the same address.

        For messages that are recorded: `append` does this by itself. Raises nothing for the archive's sake: what the
        archive does not take in time stays as it is.

        Example:
            image = await conversation.keep_picture("data:image/png;base64,iVBORw0KGgo=")
            conversation.record(Message(role="user", content=[{"type": "image_content", "image": image}]))
        """
        self._lifetime.check()
        return (await self._pictures.keep([address])).get(address, address)

    async def find_pictures(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return the data (``data:…``) of the pictures that references name, by reference; of those that exist.

        Raises `ArchiveUnavailableError` after `archive.timeout`.

        Example:
            reference = "archive:image/gif;sha256," + 64 * "0"
            assert await conversation.find_pictures([reference]) == {}
        """
        self._lifetime.check()
        return await self._pictures.find(addresses)

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
        """Note that a participant is here, on `device_id` (None: one unnamed device). None leaves a value as it is.

        `reconnect_count` rises when the participant comes back after leaving with every device.

        Example:
            alice = await conversation.join("alice", name="Alice", device_id="phone")
            assert alice.connected
            assert conversation.participants["alice"].name == "Alice"
        """
        command = arguments.join(identity, device_id, self._limits, name=name, metadata=metadata, language=language)
        return await self._link.participant(command, request_id, lease)

    async def leave(
        self, identity: str, *, device_id: str | None = None, request_id: str | None = None, lease: Lease | None = None
    ) -> Participant | None:
        """Note that a participant left with `device_id`, or with every device (None); None if nobody knows them.

        Example:
            await conversation.join("alice", device_id="phone")
            await conversation.leave("alice", device_id="phone")
            assert not conversation.participants["alice"].connected
        """
        done = await self._link.ask(arguments.leave(identity, device_id), request_id, lease)
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
        """Change what is known of a participant; None leaves a value as it is. `ConflictError` if nobody knows them.

        Example:
            await conversation.join("alice")
            alice = await conversation.update_participant("alice", language="de", context={"tier": "gold"})
            assert alice.context["tier"] == "gold"
        """
        command = arguments.update_participant(
            identity, self._limits, name=name, metadata=metadata, language=language, context=context
        )
        return await self._link.participant(command, request_id, lease)

    async def set_attributes(
        self,
        changes: Mapping[str, Any],
        *,
        expected_seq: int | None = None,
        request_id: str | None = None,
        lease: Lease | None = None,
    ) -> Receipt:
        """Merge shared attributes; a value of None removes its key.

        Give the `seq` of the copy or snapshot on which you decided as `expected_seq`: `ConflictError` if any attribute
        has changed since.

        Example:
            await conversation.set_attributes({"order": "1042", "mood": "calm"})
            await conversation.set_attributes({"mood": None}, expected_seq=conversation.seq)
            assert conversation.attributes == {"order": "1042"}
        """
        command = arguments.set_attributes(changes, expected_seq, self._limits)
        return await self._link.write(command, request_id, lease, position=expected_seq)

    async def set_outcome(
        self, outcome: Outcome, *, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """Note what came of the call that goes on, or has just ended: a mapping of JSON values, or a pydantic model.

        The last one of a call is in its session record. It is kept with the shared attributes, and bounded with them.

        Example:
            await conversation.set_outcome({"resolved": True, "order": "1042"})
        """
        value, at = outcome_value(outcome), time.time()
        command, content = (
            arguments.set_attributes({OUTCOME: outcome_note(value, when)}, None, self._limits) for when in (at, 0.0)
        )
        digest = None if request_id is None else digest_of(content)
        return await self._link.write(command, request_id, lease, digest=digest)

    async def acquire_lease(
        self,
        name: str,
        *,
        holder: str,
        duration: timedelta,
        replacing: str | None = None,
        request_id: str | None = None,
    ) -> Lease:
        """Take a lease, or renew your own, which keeps its token unless somebody else had the lease in between.

        `LeaseHeldError` while somebody else holds it. If that holder is known to be gone, name it as `replacing`: it is
        deposed before its time, and what it still sends in the name of the lease is refused.

        Example:
            lease = await conversation.acquire_lease("agent", holder="job-1", duration=timedelta(seconds=30))
            await conversation.append(Message(role="assistant", content="Hello"), lease=lease)
        """
        done = await self._link.ask(arguments.acquire_lease(name, holder, duration, replacing), request_id)
        assert isinstance(done.result, Lease)
        return done.result

    async def release_lease(self, lease: Lease, *, request_id: str | None = None) -> None:
        """Give a lease back; do nothing if it is no longer held.

        Example:
            lease = await conversation.acquire_lease("agent", holder="job-1", duration=timedelta(seconds=30))
            await conversation.release_lease(lease)
            assert "agent" not in conversation.leases
        """
        await self._link.ask(arguments.release_lease(lease), request_id)

    async def set_summary(
        self, text: str, *, through_seq: int, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """Keep a summary of the history up to `through_seq`. `ConflictError` if there is a later one.

        Example:
            await conversation.append(Message(role="user", content="Where is my order?"))
            await conversation.set_summary("The caller waits for an order.", through_seq=conversation.seq)
            assert conversation.summary is not None
        """
        command = arguments.set_summary(text, through_seq, self._limits)
        return await self._link.write(command, request_id, lease, position=command.through_seq)

    async def clear_history(self, *, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Drop all items (system messages too) and the summary. Participants and attributes stay.

        Example:
            await conversation.append(Message(role="user", content="Hello"))
            await conversation.clear_history()
            assert conversation.items == ()
        """
        return await self._link.write(ClearHistory(), request_id, lease)

    async def set_retention(
        self, duration: timedelta | None, *, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """Keep the conversation for this long after its last use, 1 second to 366 days; None: for `Settings.ttl`.

        Commands, reads that ask the owner, watches and open handles are use. When the time is over Redis forgets the
        conversation, and handles raise `ConversationNotFoundError`. Listings, which hold its id under the identities of
        its participants, forget it when they are read, or after half as long again.

        Example:
            await conversation.set_retention(timedelta(minutes=10))
            assert conversation.retention == timedelta(minutes=10)
        """
        return await self._link.write(arguments.set_retention(duration), request_id, lease)

    async def close_conversation(
        self, reason: str = "", *, request_id: str | None = None, lease: Lease | None = None
    ) -> Receipt:
        """End the conversation: writes raise `ConversationClosedError` until it is reopened.

        Example:
            await conversation.close_conversation("the caller hung up")
            assert conversation.closing is not None
            assert conversation.closing.reason == "the caller hung up"
        """
        return await self._link.write(arguments.close_conversation(reason, self._limits), request_id, lease)

    async def reopen_conversation(self, *, request_id: str | None = None, lease: Lease | None = None) -> Receipt:
        """Take writes again.

        Example:
            await conversation.close_conversation()
            await conversation.reopen_conversation()
            await conversation.append(Message(role="user", content="One more thing"))
        """
        return await self._link.write(ReopenConversation(), request_id, lease)

    def watch(self, *, after_seq: int | None = None) -> AsyncGenerator[Entry, None]:
        """Yield durable entries in order, without a gap, from the one after `after_seq` (None: from now on) for ever.

        Resume with the `seq` of the last entry you saw. Raises `PositionLostError` if the owner does not keep entries
        that far back, or Redis has lost what this watch brought: take a snapshot, and watch from its `seq`. Raises
        `InvalidInputError` when the handle is closed. An owner that is watched is not passivated; a watch starts none.

        Example:
            await conversation.append(Message(role="user", content="Hello"))
            async for entry in conversation.watch(after_seq=0):
                if isinstance(entry.event, ItemsAppended):
                    print(entry.seq, [stored.to_item().text for stored in entry.event.items])
                    break
        """
        return self._link.watch(self.seq if after_seq is None else arguments.check_position(after_seq, "after_seq"))

    async def catch_up(self, view: View) -> None:
        """Return when the local copy shows a view of the owner. Raises `ClusterUnavailableError` when time is up."""
        await self._link.catch_up(view)

    def show(self, stored: StoredState) -> None:
        """Have the local copy show what was stored, unless it is as far on; wake the owner in the background."""
        self._link.show(stored)

    async def passivate(self) -> None:
        """Have the owner save a snapshot and exit; the next call brings the conversation back.

        Example:
            await conversation.passivate()
            await conversation.append(Message(role="user", content="Back again"))  # by the next owner
        """
        self._lifetime.check()
        await self._owner.passivate()

    async def info(self) -> ActivationInfo:
        """Return facts about the owner that runs now; start one if none does.

        Example:
            facts = await conversation.info()
            print(facts.pid, facts.epoch, facts.total_items, facts.talked_for)
        """
        self._lifetime.check()
        return await self._owner.info()

    async def aclose(self) -> None:
        """Send what is in the outbox, for at most `timeouts.close`, and let go. Idempotent.

        Whoever still waits then gets `OutcomeUnknownError`, or `ClusterUnavailableError` if nothing was sent; the log
        counts what was not acknowledged. Watches end, and the owner may be passivated. The client's next `open` of this
        id makes a new handle.

        Example:
            await conversation.aclose()
            conversation = await client.open("support-42")
        """
        self._lifetime.end()
        await self._link.aclose()
