"""What the waiting entries add to the archived ones: copies nothing, later claims what took another entry's place."""

from conversation_actors.archive.newest import ArchivedLife
from conversation_actors.archive.reviving import _following, _placed
from conversation_actors.codec import encode_entry
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store.backlog import Record
from tests.support.strategies import message

LIFE = ArchivedLife(1, "a", 0, 4, 1, "one")
ARCHIVED = dict.fromkeys(range(1, 5), 1)
"""Four entries of the first claim."""


def waits(seq: int, epoch: int = 1) -> Record:
    """An entry that waits."""
    data = encode_entry(Entry(seq, epoch, float(seq), ItemsAppended((message(f"u{seq}-{epoch}"),))))
    return Record("a", 0, epoch, f"owner {epoch}", data)


def following(*records: Record) -> tuple[int, list[tuple[int, int]]]:
    """Up to which position the archive counts, and the position and epoch of each entry after it."""
    through, late = _following(LIFE, ARCHIVED, _placed(records))
    return through, [(one.entry.seq, one.epoch) for one in late]


def test_newer_entries_follow() -> None:
    """Copies of archived ones, and of each other, are passed over."""
    assert following(waits(3), waits(4), waits(5), waits(5), waits(6)) == (4, [(5, 1), (6, 1)])


def test_a_later_claims_entry_takes_the_place_of_what_was_lost() -> None:
    """And of all that came after that, wherever it is."""
    assert following(waits(5), waits(3, 2), waits(4, 2)) == (2, [(3, 2), (4, 2)])
    assert following(waits(5), waits(6), waits(6, 2), waits(7, 2)) == (4, [(5, 1), (6, 2), (7, 2)])


def test_an_earlier_claims_copy_takes_nobodys_place() -> None:
    """Requeued entries of an owner that was deposed are old."""
    assert following(waits(5, 2), waits(5, 1), waits(6, 2)) == (4, [(5, 2), (6, 2)])


def test_what_cannot_be_read_is_passed_over() -> None:
    """The archive keeps its bytes; nobody can say what they would change."""
    assert following(Record("a", 0, 1, "one", b"nonsense"), waits(6)) == (4, [(6, 1)])
