"""Judges an archive: what was acknowledged is in it, in order and exactly once, and nothing of what was removed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.errors import ConversationError
from conversation_actors.state import EVENT_NAMES, Entry, ItemsAppended, ItemsRemoved
from tests.chaos.archive.archived import Archived
from tests.chaos.archive.told import Told


@dataclass(frozen=True, slots=True)
class Present:
    """What Redis has of a conversation at the end: its life, its last position, and the ids in its window."""

    life: str
    seq: int
    window: tuple[str, ...]


def check(told: Told, present: Present, archive: Archived) -> list[str]:
    """Return what is wrong with the archive of one conversation whose backlog is empty. An item's id is its text."""
    return [f"{told.conversation_id}: {wrong}" for wrong in _check(told, present, archive)]


def _check(told: Told, present: Present, archive: Archived) -> Iterator[str]:
    yield from told.contradictions
    lives = [(life.life, life.start, life.seq, life.deleted_at) for life in archive.lives]
    if lives != [(present.life, 0, present.seq, None)]:
        yield f"the archive's lives are {lives}, and Redis is in life {present.life} at {present.seq}"
    yield from (f"a gap after {gap.from_seq}: {gap.reason}" for gap in archive.gaps)
    yield from (f"{row.event} at {row.seq} was superseded" for row in archive.superseded)
    positions = [row.seq for row in archive.entries]
    if positions != list(range(1, present.seq + 1)):
        yield f"positions are not 1 to {present.seq}: {_broken(positions)}"
    entries: list[Entry] = []
    for row in archive.entries:
        try:
            entry = decode_entry(bytes(row.data))
        except ConversationError as error:
            yield f"the entry at {row.seq} cannot be read: {error}"
            continue
        entries.append(entry)
        if (entry.seq, entry.epoch, EVENT_NAMES[type(entry.event)]) != (row.seq, row.epoch, row.event):
            yield f"the row at {row.seq} has another entry in it: {entry.seq}, {entry.epoch}, {entry.event}"
        if (seen := told.watched.get(row.seq)) not in (None, (row.epoch, row.event)):
            yield f"at {row.seq} is {(row.epoch, row.event)}, and a watch brought {seen}"
    yield from (
        f"epoch {after.epoch} at {after.seq} came after {before.epoch}"
        for before, after in pairwise(entries)
        if after.epoch < before.epoch
    )
    removed = {name for entry in entries if isinstance(entry.event, ItemsRemoved) for name in entry.event.identities}
    yield from _messages(told, entries, removed)
    yield from _items(told, present, archive.items, removed)
    yield from _forgotten(archive, removed)


def _broken(positions: Sequence[int]) -> str:
    places = [f"{before}, {after}" for before, after in pairwise([0, *positions]) if after != before + 1]
    return f"{len(positions)} of them, the last {positions[-1:]}, broken at {places[:5]}"


def _messages(told: Told, entries: Sequence[Entry], removed: AbstractSet[str]) -> Iterator[str]:
    """Compare what was sent with what was appended: how often, at which position, in which order."""
    found: dict[str, list[int]] = defaultdict(list)
    last: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry.event, ItemsAppended):
            continue
        for item in entry.event.items:
            found[item.id].append(entry.seq)
            said = told.said.get(item.id)
            if said is None:
                yield f"{item.id} at {entry.seq} was sent by nobody"
            elif item.id < last.get(said.sender, ""):
                yield f"{item.id} at {entry.seq} came after {last[said.sender]}"
            else:
                last[said.sender] = item.id
    for text, said in told.said.items():
        places = found.get(text, [])
        if len(places) > 1:
            yield f"{text} is there {len(places)} times: {places}"
        if said.is_acknowledged and not places and text not in removed:
            yield f"{text} was acknowledged at {said.seq}, and is not there"
        if said.seq is not None and places and places[0] != said.seq:
            yield f"{text} was acknowledged at {said.seq}, and is at {places[0]}"


def _items(told: Told, present: Present, rows: Sequence[Any], removed: AbstractSet[str]) -> Iterator[str]:
    """Compare the archive's items with the window, and with all that was sent."""
    there = {row.item_id for row in rows}
    in_window = tuple(row.item_id for row in rows if not row.is_evicted)
    if in_window != present.window:
        missing, more = set(present.window) - set(in_window), set(in_window) - set(present.window)
        yield f"the items in the window are others, or in another order: {sorted(missing)[:5]}, {sorted(more)[:5]}"
    for text, said in told.said.items():
        if said.is_acknowledged and text not in removed and text not in there:
            yield f"{text} is among no items"


def _forgotten(archive: Archived, removed: AbstractSet[str]) -> Iterator[str]:
    """Look for what was removed in all that is kept but the headers of entries, where a removal names what it took."""
    kept = [bytes(row.data).partition(b"\n")[2] for row in (*archive.entries, *archive.superseded)]
    kept += [bytes(row.data) for row in archive.items]
    kept += [item.data for row in archive.checkpoints for item in decode_snapshot(bytes(row.data)).window]
    everything = b"\n".join(kept)
    yield from (f"{text} was removed, and is there" for text in removed if f'"{text}"'.encode() in everything)
