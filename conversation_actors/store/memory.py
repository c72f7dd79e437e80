"""MemoryStore: the same contract in one process's memory. For tests, and for trying things out."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from conversation_actors.errors import ConversationNotFoundError, CorruptStateError, InvalidInputError
from conversation_actors.settings import DEFAULT_TENANT
from conversation_actors.store.backlog import Bounds, Record, is_deletion
from conversation_actors.store.base import MAX_ANCESTORS, Claim, Found, Head, Outcome, Recovered, Stored
from conversation_actors.store.expectations import MemoryExpectations
from conversation_actors.store.heartbeats import MemoryHeartbeats
from conversation_actors.store.memory_backlog import MemoryBacklog
from conversation_actors.store.memory_conversation import MemoryConversation
from conversation_actors.store.memory_listing import MemoryListing


class MemoryStore:
    """A `Store` that keeps nothing: it ends with its process. Not for use from several threads.

    `clock` gives seconds since the epoch; expiry follows it, so a test can move time. With `archive`, all that is
    written waits in the backlog too, within those bounds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        tenant: str = DEFAULT_TENANT,
        archive: Bounds | None = None,
    ) -> None:
        """Start empty."""
        self._clock = clock
        self._tenant = tenant
        self._conversations: dict[str, MemoryConversation] = {}
        self._active = MemoryListing()
        self._by_participant: dict[str, MemoryListing] = {}
        self._heartbeats: dict[str, MemoryHeartbeats] = {}
        self._expectations: dict[str, MemoryExpectations] = {}
        self._backlog = MemoryBacklog(clock, archive)

    def archive_within(self, bounds: Bounds) -> None:
        """Let all that is written from now on wait in the backlog too."""
        self._backlog.bounds = bounds

    async def check(self) -> None:
        """Do nothing: memory can do all there is to do."""

    async def activate(self, conversation_id: str, *, owner: str, create: bool, ttl: timedelta) -> Recovered:
        """See `Store.activate`."""
        if not conversation_id:
            message = "conversation_id: must not be empty"
            raise InvalidInputError(message, field="conversation_id")
        stored = self._find(conversation_id)
        if stored is None or stored.deleted:
            if not create:
                message = f"conversation {conversation_id!r} does not exist"
                raise ConversationNotFoundError(message)
            stored = self._create(conversation_id, stored, life=owner)
            stored.keep(ttl, ttl, now=self._clock())
        elif stored.owner != owner:
            stored.lineage = (*stored.lineage, stored.left)[-MAX_ANCESTORS:]
        if stored.owner != owner:
            stored.epoch, stored.owner, stored.active_at = stored.epoch + 1, owner, self._clock()
        return stored.recovered(conversation_id, tenant=self._tenant, now=self._clock())

    async def append(
        self,
        claim: Claim,
        *,
        expected_seq: int,
        entries: Sequence[bytes],
        ttl: timedelta,
        kept: timedelta | None = None,
        participants: Sequence[str] | None = None,
    ) -> Outcome:
        """See `Store.append`."""
        stored = self._find(claim.conversation_id)
        if stored is None:
            return Outcome.GAP
        if not stored.is_own(claim):
            return Outcome.GAP if claim.follows(stored.left) else Outcome.FENCED
        if stored.seq < expected_seq:
            return Outcome.GAP
        if stored.seq != expected_seq:
            _check_repeat(claim, stored, expected_seq, len(entries))
            stored.keep(ttl, kept or ttl, now=self._clock())
            return Outcome.DUPLICATE if entries else Outcome.OK
        if entries:
            stored.journal.extend(entries)
            stored.seq, stored.active_at = stored.seq + len(entries), self._clock()
            self._push(claim, entries)
        if participants is not None:
            stored.participants = tuple(participants)
        stored.keep(ttl, kept or ttl, now=self._clock())
        return Outcome.OK

    async def save_snapshot(
        self,
        claim: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta | None = None,
        keep: int = 0,
        restore: bool = True,
    ) -> Outcome:
        """See `Store.save_snapshot`."""
        stored = self._find(claim.conversation_id)
        is_own = stored is not None and stored.is_own(claim)
        if stored is not None and not is_own and not claim.follows(stored.left):
            return Outcome.FENCED
        if stored is not None and is_own and seq <= stored.seq:
            if stored.base > seq or (stored.base == seq and stored.snapshot is not None):
                stored.keep(ttl, kept or ttl, now=self._clock())
                return Outcome.DUPLICATE
            first = max(stored.first, seq - keep)
            del stored.journal[: first - stored.first]
            stored.first = first
        elif not restore:
            return Outcome.GAP
        else:
            stored = MemoryConversation(
                claim.epoch, claim.owner, seq, born=0, life=claim.life, first=seq, active_at=self._clock()
            )
            stored.lineage, stored.start = claim.lineage, claim.start
            self._conversations[claim.conversation_id] = stored
        stored.base, stored.snapshot, stored.participants = seq, snapshot, tuple(participants)
        stored.keep(ttl, kept or ttl, now=self._clock())
        return Outcome.OK

    async def keep(self, conversation_id: str, *, ttl: timedelta) -> timedelta | None:  # noqa: ARG002  # all say how long
        """See `Store.keep`."""
        stored = self._find(conversation_id)
        if stored is None or stored.deleted:
            return None
        stored.refresh(stored.kept, now=self._clock())
        return stored.kept

    async def head(self, conversation_id: str) -> Head | None:
        """See `Store.head`."""
        stored = self._find(conversation_id)
        if stored is None or stored.deleted:
            return None
        return Head(stored.epoch, stored.owner, stored.seq)

    async def read(self, conversation_id: str) -> Stored:
        """See `Store.read`."""
        stored = self._find(conversation_id)
        if stored is None or stored.deleted:
            message = f"no conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)
        return replace(
            stored.recovered(conversation_id, tenant=self._tenant, now=self._clock()).stored, active_at=stored.active_at
        )

    async def index(self, conversation_id: str, *, participants: Sequence[str], ttl: timedelta) -> None:
        """See `Store.index`."""
        now = self._clock()
        self._enter(conversation_id, participants, active_at=now, expires_at=now + ttl.total_seconds())

    async def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """See `Store.list`."""
        index = self._active if participant is None else self._of_participant(participant)
        for conversation_id, active_at in sorted(index.active_at.items(), key=lambda entry: (-entry[1], entry[0])):
            stored = self._find(conversation_id)
            if stored is None or stored.deleted:
                index.drop(conversation_id)
                continue
            yield Found(conversation_id, active_at, stored.participants, stored.seq, self._tenant)

    async def reindex(self) -> int:
        """See `Store.reindex`."""
        living = list(self._living())
        for conversation_id, stored in living:
            self._enter(conversation_id, stored.participants, active_at=stored.active_at, expires_at=stored.expires_at)
        return len(living)

    def heartbeats(self, lease: str, *, ttl: timedelta) -> MemoryHeartbeats:  # noqa: ARG002  # kept as long as the rest
        """See `Store.heartbeats`."""
        return self._heartbeats.setdefault(lease, MemoryHeartbeats(self._clock))

    def expectations(self, lease: str) -> MemoryExpectations:
        """See `Store.expectations`."""
        return self._expectations.setdefault(lease, MemoryExpectations(self._clock))

    async def remembers_deletion(self, conversation_id: str) -> bool:
        """See `Store.remembers_deletion`."""
        stored, waiting = self._find(conversation_id), await self._backlog.peek(conversation_id)
        return (stored is not None and stored.deleted) or any(map(is_deletion, waiting.stored))

    def backlog(self) -> MemoryBacklog:
        """See `Store.backlog`."""
        return self._backlog

    async def requeue(self, claim: Claim, *, entries: Sequence[bytes]) -> Outcome:
        """See `Store.requeue`."""
        if self._backlog.bounds is None or not entries:
            return Outcome.OK
        stored = self._find(claim.conversation_id)
        if stored is not None and not stored.is_own(claim) and not claim.follows(stored.left):
            return Outcome.FENCED
        self._push(claim, entries, anew=True)
        return Outcome.OK

    async def revive(
        self,
        left_by: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta,
    ) -> bool:
        """See `Store.revive`."""
        conversation_id = left_by.conversation_id
        waits_last = self._backlog.last(conversation_id)
        if self._find(conversation_id) is not None or (waits_last is not None and waits_last.data is None):
            return False
        revived = MemoryConversation(
            left_by.epoch, left_by.owner, seq,
            born=0, life=left_by.life, base=seq, first=seq, snapshot=snapshot, start=left_by.start,
        )  # fmt: skip
        revived.participants, revived.lineage = tuple(participants), left_by.lineage[-MAX_ANCESTORS:]
        revived.active_at = self._clock()
        self._conversations[conversation_id] = revived
        revived.keep(ttl, kept, now=self._clock())
        return True

    async def delete(self, conversation_id: str, *, ttl: timedelta) -> bool:
        """See `Store.delete`."""
        stored = self._find(conversation_id)
        if stored is None:
            return self._delete_archived(conversation_id, ttl)
        stored.refresh(ttl, now=self._clock())
        if stored.deleted:
            return False
        seq = stored.seq + 1
        tombstone = MemoryConversation(
            stored.epoch + 1, "", seq, born=stored.born, life=stored.life, base=seq, first=seq, deleted=True
        )
        self._conversations[conversation_id] = tombstone
        tombstone.refresh(ttl, now=self._clock())
        deletion = Record(stored.life, stored.start, tombstone.epoch, "", None, self._clock())
        self._backlog.push_deletion(conversation_id, deletion)
        return True

    def _delete_archived(self, conversation_id: str, ttl: timedelta) -> bool:
        """Delete what only the backlog and the archive may have."""
        if self._backlog.bounds is None:
            return False
        waits_last = self._backlog.last(conversation_id)
        self._conversations[conversation_id] = tombstone = MemoryConversation(0, "", 0, born=0, deleted=True)
        tombstone.refresh(ttl, now=self._clock())
        if waits_last is None or waits_last.data is None:
            return False
        self._backlog.push_deletion(conversation_id, replace(waits_last, data=None, deleted_at=self._clock()))
        return True

    async def aclose(self) -> None:
        """Do nothing; what is stored stays until the store itself is dropped."""

    def _find(self, conversation_id: str) -> MemoryConversation | None:
        stored = self._conversations.get(conversation_id)
        if stored is not None and stored.expires_at <= self._clock():
            del self._conversations[conversation_id]
            return None
        return stored

    def _create(self, conversation_id: str, tombstone: MemoryConversation | None, *, life: str) -> MemoryConversation:
        """Begin a life; after a tombstone, epoch and seq go on where they were."""
        epoch, seq = (tombstone.epoch, tombstone.seq) if tombstone else (0, 0)
        stored = MemoryConversation(epoch, "", seq, born=epoch + 1, life=life, base=seq, first=seq, start=seq)
        stored.lineage = () if tombstone is None else (tombstone.left,)
        self._conversations[conversation_id] = stored
        return stored

    def _push(self, claim: Claim, entries: Sequence[bytes], *, anew: bool = False) -> None:
        header = Record(claim.life, claim.start, claim.epoch, claim.owner, None).header
        self._backlog.push(claim.conversation_id, header, entries, pusher=claim.owner, anew=anew)

    def _living(self) -> Iterator[tuple[str, MemoryConversation]]:
        for conversation_id in list(self._conversations):
            stored = self._find(conversation_id)
            if stored is not None and not stored.deleted:
                yield conversation_id, stored

    def _enter(self, conversation_id: str, participants: Sequence[str], *, active_at: float, expires_at: float) -> None:
        now = self._clock()
        for index in [self._active, *map(self._of_participant, participants)]:
            index.enter(conversation_id, active_at=active_at, expires_at=expires_at, now=now)

    def _of_participant(self, identity: str) -> MemoryListing:
        """Return that one's listing; it goes as a whole when all of its entries are over, as its Redis twin does."""
        index = self._by_participant.setdefault(identity, MemoryListing())
        if all(until <= self._clock() for until in index.expiries.values()):
            index = self._by_participant[identity] = MemoryListing()
        return index


def _check_repeat(claim: Claim, stored: MemoryConversation, expected_seq: int, count: int) -> None:
    if count and stored.seq != expected_seq + count:
        message = f"{claim.conversation_id}: seq is {stored.seq} where its owner expects {expected_seq}"
        raise CorruptStateError(message, key=claim.conversation_id, position=0)
