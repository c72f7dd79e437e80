"""What is read of a backlog: the entries of one life, and whether they are all."""

import pytest

from conversation_actors.archive.waiting import WaitingEntries, entries_waiting
from conversation_actors.codec import encode_entry
from conversation_actors.errors import IncompatibleVersionError
from conversation_actors.state import ConversationReopened, Entry
from conversation_actors.store.backlog import Record


def record(seq: int, *, life: str = "l1", start: int = 0) -> bytes:
    """Make a record of an entry."""
    data = encode_entry(Entry(seq, 1, float(seq), ConversationReopened()))
    return Record(life, start, 1, "owner", data).encode()


def deletion(life: str = "l1") -> bytes:
    """Make the record of a deletion."""
    return Record(life, 0, 1, "owner", None).encode()


def read(*records: bytes) -> WaitingEntries:
    """Read the entries of the life ``l1``."""
    return entries_waiting(records, "l1")


def test_records_of_other_lives_are_not_this_lifes() -> None:
    """Nor is the deletion of one."""
    waiting = read(record(1, life="l0"), deletion("l0"), record(5, start=4), record(9, life="l2"))
    assert [entry.seq for entry in waiting.entries] == [5]
    assert not waiting.is_deleted
    assert waiting.is_whole


def test_a_deletion_that_waits_leaves_nothing_of_what_came_before() -> None:
    """The database may still have the life."""
    waiting = read(record(1), deletion())
    assert waiting.is_deleted
    assert not waiting.entries


@pytest.mark.parametrize(
    ("records", "whole"),
    [
        ([], False),
        ([record(1), record(2)], True),
        ([record(2), record(3)], False),
        ([record(1), record(3)], False),
        ([record(1), record(2), record(2), record(3)], True),
    ],
)
def test_a_life_is_whole_if_every_entry_since_its_start_waits(records: list[bytes], *, whole: bool) -> None:
    """Entries that come twice are no gap."""
    assert read(*records).is_whole is whole


@pytest.mark.parametrize(
    "damaged", [b"not a header\nx", b"[1,2]\n", b"{}\n", b"", Record("l1", 0, 1, "o", b"not an entry").encode()]
)
def test_a_record_that_cannot_be_read_hides_no_other(damaged: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of it."""
    waiting = read(record(1), damaged, record(3))
    assert [entry.seq for entry in waiting.entries] == [1, 3]
    assert not waiting.is_whole
    assert "cannot be read" in caplog.text


def test_an_entry_of_a_newer_version_is_told_as_such() -> None:
    """It is no damage."""
    with pytest.raises(IncompatibleVersionError):
        read(Record("l1", 0, 1, "o", b'{"v":99}').encode())
