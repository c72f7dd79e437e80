"""The checker of archives in `tests/chaos/archive`: it passes what is right, and finds each thing that is wrong."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from conversation_actors import Message
from conversation_actors.codec import encode_entry
from conversation_actors.state import EVENT_NAMES, Entry, Event, ItemsAppended, ItemsEvicted, ItemsRemoved
from tests.chaos.archive.archived import Archived
from tests.chaos.archive.checker import Present, check
from tests.chaos.archive.told import Said, Told

LIFE = "life"
NAMES = [f"alice:{number}" for number in range(1, 5)]


def items(*names: str) -> tuple[Any, ...]:
    """Messages whose ids are their texts."""
    return tuple(Message(role="user", content=name, id=name).to_stored() for name in names)


def row(seq: int, event: Event, epoch: int = 1) -> Any:
    """One row of `archive_entries`."""
    data = encode_entry(Entry(seq, epoch, 1.5, event, f"r{seq}"))
    return SimpleNamespace(seq=seq, epoch=epoch, event=EVENT_NAMES[type(event)], data=data)


def item(name: str, seq: int, *, is_evicted: bool = False) -> Any:
    """One row of `archive_items`."""
    return SimpleNamespace(item_id=name, seq=seq, place=0, is_evicted=is_evicted, data=items(name)[0].data)


def story() -> tuple[Told, Present, Archived]:
    """Four messages, of which the first has left the window and the second was removed."""
    told = Told("c", said={name: Said("alice", is_acknowledged=True, seq=seq) for seq, name in enumerate(NAMES, 1)})
    told.watched = {3: (1, "items_appended")}
    entries = [
        row(1, ItemsAppended(items(NAMES[0]))),
        row(2, ItemsAppended(())),  # without what was removed
        row(3, ItemsAppended(items(NAMES[2]))),
        row(4, ItemsAppended(items(NAMES[3])), 2),
        row(5, ItemsEvicted(items(NAMES[0])), 2),
        row(6, ItemsRemoved((NAMES[1],)), 2),
    ]
    rows = [item(NAMES[0], 1, is_evicted=True), item(NAMES[2], 3), item(NAMES[3], 4)]
    lives = [SimpleNamespace(life=LIFE, start=0, seq=6, deleted_at=None)]
    return told, Present(LIFE, 6, (NAMES[2], NAMES[3])), Archived(lives, entries, rows, [], [], [])


def test_what_is_right_passes() -> None:
    """Also what has left the window, and what was removed."""
    assert check(*story()) == []


def drop(archive: Archived, place: int) -> Archived:
    """Leave out an entry."""
    return replace(archive, entries=archive.entries[:place] + archive.entries[place + 1 :])


FAULTS: dict[str, tuple[Callable[[Archived], Archived], str]] = {
    "an entry is missing": (lambda it: drop(it, 2), "positions are not"),
    "a message is missing": (lambda it: drop(it, 2), "alice:3 was acknowledged at 3, and is not there"),
    "the last entry is missing": (lambda it: drop(it, 5), "positions are not"),
    "a message is doubled": (
        lambda it: replace(it, entries=[*it.entries, row(7, ItemsAppended(items(NAMES[3])), 2)]),
        "alice:4 is there 2 times",
    ),
    "an entry is at another position": (
        lambda it: replace(it, entries=[*it.entries[:2], row(3, ItemsAppended(items(NAMES[3]))), *it.entries[3:]]),
        "alice:4 was acknowledged at 4, and is at 3",
    ),
    "messages are in another order": (
        lambda it: replace(it, entries=[row(1, ItemsAppended(items(NAMES[3]))), *it.entries[1:]]),
        "alice:3 at 3 came after alice:4",
    ),
    "an epoch goes back": (
        lambda it: replace(it, entries=[*it.entries[:4], row(5, ItemsEvicted(items(NAMES[0]))), it.entries[5]]),
        "epoch 1 at 5 came after 2",
    ),
    "another entry than a watch brought": (
        lambda it: replace(it, entries=[*it.entries[:2], row(3, ItemsEvicted(())), *it.entries[3:]]),
        "a watch brought (1, 'items_appended')",
    ),
    "what was removed is there": (
        lambda it: replace(it, entries=[it.entries[0], row(2, ItemsAppended(items(NAMES[1]))), *it.entries[2:]]),
        "alice:2 was removed, and is there",
    ),
    "an item is missing": (lambda it: replace(it, items=it.items[1:]), "alice:1 is among no items"),
    "an item has not left the window": (
        lambda it: replace(it, items=[item(NAMES[0], 1), *it.items[1:]]),
        "the items in the window are others",
    ),
    "somebody said it who did not": (
        lambda it: replace(it, entries=[row(1, ItemsAppended(items("bob:1"))), *it.entries[1:]]),
        "bob:1 at 1 was sent by nobody",
    ),
    "a gap": (lambda it: replace(it, gaps=[SimpleNamespace(from_seq=3, reason="given up")]), "a gap after 3"),
    "something superseded": (lambda it: replace(it, superseded=[it.entries[2]]), "at 3 was superseded"),
    "another life": (
        lambda it: replace(it, lives=[*it.lives, SimpleNamespace(life="b", start=0, seq=1, deleted_at=None)]),
        "the archive's lives are",
    ),
    "an entry that cannot be read": (
        lambda it: replace(it, entries=[SimpleNamespace(seq=1, epoch=1, event="", data=b"{"), *it.entries[1:]]),
        "the entry at 1 cannot be read",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_found(name: str) -> None:
    """Each by what it is."""
    told, present, archive = story()
    spoil, expected = FAULTS[name]

    found = check(told, present, spoil(archive))

    assert any(expected in one for one in found), found


def test_two_receipts_for_one_message_are_found() -> None:
    """A repeat has to get the first one's position."""
    told, present, archive = story()
    told.acknowledge(NAMES[2], 4)

    assert "alice:3 was acknowledged at 3 and at 4" in check(told, present, archive)[0]


def test_what_nobody_was_told_of_may_be_missing() -> None:
    """A message whose sender has no answer is there, or is not."""
    told, present, archive = story()
    told.said["alice:9"] = Said("alice")

    assert check(told, present, archive) == []
