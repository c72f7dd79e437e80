"""The copy of a conversation that a handle keeps."""

import asyncio
import gc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.activation import View
from conversation_actors.client import copy as copy_module
from conversation_actors.client.copy import LocalCopy
from conversation_actors.codec import decode_entry, encode_entry, encode_snapshot
from conversation_actors.errors import RefusedError
from conversation_actors.items import Message, StoredItem
from conversation_actors.state import (
    AppendItems,
    AttributesChanged,
    ConversationState,
    Entry,
    Event,
    ItemsAppended,
    ItemsEvicted,
    Limits,
    Participant,
    ParticipantJoined,
    decide,
)
from tests.unit.fakes import turns
from tests.unit.strategies import appends, message


def appended(identity: str, text: str = "hello") -> Event:
    """An item came."""
    return ItemsAppended((message(identity, text),))


def entry(seq: int, event: Event | None = None, *, epoch: int = 1) -> bytes:
    """An encoded entry."""
    return encode_entry(Entry(seq, epoch, float(seq), event or appended(f"u{seq}")))


def view(seq: int = 0, *, epoch: int = 1) -> View:
    """What the owner shows at `seq`: one item for each position."""
    state = ConversationState()
    for number in range(1, seq + 1):
        state.apply(Entry(number, epoch, float(number), appended(f"u{number}")))
    return View(seq, epoch, encode_snapshot(state, requests=False))


def ids(copy: LocalCopy) -> list[str]:
    """Ids of the items."""
    return [item.id for item in copy.items]


def test_begins_with_the_view() -> None:
    """A copy shows what the owner showed."""
    copy = LocalCopy(view(2, epoch=3))
    assert (copy.seq, copy.epoch, ids(copy)) == (2, 3, ["u1", "u2"])


def test_takes_entries() -> None:
    """Entries change everything that the copy shows."""
    copy = LocalCopy(view())
    alice = Participant(identity="al", connected=True)
    copy.apply([entry(1), entry(2, ParticipantJoined(alice, "web")), entry(3, AttributesChanged({"a": 1}), epoch=2)])
    assert (copy.seq, copy.epoch, ids(copy)) == (3, 2, ["u1"])
    assert (dict(copy.participants), dict(copy.attributes)) == ({"al": alice}, {"a": 1})
    copy.apply([entry(4, appended("u1", "changed")), entry(5), entry(6, ItemsEvicted((message("u1", "changed"),)))])
    assert ids(copy) == ["u5"]


def test_known_entries_are_passed_over() -> None:
    """Entries that come twice, by a reply and by a poll, count once."""
    copy = LocalCopy(view(1))
    copy.apply([entry(1), entry(2)])
    copy.apply([entry(1), entry(2), entry(3)])
    assert (copy.seq, ids(copy)) == (3, ["u1", "u2", "u3"])


def test_a_gap_ends_it() -> None:
    """Entries behind a gap are not taken: the copy never shows a state that there was not."""
    copy = LocalCopy(view(1))
    copy.apply([entry(3), entry(2)])
    assert copy.seq == 1
    copy.apply([entry(2), entry(4)])
    assert copy.seq == 2


def test_items_are_decoded_once() -> None:
    """An item that did not change is the same object after a change elsewhere; a replaced one is not."""
    copy = LocalCopy(view(2))
    first, second = copy.items
    assert copy.items[0] is first
    copy.apply([entry(3, appended("u2", "changed"))])
    assert copy.items[0] is first
    changed = copy.items[1]
    assert changed is not second
    assert isinstance(changed, Message)
    assert changed.text == "changed"


def test_replace() -> None:
    """Where entries no longer lead there, the owner's view takes the copy's place, forward and, later, back."""
    copy = LocalCopy(view(2))
    copy.replace(view(9, epoch=2))
    assert (copy.seq, copy.epoch, len(copy.items)) == (9, 2, 9)
    copy.replace(view(4, epoch=3))
    assert (copy.seq, copy.epoch, len(copy.items)) == (4, 3, 4)


def test_a_view_that_was_overtaken() -> None:
    """A view that entries of the same activation have gone beyond takes nothing back."""
    copy = LocalCopy(view(2))
    copy.apply([entry(3), entry(4)])
    copy.replace(view(3))
    assert (copy.seq, ids(copy)) == (4, ["u1", "u2", "u3", "u4"])


async def test_reach() -> None:
    """Whoever waits for a position goes on when the copy is there, by entries or by a view."""
    copy = LocalCopy(view())
    await copy.reach(0)
    near, far, further = (asyncio.create_task(copy.reach(seq)) for seq in (1, 3, 8))
    await turns()
    assert not near.done()
    copy.apply([entry(1), entry(2)])
    await near
    await turns()
    assert not far.done()
    copy.apply([entry(3)])
    await far
    copy.replace(view(8, epoch=2))
    await further


@pytest.mark.parametrize("known", range(6))
def test_entries_that_came_twice(known: int) -> None:
    """Where a reply and a poll bring the same entries, the copy takes from each what it has not got."""
    copy = LocalCopy(view(2))
    copy.apply([entry(number) for number in range(3, 3 + known)])
    copy.apply([entry(number) for number in range(1, 8)])
    assert (copy.seq, ids(copy)) == (7, [f"u{number}" for number in range(1, 8)])


@given(st.lists(appends, max_size=12), st.integers(0, 6))
def test_what_was_sent_is_what_comes_back(commands: list[AppendItems], shown: int) -> None:
    """A copy that knows the items it sent is at each position equal to one that reads every byte."""
    owner = ConversationState(Limits(items=6))
    copy = LocalCopy(View(0, 1, encode_snapshot(owner, requests=False)))
    for number, command in enumerate(commands):
        entries: list[bytes] = []
        with suppress(RefusedError):
            for event in decide(owner, command, now=float(number)):
                written = Entry(owner.seq + 1, 1, float(number), event, f"r{number}")
                owner.apply(written)
                entries.append(encode_entry(written))
        if number == shown:
            copy.replace(View(owner.seq, 1, encode_snapshot(owner, requests=False)))
        copy.apply(entries, command.items)
        read = [decode_entry(data) for data in entries]
        assert [decode_entry(data, {item.data: item for item in command.items}) for data in entries] == read
        assert encode_snapshot(copy.state, requests=False) == encode_snapshot(owner, requests=False)
        assert list(copy.state.window) == [StoredItem.parse(item.data) for item in owner.window]


def test_known_items_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that were sent and never came, or were replaced, are not held for ever."""
    monkeypatch.setattr(copy_module, "_MOST_OTHERS_KNOWN", 3)
    copy = LocalCopy(view(1))
    refused = [message(f"refused{number}") for number in range(20)]
    copy.apply([entry(2)], refused)
    assert gc.get_referrers(refused[0]) == [refused]
    others = [message(f"others{number}") for number in range(20)]
    copy.apply([], others)
    assert gc.get_referrers(others[0]) == [others], "nor where nothing comes of any of them"
