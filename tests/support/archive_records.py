"""Records of a backlog, as an owner would write them, for tests of the archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from conversation_actors.codec import decode_entry, encode_entry
from conversation_actors.items import Message, StoredItem
from conversation_actors.state import (
    ConversationState,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
)
from conversation_actors.store.backlog import Record, decode_record
from conversation_actors.store.base import Stored

BEGAN = 1_700_000_000.0


def item(name: str, words: str = "") -> StoredItem:
    """Return a message; its words tell who it is unless others are given."""
    return Message(id=name, role="user", content=words or f"words of {name}", created_at=BEGAN).to_stored()


@dataclass(frozen=True)
class Author:
    """A claim that writes entries. `start` is the position at which its life began."""

    life: str = "life-1"
    epoch: int = 1
    owner: str = "owner-1"
    start: int = 0

    def record(self, seq: int, event: Event, *, at: float | None = None) -> bytes:
        """Return the record of any entry."""
        entry = Entry(seq, self.epoch, BEGAN + seq if at is None else at, event, f"request-{self.owner}-{seq}")
        return Record(self.life, self.start, self.epoch, self.owner, encode_entry(entry)).encode()

    def says(self, seq: int, *names: str, words: str = "") -> bytes:
        """Return an entry that brings items; by default one that is called after the position."""
        return self.record(seq, ItemsAppended(tuple(item(name, words) for name in names or (f"item-{seq}",))))

    def evicts(self, seq: int, *names: str) -> bytes:
        """Return an entry in which items leave the window."""
        return self.record(seq, ItemsEvicted(tuple(item(name) for name in names)))

    def removes(self, seq: int, *names: str) -> bytes:
        """Return an entry that removes items."""
        return self.record(seq, ItemsRemoved(names))

    def clears(self, seq: int) -> bytes:
        """Return an entry that clears the history."""
        return self.record(seq, HistoryCleared())

    def deletes(self) -> bytes:
        """Return the record of a deletion."""
        return Record(self.life, self.start, self.epoch, self.owner, None).encode()

    def talk(self, first: int, last: int) -> Sequence[bytes]:
        """Return an entry with one item for each position."""
        return [self.says(seq) for seq in range(first, last + 1)]


def state_of(records: Sequence[bytes], *, window: int) -> ConversationState:
    """Return the state after records, with only the last items of it in the window."""
    state = ConversationState()
    for record in records:
        state.apply(decode_entry(decode_record(record).data or b""))
    leaving = tuple(state.window)[:-window]
    state.window.remove(leaving, orphans_kept=0)
    return state


def stored(author: Author, state: ConversationState) -> Stored:
    """Return what a store tells of a state besides it."""
    return Stored(
        conversation_id="",
        life=author.life,
        epoch=author.epoch,
        owner=author.owner,
        seq=state.seq,
        snapshot_seq=state.seq,
        snapshot=None,
        journal=(),
        left=timedelta(days=1),
        active_at=state.changed_at,
    )
