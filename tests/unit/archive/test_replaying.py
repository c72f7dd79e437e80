"""States out of archived entries: what is missing is left out and told, what is damaged has its name."""

import pytest

from conversation_actors.archive.replaying import UNREADABLE, ArchivedEntry, replay, succeeded
from conversation_actors.codec import encode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import ConversationState, Entry, ItemsAppended
from conversation_actors.store.base import MAX_ANCESTORS, Ancestor
from tests.support.strategies import message


def entry(seq: int) -> ArchivedEntry:
    """An entry that brings one message, named after its position."""
    data = encode_entry(Entry(seq, 1, float(seq), ItemsAppended((message(f"u{seq}"),))))
    return ArchivedEntry(f"entry {seq}", seq, "items_appended", data)


def ids(state: ConversationState) -> list[str]:
    """Ids of the window's items."""
    return [item.id for item in state.window]


def test_entries_are_applied_in_order() -> None:
    """The state is at the last one, and has counted everything."""
    state = ConversationState()
    replay(state, [entry(1), entry(2)])
    assert (state.seq, ids(state), state.total_items, state.has_counted_all) == (2, ["u1", "u2"], 2, True)


def test_what_is_missing_is_left_out_and_told() -> None:
    """A gap, and an entry that nobody could read: positions go on, the totals do not cover everything."""
    state = ConversationState()
    unreadable = ArchivedEntry("entry 4", 4, UNREADABLE, b"\x00")
    replay(state, [entry(1), entry(3), unreadable, entry(5)])
    assert (state.seq, ids(state), state.has_counted_all) == (5, ["u1", "u3", "u5"], False)


@pytest.mark.parametrize("data", [b"nonsense", entry(7).data], ids=["no entry", "an entry of another position"])
def test_a_damaged_entry_has_its_name(data: bytes) -> None:
    """The error names it."""
    with pytest.raises(CorruptStateError, match=r"^entry 1: ") as raised:
        replay(ConversationState(), [ArchivedEntry("entry 1", 1, "items_appended", data)])
    assert raised.value.key == "entry 1"


def test_a_lineage_ends_where_the_history_went_on() -> None:
    """Claims whose entries the store had lost reach no further; other lives' are as they were; the latest are kept."""
    lost, other = Ancestor("a", 1, "one", 9), Ancestor("b", 4, "else", 99)
    last = Ancestor("a", 2, "two", 6)
    assert succeeded((other, lost), last) == (other, lost._replace(seq=6), last)
    assert len(succeeded((other,) * MAX_ANCESTORS, last)) == MAX_ANCESTORS
