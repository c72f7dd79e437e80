"""What one reader knows of silence: only what it has seen, by its own clock, while it was answered."""

from hypothesis import given
from hypothesis import strategies as some

from conversation_actors.client.silence import GAP_SHARE, LOOK_BACK, Read, Silence
from conversation_actors.store import Beat

VALID_FOR = 3.0
GAP = VALID_FOR * GAP_SHARE


def beat(number: int, incarnation: str = "i") -> Beat:
    """A beat."""
    return Beat(incarnation, number)


def at(moment: float, *, taking: float = 0.0) -> Read:
    """A question sent at that moment, and answered so much later."""
    return Read(moment, moment + taking)


def see(silence: Silence, read: Read, number: int = 1, incarnation: str = "i") -> float:
    """See the record "c" at a beat."""
    return silence.see(read, "c", beat(number, incarnation), valid_for=VALID_FOR)


def look(silence: Silence, *moments: float, last: int = 1) -> None:
    """Look at those moments, with that last of all beats."""
    for moment in moments:
        silence.mark(at(moment), beat(last))


def test_the_first_look_tells_nothing() -> None:
    """However old the record is."""
    silence = Silence()
    assert silence.until(100.0) == 0
    assert see(silence, at(100.0)) == 0.0


def test_silence_counts_from_an_answer_to_a_question() -> None:
    """From when the first answer was received to when the last question was sent: the time on the way is nobody's."""
    silence = Silence()
    assert see(silence, Read(0.0, 0.4)) == 0.0
    assert see(silence, Read(0.5, 0.9)) == 0.5 - 0.4
    assert see(silence, Read(1.0, 1.3)) == 1.0 - 0.4


def test_a_beat_ends_a_silence() -> None:
    """The count begins with the answer that tells of it."""
    silence = Silence()
    for moment in (0.0, 0.5, 1.0):
        see(silence, at(moment))
    assert see(silence, at(1.5), 2) == 0.0
    assert see(silence, at(2.0), 2) == 0.5


def test_the_same_number_of_another_incarnation_is_another_beat() -> None:
    """After the numbers were lost."""
    silence = Silence()
    see(silence, at(0.0))
    assert see(silence, at(0.5), incarnation="j") == 0.0


def test_a_gap_begins_anew() -> None:
    """Longer than a part of what a beat is valid for, from question to answer; one of just that length does not."""
    silence = Silence()
    see(silence, at(0.0))
    assert see(silence, at(GAP)) == GAP
    assert see(silence, at(2 * GAP + 0.01)) == 0.0
    assert see(silence, at(2 * GAP + 0.11)) > 0.0


def test_a_slow_answer_is_a_gap() -> None:
    """The store hung while it was asked; it is not known when the answer was true."""
    silence = Silence()
    see(silence, at(0.0))
    assert see(silence, at(0.1, taking=GAP)) == 0.0


def test_gaps_are_counted() -> None:
    """Each once, whatever number of records it tells of, and only where something was counted before it."""
    silence = Silence()
    look(silence, 0.0)
    for moment in (1.2, 2.4, 3.6):
        look(silence, moment)
        for name in ("a", "b"):
            assert silence.see(at(moment), name, beat(1), valid_for=VALID_FOR) == 0.0
    assert silence.gaps == 3
    look(silence, 4.4)
    for name in ("a", "b"):
        assert silence.see(at(4.4), name, beat(1), valid_for=VALID_FOR) > 0.0
    assert silence.gaps == 3


def test_what_was_not_counted_has_no_gap() -> None:
    """The first look, a beat, and one after a question without an answer; for one record alone as for all."""
    silence = Silence()
    see(silence, at(0.0))
    see(silence, at(5.0), 2)
    silence.interrupt()
    see(silence, at(9.0), 2)
    assert silence.gaps == 0
    see(silence, at(12.0), 2)
    assert silence.gaps == 1


