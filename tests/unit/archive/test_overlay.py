"""A page of the history, joined from archived rows and from what waits: against a model that keeps one list."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.archive.overlay import Assembly, Overlay, Placed, Position, Stamp, Wanted, appended, fresh
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AttributesChanged,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
)
from tests.support.strategies import message

NAMES = [f"m{number}" for number in range(12)]


@dataclass
class Model:
    """The history as one list: what a reader who forgets nothing would keep."""

    rows: list[Placed] = field(default_factory=list)

    def apply(self, entry: Entry) -> None:
        """Change the list as the event says."""
        match entry.event:
            case ItemsAppended(items):
                for place, item in enumerate(items):
                    self._put(item, Position(entry.seq, place))
            case ItemsEvicted(items):
                gone = {item.id for item in items}
                self.rows = [row._replace(is_evicted=row.is_evicted or row.item.id in gone) for row in self.rows]
            case ItemsRemoved(names):
                self.rows = [row for row in self.rows if row.item.id not in names]
            case HistoryCleared():
                self.rows = []
            case _:
                pass

    def _put(self, item: StoredItem, position: Position) -> None:
        for index, row in enumerate(self.rows):
            if row.item.id == item.id and not row.is_evicted:
                self.rows[index] = Placed(row.position, is_evicted=False, item=item)
                return
        self.rows = [row for row in self.rows if row.item.id != item.id]
        self.rows.append(Placed(position, is_evicted=False, item=item))

    def after(self, position: Position | None, count: int, *, newest_first: bool) -> list[Placed]:
        """Return the next rows, as the database would."""
        ordered = sorted(self.rows, key=lambda row: row.position, reverse=newest_first)
        if position is not None:
            ordered = [row for row in ordered if (row.position < position) == newest_first and row.position != position]
        return ordered[:count]

    @property
    def items(self) -> list[StoredItem]:
        """The items, in order."""
        return [row.item for row in self.rows]


_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
_events: st.SearchStrategy[Event] = st.one_of(
    *[
        st.builds(
            lambda names, text: ItemsAppended(tuple(message(name, text) for name in names)),
            _names,
            st.sampled_from(["a", "b", "c"]),
        )
    ]
    * 4,
    st.builds(lambda names: ItemsEvicted(tuple(message(name) for name in names)), _names),
    st.builds(lambda names: ItemsRemoved(tuple(names)), _names),
    st.just(HistoryCleared()),
    st.just(AttributesChanged({"a": 1})),
)
histories = st.lists(_events, max_size=16).map(
    lambda events: [Entry(seq, 1, float(seq), event) for seq, event in enumerate(events, 1)]
)


def model_of(entries: Sequence[Entry]) -> Model:
    """Return the list that entries lead to."""
    model = Model()
    for entry in entries:
        model.apply(entry)
    return model


def page(
    archived: Model, seq: int, waiting: Sequence[Entry], after: Position | None, limit: int, *, newest_first: bool
) -> tuple[list[Placed], bool]:
    """Read one page as `ArchiveReader.page` does, of a database that is this model."""
    missing = fresh(waiting, {entry.seq: Stamp(entry.epoch, entry.at) for entry in waiting if entry.seq <= seq})
    names = set(appended(missing))
    known = {row.item.id: row for row in archived.rows if row.item.id in names}
    assembly = Assembly(Overlay(missing, known), Wanted(after, limit, newest_first))
    while wanted := assembly.wanted:
        assembly.add(archived.after(assembly.reached, wanted, newest_first=newest_first))
    return assembly.page()


@given(
    entries=histories,
    limit=st.integers(1, 5),
    newest_first=st.booleans(),
    progress=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 4))),
)
def test_pages_are_the_history_once_and_in_order_while_the_archiver_goes_on(
    *, entries: list[Entry], limit: int, newest_first: bool, progress: list[tuple[int, int]]
) -> None:
    """Before each page more may be archived, and records that are archived may or may not be gone from the backlog."""
    expected = model_of(entries).items
    seen: list[StoredItem] = []
    after, more, archived = None, True, 0
    steps = iter(progress)
    while more:
        gone_on, late = next(steps, (0, 0))
        archived = min(len(entries), archived + gone_on)
        waiting = entries[max(0, archived - late) :]
        found, more = page(model_of(entries[:archived]), archived, waiting, after, limit, newest_first=newest_first)
        assert len(found) <= limit
        assert len(found) == limit or not more
        seen += [placed.item for placed in found]
        after = found[-1].position if found else after
    assert seen == (expected[::-1] if newest_first else expected)


def appending(seq: int, *names: str, text: str = "hello", epoch: int = 1) -> Entry:
    """Make the entry that brings items."""
    return Entry(seq, epoch, float(seq), ItemsAppended(tuple(message(name, text) for name in names)))


def evicting(seq: int, *names: str) -> Entry:
    """Make the entry by which items leave the window."""
    return Entry(seq, 1, float(seq), ItemsEvicted(tuple(message(name) for name in names)))


def names_of(placed: Sequence[Placed]) -> list[str]:
    """Return the ids of items, in order."""
    return [one.item.id for one in placed]


def test_an_item_that_is_appended_again_keeps_its_place_and_shows_what_was_written_last() -> None:
    """It is in the window still: what waits changes it where the archive has it."""
    archived = model_of([appending(1, "a", "b", "c")])
    found, _ = page(archived, 1, [appending(2, "b", text="new")], None, 10, newest_first=False)
    assert names_of(found) == ["a", "b", "c"]
    assert found[1].item == message("b", "new")


def test_an_item_that_had_left_the_window_comes_again_at_the_end() -> None:
    """Its old place is empty then, although the database still has it there."""
    archived = model_of([appending(1, "a", "b"), evicting(2, "a")])
    found, _ = page(archived, 2, [appending(3, "a", text="again")], None, 10, newest_first=False)
    assert names_of(found) == ["b", "a"]
    assert found[1].position == Position(3, 0)


def test_an_item_that_leaves_and_comes_again_while_it_waits_is_there_once() -> None:
    """The database has neither the leaving nor the coming."""
    archived = model_of([appending(1, "a", "b")])
    found, _ = page(archived, 1, [evicting(2, "a"), appending(3, "a")], None, 10, newest_first=True)
    assert names_of(found) == ["a", "b"]


def test_what_is_removed_is_on_no_page_although_rows_of_it_are_still_there() -> None:
    """A page is filled all the same, from the rows that follow."""
    archived = model_of([appending(1, "a", "b", "c", "d")])
    removal = Entry(2, 1, 2.0, ItemsRemoved(("a", "b")))
    found, more = page(archived, 1, [removal], None, 2, newest_first=False)
    assert (names_of(found), more) == (["c", "d"], False)


def test_a_cleared_history_begins_with_what_came_after() -> None:
    """Rows that the database still has are passed over."""
    archived = model_of([appending(1, "a", "b")])
    clearing = Entry(2, 1, 2.0, HistoryCleared())
    found, more = page(archived, 1, [clearing, appending(3, "b")], None, 5, newest_first=False)
    assert (names_of(found), more) == (["b"], False)
    assert found[0].position == Position(3, 0)


def test_another_entry_at_a_position_that_is_archived_is_new_and_so_is_what_follows() -> None:
    """Redis had lost what is archived there, and another owner has written since."""
    lost = [appending(1, "a"), appending(2, "lost"), appending(3, "lost too")]
    written = [appending(2, "new", epoch=2), appending(3, "newer", epoch=2)]
    archived = {entry.seq: Stamp(entry.epoch, entry.at) for entry in lost}
    assert fresh([*lost, *written, *written], archived) == written


def test_an_old_copy_of_what_was_written_anew_is_passed_over() -> None:
    """An owner that was deposed may still have pushed it."""
    archived = {2: Stamp(2, 2.0)}
    assert fresh([appending(2, "old", epoch=1), appending(3, "next", epoch=2)], archived) == [
        appending(3, "next", epoch=2)
    ]


def test_records_that_are_archived_already_are_passed_over() -> None:
    """The archiver settles them a moment after the database has them; those of a gap are not archived."""
    entries = [appending(seq, f"m{seq}") for seq in (1, 2, 3)]
    assert fresh(entries, {seq: Stamp(1, float(seq)) for seq in (1, 3)}) == [entries[1]]
