"""The copy of a conversation that a handle keeps."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.client.copy import LocalCopy
from conversation_actors.codec import encode_entry, encode_snapshot
from conversation_actors.items import Message
from conversation_actors.protocol import Echo, Executed, Request, Seen, View
from conversation_actors.state import (
    AppendItems,
    AttributesChanged,
    Command,
    ConversationState,
    Entry,
    Event,
    ItemsAppended,
    ItemsEvicted,
    Participant,
    ParticipantJoined,
)
from conversation_actors.store import MemoryStore
from tests.support.fakes import Activations, brief, execute, turns
from tests.support.strategies import appends, message, other_commands, participant_commands


def appended(identity: str, text: str = "hello") -> Event:
    """An item came."""
    return ItemsAppended((message(identity, text),))


def entry(seq: int, event: Event | None = None, *, epoch: int = 1) -> bytes:
    """An encoded entry."""
    return encode_entry(Entry(seq, epoch, float(seq), event or appended(f"u{seq}")))


def view(seq: int = 0, *, owner: str = "o1", life: str = "o1") -> View:
    """What an owner shows at `seq`: one item for each position."""
    state = ConversationState()
    for number in range(1, seq + 1):
        state.apply(Entry(number, 1, float(number), appended(f"u{number}")))
    return View(seq, 1, encode_snapshot(state, requests=False), life, owner)


def take(copy: LocalCopy, *entries: bytes | Echo, owner: str = "o1", sent: Sequence[Command] = ()) -> None:
    """Have a copy take what an owner tells from where the copy is now."""
    copy.apply(entries, owner=owner, asked=copy.position, sent=sent)


def ids(copy: LocalCopy) -> list[str]:
    """Ids of the items."""
    return [item.id for item in copy.items]


def test_begins_with_the_view() -> None:
    """A copy shows what the owner showed."""
    copy = LocalCopy(view(2, owner="o3"))
    assert (copy.seq, copy.seen, ids(copy)) == (2, Seen("o1", "o3"), ["u1", "u2"])


def test_takes_entries() -> None:
    """Entries change everything that the copy shows."""
    copy = LocalCopy(view())
    alice = Participant(identity="al", connected=True)
    take(copy, entry(1), entry(2, ParticipantJoined(alice, "web")), entry(3, AttributesChanged({"a": 1}), epoch=2))
    assert (copy.seq, ids(copy)) == (3, ["u1"])
    assert (dict(copy.participants), dict(copy.attributes)) == ({"al": alice}, {"a": 1})
    take(copy, entry(4, appended("u1", "changed")), entry(5), entry(6, ItemsEvicted((message("u1", "changed"),))))
    assert ids(copy) == ["u5"]


def test_known_entries_are_passed_over() -> None:
    """Entries that come twice, by a reply and by a poll, count once."""
    copy = LocalCopy(view(1))
    take(copy, entry(1), entry(2))
    take(copy, entry(1), entry(2), entry(3))
    assert (copy.seq, ids(copy)) == (3, ["u1", "u2", "u3"])


def test_a_gap_ends_it() -> None:
    """Entries behind a gap are not taken: the copy never shows a state that there was not."""
    copy = LocalCopy(view(1))
    take(copy, entry(3), entry(2))
    assert copy.seq == 1
    take(copy, entry(2), entry(4))
    assert copy.seq == 2


def test_another_owner_that_was_asked_from_elsewhere_is_not_believed() -> None:
    """What another owner told of an older position may not follow what the copy has taken since."""
    copy = LocalCopy(view(2))
    asked = copy.position
    take(copy, entry(3))
    copy.apply([entry(3, appended("new")), entry(4)], owner="o2", asked=asked)
    assert (copy.position, ids(copy)) == ((3, Seen("o1", "o1")), ["u1", "u2", "u3"])


def test_the_next_owner_goes_on_from_here() -> None:
    """An owner that was asked from where the copy is leads on, and is the one that the copy follows then."""
    copy = LocalCopy(view(2))
    take(copy, entry(3), owner="o2")
    assert copy.position == (3, Seen("o1", "o2"))


def test_no_entries_prove_nothing() -> None:
    """An owner that brings none may have refused the position: the copy goes on naming the one it had."""
    copy = LocalCopy(view(2))
    take(copy, owner="o2")
    assert copy.position == (2, Seen("o1", "o1"))


def test_a_late_answer_of_the_old_owner_is_not_believed() -> None:
    """Once the copy follows another owner, what the old one told is taken no more."""
    copy = LocalCopy(view(2))
    asked = copy.position
    take(copy, entry(3), owner="o2")
    copy.apply([entry(3), entry(4, appended("lost"))], owner="o1", asked=asked)
    assert (copy.seq, ids(copy)) == (3, ["u1", "u2", "u3"])


def test_items_are_decoded_once() -> None:
    """An item that did not change is the same object after a change elsewhere; a replaced one is not."""
    copy = LocalCopy(view(2))
    first, second = copy.items
    assert copy.items[0] is first
    take(copy, entry(3, appended("u2", "changed")))
    assert copy.items[0] is first
    changed = copy.items[1]
    assert changed is not second
    assert isinstance(changed, Message)
    assert changed.text == "changed"


def test_replace() -> None:
    """Where entries no longer lead there, the owner's view takes the copy's place, forward and, later, back."""
    copy = LocalCopy(view(2))
    copy.replace(view(9, owner="o2"))
    assert (copy.seq, len(copy.items)) == (9, 9)
    copy.replace(view(4, owner="o3"))
    assert (copy.seq, len(copy.items)) == (4, 4)


def test_a_view_that_was_overtaken() -> None:
    """A view that entries of the same activation have gone beyond takes nothing back."""
    copy = LocalCopy(view(2))
    take(copy, entry(3), entry(4))
    copy.replace(view(3))
    assert (copy.seq, ids(copy)) == (4, ["u1", "u2", "u3", "u4"])


async def test_reach() -> None:
    """Whoever waits for a position goes on when the copy is there, by entries or by a view."""
    copy = LocalCopy(view())
    await copy.reach(0)
    near, far, further = (asyncio.create_task(copy.reach(seq)) for seq in (1, 3, 8))
    await turns()
    assert not near.done()
    take(copy, entry(1), entry(2))
    await near
    await turns()
    assert not far.done()
    take(copy, entry(3))
    await far
    copy.replace(view(8, owner="o2"))
    await further


@pytest.mark.parametrize("known", range(6))
@pytest.mark.parametrize("are_echoes", [False, True])
def test_entries_that_came_twice(known: int, *, are_echoes: bool) -> None:
    """Where a reply and a poll bring the same entries, the copy takes from each what it has not got."""
    copy = LocalCopy(view(2))
    take(copy, *[entry(number) for number in range(3, 3 + known)])
    sent = [AppendItems((message(f"u{number}"),)) for number in range(1, 8)]
    echoes = [Echo(number, 1, float(number), number - 1) for number in range(1, 8)]
    take(copy, *(echoes if are_echoes else [entry(number) for number in range(1, 8)]), sent=sent)
    assert (copy.seq, ids(copy)) == (7, [f"u{number}" for number in range(1, 8)])


async def _told(calls: Sequence[tuple[bool, int, Sequence[Command]]], limits: dict[str, int]) -> set[type]:
    """Have an owner execute calls, mine and those of others; my copy is to stand where the owner stands."""
    kinds: set[type] = set()
    async with Activations() as start:
        owner = await start(MemoryStore(), brief(**limits))
        copy = LocalCopy(await owner.read(fresh=False))
        for is_mine, name, commands in calls:
            # Some names come again: repeats, and names used for another command.
            requests = [Request(f"{name}.{number}", command) for number, command in enumerate(commands)]
            executed = await execute(owner, *requests, watcher="me", after_seq=copy.seq)
            if is_mine:
                told = Executed.unpack(executed.pack())
                take(copy, *told.entries, owner=told.owner, sent=commands)
                kinds.update(map(type, executed.entries))
                view = await owner.read(fresh=False)
                assert (copy.seq, copy.seen) == (view.seq, view.seen)
                assert encode_snapshot(copy.state, requests=False) == view.snapshot
    return kinds


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 9),
            st.lists(st.one_of(appends, appends, participant_commands, other_commands), max_size=5),
        ),
        max_size=8,
    )
)
def test_echoes_lead_where_the_owner_is(calls: Sequence[tuple[bool, int, Sequence[Command]]]) -> None:
    """Told without the bytes it has, between what others did, a copy is at each answer equal to the owner's state."""
    asyncio.run(_told(calls, {"items": 6}))


def test_echoes_are_what_the_sender_is_told() -> None:
    """An item that is new, and those that leave for it, don't come back as bytes; what others sent does."""
    new: list[Command] = [AppendItems((message(f"u{number}"),)) for number in range(9)]
    assert asyncio.run(_told([(True, 0, new)], {"items": 6})) == {Echo}
    assert asyncio.run(_told([(False, 0, new), (True, 1, new[:1])], {"items": 6})) == {bytes, Echo}
