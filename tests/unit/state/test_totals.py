"""What a conversation counts for good: its items, and the time in which somebody was there."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from conversation_actors.cli.show import Facts, document, tell
from conversation_actors.client import Snapshot
from conversation_actors.codec import decode_snapshot, encode_snapshot
from conversation_actors.codec.totals import TOTALS
from conversation_actors.errors import CorruptStateError, RefusedError
from conversation_actors.protocol import Request
from conversation_actors.state import (
    AppendItems,
    ClearHistory,
    Command,
    ConversationState,
    Entry,
    JoinParticipant,
    LeaveParticipant,
    Limits,
    SetAttributes,
    decide,
)
from conversation_actors.state.facts import LONGEST_STRETCH
from tests.support.fakes import CONVERSATION, Activations, FakeCluster, FaultyStore, append, brief, done
from tests.support.strategies import appends, message, other_commands, participant_commands

START = 1000.0


class Life:
    """A conversation whose commands come at given seconds."""

    def __init__(self, **limits: int) -> None:
        """Empty."""
        self.state = ConversationState(Limits(**limits))

    def ask(self, at: float, command: Command) -> None:
        """Decide, and apply."""
        for event in decide(self.state, command, now=START + at):
            self.state.apply(Entry(self.state.seq + 1, 1, START + at, event))

    def say(self, at: float, *ids: str) -> None:
        """Append messages."""
        self.ask(at, AppendItems(tuple(message(one) for one in ids)))

    def come(self, at: float, who: str = "alice", device: str = "web") -> None:
        """Somebody joins."""
        self.ask(at, JoinParticipant(identity=who, device_id=device))

    def go(self, at: float, who: str = "alice", device: str | None = None) -> None:
        """Somebody leaves."""
        self.ask(at, LeaveParticipant(who, device))


# Items


def test_items_are_counted_that_have_left_the_window() -> None:
    """By their own number or with all others; one that was replaced is one."""
    life = Life(items=3)
    life.say(0, "a", "b")
    life.say(1, "b", "c", "c")
    assert life.state.total_items == 3
    for number in range(10):
        life.say(2, f"m{number}")
    life.ask(3, ClearHistory())
    assert (life.state.total_items, len(life.state.window)) == (13, 0)
    life.say(4, "z")
    assert life.state.total_items == 14


def test_an_append_of_more_than_the_window_holds_counts_whole() -> None:
    """Also what leaves in the same step."""
    life = Life(items=3)
    life.say(0, *(f"m{number}" for number in range(8)))
    assert (life.state.total_items, len(life.state.window)) == (8, 3)


# Time


def test_time_counts_while_somebody_is_there() -> None:
    """From the first who comes to the last who goes, by the owner's clock; two at one time count once."""
    life = Life()
    life.say(0, "a")
    life.come(10)
    life.come(20, "bob")
    life.come(25, "bob", "phone")
    life.go(30)
    life.go(35, "bob", "web")
    life.say(40, "b")
    assert life.state.talked_for == 30.0
    life.go(50, "bob")
    life.say(90, "c")
    assert life.state.talked_for == 40.0
    life.come(100)
    life.go(103)
    assert life.state.talked_for == 43.0


def test_time_counts_up_to_now() -> None:
    """For whoever asks while somebody is there."""
    life = Life()
    life.come(0)
    life.say(5, "a")
    assert life.state.talked_until(START + 12) == 12.0
    assert life.state.talked_until(START + 4) == 5.0
    life.go(20)
    assert life.state.talked_until(START + 500) == 20.0


def test_a_stretch_in_which_nothing_happened_counts_for_so_long_only() -> None:
    """The last agent is gone, and nobody saw who left: the next call finds out, days later."""
    life = Life()
    life.come(0)
    life.say(10, "a")
    life.go(86_400)
    assert life.state.talked_for == 10 + LONGEST_STRETCH
    assert life.state.talked_until(START + 90_000) == 10 + LONGEST_STRETCH


commands = st.lists(
    st.tuples(appends | participant_commands | other_commands, st.sampled_from([0.0, 1.0, 30.0, 5000.0])), max_size=25
)


@given(commands, st.integers(0, 25))
def test_totals_are_the_same_however_a_conversation_is_brought_back(
    chosen: list[tuple[Command, float]], place: int
) -> None:
    """From its entries, from a snapshot at any place, or as a copy; the model counts ids that are not there."""
    state = ConversationState(Limits(items=5, participants=3))
    seen, clock = 0, START
    twins: list[ConversationState] = []
    for number, (command, step) in enumerate(chosen):
        if number == place:
            twins = [state.copy(), decode_snapshot(encode_snapshot(state), state.limits)]
        clock += step
        try:
            events = decide(state, command, now=clock)
        except RefusedError:
            continue
        if isinstance(command, AppendItems) and events:
            seen += len({item.id for item in command.items if item.id not in state.window})
        for event in events:
            entry = Entry(state.seq + 1, 1, clock, event)
            for one in (state, *twins):
                one.apply(entry)
    assert state.total_items == seen
    assert state.talked_for <= clock - START
    for twin in twins:
        assert (twin.total_items, twin.talked_for, twin.has_counted_all) == (seen, state.talked_for, True)


