"""The window: what leaves, in which order, and that it costs the same at any length."""

import sys
import tracemalloc
from collections.abc import Callable
from statistics import median
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.items import StoredItem
from conversation_actors.state import AppendItems, ConversationState, Entry, Limits, Window, decide
from tests.support.strategies import call, message, output

ROOMY = Limits()
NO_ROOM = Limits(items=0, bytes=0)


def ids(items: Any) -> list[str]:
    """Ids, in order."""
    return [item.id for item in items]


def push(window: Window, *items: StoredItem, limits: Limits) -> list[str]:
    """Put items as a conversation does; returns the ids of those that left."""
    leaving = window.evictions(items, limits)
    window.put(items)
    window.remove(leaving, orphans_kept=limits.items)
    return ids(leaving)


def test_oldest_leaves_first() -> None:
    """One in, one out, at the bound of items."""
    window = Window(message(f"m{n}") for n in range(4))
    assert push(window, message("m4"), limits=Limits(items=4)) == ["m0"]
    assert ids(window) == ["m1", "m2", "m3", "m4"]


def test_bound_of_items_is_reached_exactly() -> None:
    """Nothing leaves while the window is only full."""
    window = Window(message(f"m{n}") for n in range(3))
    assert push(window, message("m3"), limits=Limits(items=4)) == []
    assert len(window) == 4


def test_bound_of_bytes_is_reached_exactly() -> None:
    """Bytes are of the stored form; as many as fit stay."""
    size = message("m0").size
    window = Window(message(f"m{n}") for n in range(3))
    assert push(window, message("m3"), limits=Limits(bytes=4 * size)) == []
    assert push(window, message("m4"), limits=Limits(bytes=5 * size - 1)) == ["m0"]
    assert window.size == 4 * size


def test_bytes_are_not_characters() -> None:
    """Two bytes of UTF-8 count twice."""
    assert message("m", "ü" * 10).size == message("m", "u" * 10).size + 10


def test_large_item_pushes_out_many() -> None:
    """Until both bounds hold."""
    window = Window(message(f"m{n}") for n in range(10))
    room = window.size
    assert push(window, message("big", "x" * 3 * message("m0").size), limits=Limits(bytes=room)) == [
        "m0",
        "m1",
        "m2",
        "m3",
    ]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_stay(role: str) -> None:
    """However old they are."""
    window = Window([message("rules", role=role), message("m0"), message("m1")])
    assert push(window, message("m2"), limits=Limits(items=3)) == ["m0"]
    assert ids(window) == ["rules", "m1", "m2"]


def test_call_and_output_leave_together() -> None:
    """Also where that is one item more than is needed."""
    window = Window([call("c", "1"), output("o", "1"), message("m0"), message("m1")])
    assert push(window, message("m2"), limits=Limits(items=4)) == ["c", "o"]


def test_pair_leaves_when_its_younger_half_is_the_oldest() -> None:
    """An output that came late keeps its call in the window."""
    window = Window([call("c", "1"), message("m0"), output("o", "1"), message("m1")])
    assert push(window, message("m2"), limits=Limits(items=4)) == ["m0"]
    assert push(window, message("m3"), limits=Limits(items=4)) == ["c", "o"]


def test_all_outputs_of_a_call_leave_with_it() -> None:
    """A call may have more than one."""
    window = Window([call("c", "1"), output("o1", "1"), output("o2", "1"), message("m")])
    assert push(window, message("n"), limits=Limits(items=4)) == ["c", "o1", "o2"]


def test_output_that_arrives_while_its_call_would_leave_saves_it() -> None:
    """The pair is the youngest of all then."""
    window = Window([call("c", "1"), message("m0"), message("m1"), message("m2")])
    assert push(window, output("o", "1"), limits=Limits(items=4)) == ["m0"]
    assert ids(window) == ["c", "m1", "m2", "o"]


def test_output_of_a_call_that_left_does_not_stay() -> None:
    """Nobody could read it without its call."""
    window = Window([call("c", "1"), message("m0")])
    limits = Limits(items=2)
    assert push(window, message("m1"), limits=limits) == ["c"]
    assert window.orphans == ("1",)
    assert push(window, output("o", "1"), limits=limits) == ["o"]
    assert ids(window) == ["m0", "m1"]


