"""Recent entries: what is kept for watchers, and what is told about the rest."""

import pytest

from conversation_actors.activation.journal import RecentEntries
from conversation_actors.errors import PositionLostError

ALL = 1 << 30


def entries(*, seq: int = 0, most: int = 10, size: int = ALL) -> RecentEntries:
    """Nothing yet."""
    return RecentEntries(seq=seq, entries=most, size=size)


def test_from_any_position_that_is_kept() -> None:
    """From each position come exactly the entries after it; from the last one, none."""
    recent = entries(seq=7)
    recent.extend([b"8", b"9", b"10"])
    assert recent.seq == 10
    assert [recent.after(seq, size=ALL) for seq in (7, 8, 9, 10)] == [(b"8", b"9", b"10"), (b"9", b"10"), (b"10",), ()]


def test_oldest_entries_go_beyond_the_number() -> None:
    """The oldest go first; positions before the rest are lost, and the error tells from where on it goes."""
    recent = entries(most=3)
    recent.extend(b"%d" % seq for seq in range(1, 6))
    assert (recent.first_available, recent.after(2, size=ALL)) == (2, (b"3", b"4", b"5"))
    with pytest.raises(PositionLostError) as lost:
        recent.after(1, size=ALL)
    assert lost.value.first_available == 2


def test_oldest_entries_go_beyond_the_bytes_but_the_latest_stays() -> None:
    """Bytes are bounded too, but the latest entry stays, however large."""
    recent = entries(size=10)
    recent.extend([b"1" * 6, b"2" * 6])
    assert recent.first_available == 1
    recent.extend([b"3" * 99])
    assert (recent.first_available, recent.after(2, size=ALL)) == (2, (b"3" * 99,))
    recent.extend([b"4"])
    assert (recent.first_available, recent.after(3, size=ALL)) == (3, (b"4",))


def test_a_position_ahead_is_lost() -> None:
    """A position that was never reached is no position: its watcher knows a history that is not this one."""
    with pytest.raises(PositionLostError) as lost:
        entries(seq=7).after(8, size=ALL)
    assert lost.value.first_available == 7


def test_an_answer_is_bounded() -> None:
    """An answer takes what fits, from the front, and at least one entry."""
    recent = entries()
    recent.extend([b"1" * 5, b"2" * 5, b"3" * 5])
    assert recent.after(0, size=10) == (b"1" * 5, b"2" * 5)
    assert recent.after(0, size=9) == (b"1" * 5,)
    assert recent.after(0, size=1) == (b"1" * 5,)


@pytest.mark.parametrize("seq", range(21))
def test_the_same_from_either_end(seq: int) -> None:
    """Whichever end is nearer, the entries behind a position come in order, and the first that fit."""
    recent = entries(most=20)
    recent.extend(b"%02d" % number for number in range(1, 21))
    expected = tuple(b"%02d" % number for number in range(seq + 1, 21))
    assert recent.after(seq, size=ALL) == expected
    assert recent.after(seq, size=10) == expected[:5]