# What is stored


def talked() -> ConversationState:
    """A conversation of three items and ten seconds, one of which is in its window."""
    life = Life(items=1)
    life.come(0)
    life.say(4, "a", "b", "c")
    life.go(10)
    return life.state


def changed(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The snapshot with another header."""
    first, *rest = data.split(b"\n")
    told = json.loads(first)
    change(told)
    return b"\n".join([json.dumps(told).encode(), *rest])


def uncounted(told: dict[str, Any]) -> None:
    """Take out what an older version does not write."""
    for name in TOTALS:
        del told[name]


def test_a_snapshot_that_does_not_count_is_told_from_one_that_does() -> None:
    """An older version wrote it; that stays known."""
    state = decode_snapshot(changed(encode_snapshot(talked()), uncounted))
    assert (state.total_items, state.talked_for, state.has_counted_all) == (0, 0.0, False)
    state.apply(Entry(state.seq + 1, 2, START, decide(state, AppendItems((message("d"),)), now=START)[0]))
    again = decode_snapshot(encode_snapshot(state))
    assert (again.total_items, again.has_counted_all) == (1, False)


def test_what_an_older_version_wrote_in_between_is_not_counted() -> None:
    """It keeps the totals as it found them, and writes the rest anew."""
    state = decode_snapshot(changed(encode_snapshot(talked()), lambda told: told.update(seq=99)))
    assert (state.total_items, state.talked_for, state.has_counted_all) == (3, 10.0, False)
    assert not decode_snapshot(encode_snapshot(state)).has_counted_all


@pytest.mark.parametrize("field", [{"total_items": "3"}, {"talked_for": None}, {"counted_all": 1}, {"counted_at": 1.5}])
def test_totals_that_cannot_be_read_are_damage(field: dict[str, Any]) -> None:
    """As any other field."""
    with pytest.raises(CorruptStateError):
        decode_snapshot(changed(encode_snapshot(talked()), lambda told: told.update(field)))


# What the owner tells


async def test_the_owner_tells_and_so_does_the_next(start: Activations) -> None:
    """After a crash, which replays the journal, and after a passivation, which loads a snapshot."""
    store = FaultyStore()
    owner = await start(store, brief())
    await done(owner, Request("join", JoinParticipant(identity="alice", device_id="web")))
    await done(owner, append("a"))
    await done(owner, append("b"))
    assert owner.info().talked_for >= timedelta(0)
    await done(owner, Request("leave", LeaveParticipant("alice")))
    told = owner.info()
    assert (told.total_items, told.has_counted_all) == (2, True)
    await owner.aclose()
    heir = await start(store, brief())
    assert (heir.info().total_items, heir.info().talked_for) == (2, told.talked_for)
    await heir.passivate()
    third = (await start(store, brief())).info()
    assert (third.total_items, third.talked_for, third.has_counted_all) == (2, told.talked_for, True)


async def test_a_handle_is_told() -> None:
    """By `info()`."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        handle = await cluster.handle()
        for number in range(3):
            await handle.append(message(f"m{number}").to_item())
        await handle.set_attributes({"a": 1})
        info = await handle.info()
        assert (info.total_items, info.talked_for, info.has_counted_all) == (3, timedelta(0), True)


async def test_of_what_was_not_counted_there_is_at_least_what_is_there(start: Activations) -> None:
    """The window of a snapshot that an older version wrote."""
    store = FaultyStore()
    owner = await start(store, brief())
    await done(owner, append("a"))
    await owner.passivate()
    kept = store.inner._conversations[CONVERSATION]
    assert kept.snapshot is not None
    kept.snapshot = changed(kept.snapshot, uncounted)
    told = (await start(store, brief())).info()
    assert (told.total_items, told.talked_for, told.has_counted_all) == (1, timedelta(0), False)


def facts_of(**told: Any) -> Facts:
    """Facts about some conversation."""
    return Facts(CONVERSATION, "default", "life", 1, 1, START, START, 0, 1, 0, 0, **told)


@pytest.mark.parametrize(("is_whole", "said"), [(True, "7 items, 0:01:30"), (False, "at least 7 items, 0:01:30")])
def test_show_tells_them(*, is_whole: bool, said: str) -> None:
    """People and programs; seconds in JSON."""
    facts = facts_of(total_items=7, talked_for=timedelta(seconds=90), has_counted_all=is_whole)
    shown = Snapshot(CONVERSATION, 1, 1, (), {}, {}, {}, None, None, None)
    told = json.loads(json.dumps(document(shown, facts)))["activation"]
    assert (told["total_items"], told["talked_for"], told["has_counted_all"]) == (7, 90.0, is_whole)
    printed = StringIO()
    tell(Console(width=200, file=printed), shown, facts)
    assert said in printed.getvalue()


def test_attributes_alone_are_counted_as_nothing() -> None:
    """And known to be all."""
    life = Life()
    life.ask(0, SetAttributes({"a": 1}))
    state = decode_snapshot(encode_snapshot(life.state))
    assert (state.total_items, state.talked_for, state.has_counted_all) == (0, 0.0, True)
