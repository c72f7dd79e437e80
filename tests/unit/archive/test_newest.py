"""Which life of a conversation goes on, of those that are archived and those that only wait for it."""

from conversation_actors.archive.newest import ArchivedLife, newest_of
from conversation_actors.store.backlog import Record


def archived(life: str, number: int = 1, *, is_deleted: bool = False) -> ArchivedLife:
    """A life with ten entries in the archive."""
    return ArchivedLife(number, life, 0, 10, 1, f"owner of {life}", is_deleted=is_deleted)


def entry(life: str, *, start: int = 0, epoch: int = 1) -> Record:
    """An entry that waits; what it holds does not matter here."""
    return Record(life, start, epoch, f"owner of {life}", b"entry")


def deletion(life: str) -> Record:
    """The deletion of a life, which waits."""
    return Record(life, 0, 1, "", None)


def test_the_latest_archived_life_goes_on() -> None:
    """Of two that were never deleted, the one that was archived later; nothing at all without one."""
    old, new = archived("a", 1), archived("b", 2)
    assert newest_of([old, new], []) == (new, [])
    assert newest_of([], []) == (None, [])


def test_what_waits_belongs_to_its_life() -> None:
    """Its own records are the life's; late copies of an older life's are nobody's."""
    old, new = archived("a", 1), archived("b", 2)
    assert newest_of([old, new], [entry("a"), entry("b"), entry("a")]) == (new, [entry("b")])


def test_a_life_that_only_waits_goes_on() -> None:
    """It begins where its records say, and the archived one before it is over."""
    life, own = newest_of(
        [archived("a")], [entry("a"), entry("b", start=10, epoch=3), entry("a"), entry("b", start=10)]
    )
    assert life == ArchivedLife(None, "b", 10, 10, 3, "owner of b")
    assert own == [entry("b", start=10, epoch=3), entry("b", start=10)]


def test_a_deleted_life_does_not_go_on() -> None:
    """Neither one that the archive has deleted, nor what was acknowledged of it before; its copies wait for nothing."""
    assert newest_of([archived("a", is_deleted=True)], [entry("a")]) == (None, [])


def test_a_deletion_that_waits_counts() -> None:
    """It ends all lives before it, also one that the archive does not know; copies that come after it begin nothing."""
    assert newest_of([archived("a")], [entry("a"), deletion("a"), entry("a")]) == (None, [])
    assert newest_of([archived("a")], [deletion("b"), entry("a"), entry("b")]) == (None, [])


def test_a_life_after_a_deletion_goes_on() -> None:
    """Whether its deletion is archived by now or not."""
    waiting = [entry("a"), deletion("a"), entry("b", start=11)]
    life, own = newest_of([archived("a")], waiting)
    assert (life and life.life, own) == ("b", [entry("b", start=11)])
    new = archived("b", 2)
    assert newest_of([archived("a", is_deleted=True), new], waiting) == (new, [entry("b", start=11)])