def test_a_failure_begins_anew() -> None:
    """Of marks and of records."""
    silence = Silence()
    look(silence, 0.0, 0.5)
    see(silence, at(0.5))
    silence.interrupt()
    assert see(silence, at(0.6)) == 0.0
    assert silence.until(2.0) == 0


def test_only_what_was_silent_for_a_while_is_read() -> None:
    """The bound is what the last look has told that is a second old."""
    silence = Silence()
    look(silence, 0.0, last=10)
    assert silence.until(LOOK_BACK - 0.01) == 0
    assert silence.until(LOOK_BACK) == 10
    look(silence, 0.5, last=20)
    look(silence, 1.0, last=30)
    assert silence.until(1.5) == 20
    assert silence.until(9.0) == 30


def test_marks_tell_of_a_record_before_it_is_read() -> None:
    """A look that knew of its beat proves that it stood there, though nobody read it then."""
    silence = Silence()
    look(silence, 0.0, last=5)
    look(silence, 0.5, last=7)
    look(silence, 1.0, 1.5, last=9)
    assert silence.see(at(1.5), "a", beat(5), valid_for=VALID_FOR) == 1.5
    assert silence.see(at(1.5), "b", beat(6), valid_for=VALID_FOR) == 1.0
    assert silence.see(at(1.5), "c", beat(9), valid_for=VALID_FOR) == 0.5


def test_a_gap_between_marks_counts_by_the_record() -> None:
    """What is long for one that beats often is short for one that does not."""
    silence = Silence()
    look(silence, 0.0, 2.0)
    assert silence.see(at(2.0), "quick", beat(1), valid_for=3.0) == 0.0
    assert silence.see(at(2.0), "slow", beat(1), valid_for=9.0) == 2.0


def test_marks_of_another_incarnation_tell_nothing() -> None:
    """Nor does any count from before the one that went back."""
    silence = Silence()
    look(silence, 0.0, 0.5)
    silence.mark(at(1.0), beat(1, "j"))
    assert see(silence, at(1.0), incarnation="j") == 0.0
    look(silence, 1.5, last=9)
    look(silence, 2.0, last=8)
    assert see(silence, at(2.0), 8) == 0.0
    assert silence.until(9.0) == 8


def test_answers_may_overtake_each_other() -> None:
    """Two questions at the same time: the lower count of the one that was answered last is no way back."""
    silence = Silence()
    look(silence, 0.0, last=5)
    silence.mark(Read(0.5, 0.6), beat(9))
    silence.mark(Read(0.4, 0.7), beat(8))
    assert see(silence, at(0.8), 5) == 0.8


def test_nothing_is_kept_for_ever() -> None:
    """Neither marks nor records that nobody looks at any more."""
    silence = Silence()
    for number in range(5000):
        moment = number / 100
        silence.mark(at(moment), beat(number))
        silence.see(at(moment), f"c{number}", beat(number), valid_for=VALID_FOR)
    assert len(silence._marks) < 3 * LOOK_BACK * 100
    assert len(silence._sightings) <= GAP * 100 + 1


STEPS = some.lists(
    some.tuples(some.floats(0.0, 2.0), some.floats(0.0, 0.5), some.booleans(), some.booleans()), max_size=60
)


@given(STEPS)
def test_never_longer_than_it_is(steps: list[tuple[float, float, bool, bool]]) -> None:
    """Whatever is asked when: no record seems silent for longer than since its last beat, or over a long gap."""
    silence, now, number, beaten, gap_end, sent = Silence(), 0.0, 1, 0.0, 0.0, 0.0
    for pause, taking, beats, marks in steps:
        now += pause
        if beats:
            number, beaten = number + 1, now
        read = at(now, taking=taking)
        if read.received - sent > GAP:
            gap_end = read.received
        sent, now = read.sent, read.received
        if marks:
            silence.mark(read, beat(number))
        assert see(silence, read, number) <= max(0.0, read.sent - max(beaten, gap_end)) + 1e-9