def test_no_output_of_a_call_that_left_stays() -> None:
    """Neither a second one, nor the first one repeated or corrected."""
    window = Window()
    window.put([call("c", "1")])
    window.remove([call("c", "1")], orphans_kept=5)
    for late in (output("o", "1"), output("o", "1", "corrected"), output("o2", "1")):
        assert push(window, late, limits=ROOMY) == [late.id]
    assert len(window) == 0


def test_output_without_any_known_call_stays() -> None:
    """Its call may still come, from a context that was copied in another order."""
    window = Window()
    assert push(window, output("o", "1"), limits=ROOMY) == []
    assert push(window, call("c", "1"), limits=ROOMY) == []
    assert ids(window.evictions((), NO_ROOM)) == ["o", "c"]


def test_call_that_comes_again_keeps_its_output() -> None:
    """An agent may repeat a call under its old call id."""
    window = Window(orphans=["1"])
    assert push(window, call("c", "1"), output("o", "1"), limits=ROOMY) == []
    assert ids(window) == ["c", "o"]


def test_finished_call_is_no_orphan() -> None:
    """Only calls that left before any output are remembered."""
    window = Window([call("c", "1"), output("o", "1")])
    window.remove(tuple(window), orphans_kept=5)
    assert window.orphans == ()


def test_orphans_are_bounded() -> None:
    """The latest are kept; one that left once more counts as late."""
    window = Window()
    for number in ("1", "2", "3", "1", "4"):
        window.put([call("c", number)])
        window.remove([call("c", number)], orphans_kept=3)
    assert window.orphans == ("3", "1", "4")


def test_replacement_keeps_its_place() -> None:
    """Correcting a transcript does not make it young."""
    window = Window([message("m0"), message("m1"), message("m2")])
    assert push(window, message("m0", "corrected"), limits=Limits(items=3)) == []
    assert ids(window) == ["m0", "m1", "m2"]
    assert push(window, message("m3"), limits=Limits(items=3)) == ["m0"]


def test_replacement_is_counted_by_its_difference() -> None:
    """A longer text may push others out, a shorter one makes room."""
    window = Window([message("m0"), message("m1")])
    room = window.size
    assert push(window, message("m1", "much longer than before"), limits=Limits(bytes=room)) == ["m0"]
    assert push(window, message("m1", ""), message("m2"), limits=Limits(bytes=room)) == []
    assert window.size == sum(item.size for item in window)


def test_replaced_item_leaves_with_its_latest_content() -> None:
    """Who archives what leaves must not get an old text."""
    window = Window([message("m0"), message("m1")])
    latest = message("m0", "latest")
    assert window.evictions([latest, message("m2")], Limits(items=2)) == (latest,)


def test_arriving_item_may_leave_at_once() -> None:
    """More at once than the window holds: the last ones stay."""
    window = Window()
    assert push(window, *(message(f"m{n}") for n in range(5)), limits=Limits(items=3)) == ["m0", "m1"]


plain = st.builds(
    message, st.integers(0, 9).map(str), st.text("x", max_size=30), role=st.sampled_from(["user", "system"])
)


@given(
    st.lists(plain, max_size=6, unique_by=lambda item: item.id),
    st.lists(plain, max_size=6),
    st.integers(0, 8),
    st.integers(0, 800),
)
def test_many_messages_at_once(
    here: list[StoredItem], arriving: list[StoredItem], most_items: int, most_bytes: int
) -> None:
    """The oldest leave until the rest fits, instructions excepted; the plainest way to say it, for any number."""
    window = Window(here)
    arriving = [item for item in arriving if (old := window.get(item.id)) is None or old.role == item.role]
    arriving = [item for item in arriving if item.role == {one.id: one for one in arriving}[item.id].role]
    kept = {item.id: item for item in (*here, *arriving)}
    expected: list[str] = []
    for item in list(kept.values()):
        if len(kept) <= most_items and sum(one.size for one in kept.values()) <= most_bytes:
            break
        if not item.pinned:
            expected.append(item.id)
            del kept[item.id]
    assert push(window, *arriving, limits=Limits(items=most_items, bytes=most_bytes)) == expected
    assert ids(window) == list(kept)


def test_asking_what_would_leave_changes_nothing() -> None:
    """A refused append leaves no trace."""
    window = Window([call("c", "1"), message("m0")], orphans=["9"])
    window.evictions([message("m0", "new"), output("o", "9"), output("p", "1")], Limits(items=1))
    assert ids(window) == ["c", "m0"]
    assert window.get("m0") == message("m0")
    assert window.orphans == ("9",)


def test_removing_what_is_not_there_is_passed_over() -> None:
    """An eviction may name an item that a clearing took first."""
    window = Window([message("m0")])
    window.remove([message("gone"), message("rules", role="system")], orphans_kept=5)
    assert (len(window), window.size, window.pinned_count) == (1, message("m0").size, 0)


def test_rebuilt_window_evicts_in_the_same_order() -> None:
    """Items and orphans are all that has to be stored of a window."""
    window = Window()
    for item in (call("c1", "1"), call("c2", "2"), message("m0"), output("o2", "2"), message("rules", role="system")):
        push(window, item, limits=Limits(items=4))
    push(window, output("o1", "1"), limits=Limits(items=5))
    rebuilt = Window(tuple(window), window.orphans)
    assert rebuilt.evictions((), NO_ROOM) == window.evictions((), NO_ROOM)
    assert rebuilt.orphans == window.orphans
    assert (rebuilt.size, rebuilt.pinned_count, rebuilt.pinned_size) == (
        window.size,
        window.pinned_count,
        window.pinned_size,
    )


def test_pinned_are_counted_ahead() -> None:
    """New ones, larger ones, and the same one twice."""
    rules = message("rules", role="system")
    window = Window([rules, message("m0")])
    longer, other = message("rules", "longer than before", role="system"), message("more", role="system")
    assert window.pinned_after([message("m1")]) == (1, rules.size)
    assert window.pinned_after([longer]) == (1, longer.size)
    assert window.pinned_after([other, other]) == (2, rules.size + other.size)


def full_conversation(length: int) -> ConversationState:
    """Return a conversation whose window is full, so that each append pushes something out."""
    state = ConversationState(Limits(items=length, bytes=1 << 30))
    items = tuple(message(f"m{n}") for n in range(length))
    for first in range(0, length, 1000):
        events = decide(state, AppendItems(items[first : first + 1000]), now=0.0)
        state.apply(Entry(state.seq + 1, 1, 0.0, events[0]))
    return state


def append(state: ConversationState, item: StoredItem) -> None:
    """Append one item; one leaves."""
    events = decide(state, AppendItems((item,)), now=0.0)
    assert len(events) == 2
    for event in events:
        state.apply(Entry(state.seq + 1, 1, 0.0, event))


def bytecodes(act: Callable[[], None]) -> int:
    """Python instructions that `act` executes: a loop over the history cannot hide from this count."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(previous)
    return count


def allocated(act: Callable[[], None]) -> int:
    """Bytes that `act` needs at its peak: a copy of the history, made in C, shows here."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    act()
    return tracemalloc.get_traced_memory()[1] - before


def cost(length: int) -> tuple[float, float]:
    """Instructions and bytes of an append at this length. The median: now and then a table grows."""
    state = full_conversation(length)
    arriving = iter([message(f"n{n}") for n in range(30)])
    instructions = [bytecodes(lambda: append(state, next(arriving))) for _ in range(9)]
    tracemalloc.start()
    try:
        memory = [allocated(lambda: append(state, next(arriving))) for _ in range(21)]
    finally:
        tracemalloc.stop()
    return median(instructions), median(memory)


def test_append_costs_the_same_at_any_length_of_the_history() -> None:
    """At 10 items and at 10,000: counted, not timed, so that a busy machine does not matter."""
    short_instructions, short_memory = cost(10)
    long_instructions, long_memory = cost(10_000)
    assert abs(long_instructions - short_instructions) <= 20
    assert abs(long_memory - short_memory) <= 2000
