"""What came while nothing was archived, or was given up, and is in Redis still: it comes into the archive."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from conversation_actors.archive import service
from conversation_actors.archive.checkpoints import state_at
from conversation_actors.archive.database import Database
from conversation_actors.archive.filled import FilledCheckpoints
from conversation_actors.archive.newest import lives_of
from conversation_actors.archive.tables import items, lives
from conversation_actors.archive.unknown import UnknownConversations
from conversation_actors.archive.writer import Gap, Writer, Written
from conversation_actors.errors import CorruptStateError
from conversation_actors.failures import Failures
from conversation_actors.settings import Settings
from conversation_actors.state import (
    AttributesChanged,
    ConversationState,
    Limits,
    Participant,
    ParticipantJoined,
    SummaryChanged,
)
from conversation_actors.store import Store
from conversation_actors.store.backlog import decode_record
from tests.archive.conftest import TENANT
from tests.support.archive_contents import change, history, rows
from tests.support.archive_records import Author, item, state_of, stored
from tests.support.archiving import Author as Owner
from tests.support.archiving import archive_settings, item_ids

HERE = "room-1"
FIRST = Author()
SECOND = Author(epoch=2, owner="owner-2")
JOINED = ParticipantJoined(Participant(identity="ann", name="Ann"), "phone")


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    """The settings of an archiver between both servers."""
    return archive_settings(redis_url, database_url)


def at(records: Sequence[bytes]) -> ConversationState:
    """The state after these records, with all of their items."""
    return state_of(records, window=100)


async def archived_state(database: Database, *, tenant: str = TENANT, name: str = HERE) -> ConversationState:
    """The state that the conversation would come back with."""
    async with database.reading("looking") as connection:
        life = (await lives_of(connection, tenant, name))[-1]
        return await state_at(connection, life, Limits(), through=life.seq)


async def is_lacking(database: Database) -> list[bool]:
    """What the lives tell of themselves."""
    return [lacks for _, lacks in await rows(database, lives, "id", "is_lacking")]


async def test_what_came_in_a_gap_is_taken_from_the_state_after_it(database: Database, writer: Writer) -> None:
    """With no item after the gap; the state is what the conversation would come back with."""
    gap = [*FIRST.talk(3, 4), FIRST.record(5, AttributesChanged({"mood": "calm"}))]
    gap.append(FIRST.record(6, SummaryChanged("all is well", 4)))
    journal = [*FIRST.talk(1, 2), *gap, SECOND.record(7, JOINED)]
    await writer.write(HERE, journal[:2])
    assert (await writer.write(HERE, journal[-1:])).is_lacking

    assert await writer.fill(HERE, stored(SECOND, at(journal)), at(journal)) == 2

    assert await history(database) == [f"item-{seq}" for seq in range(1, 5)]
    state = await archived_state(database)
    assert [one.id for one in state.window] == [f"item-{seq}" for seq in range(1, 5)]
    assert (state.seq, state.attributes, list(state.participants)) == (7, {"mood": "calm"}, ["ann"])
    assert state.summary is not None
    assert await is_lacking(database) == [False]
    assert await writer.fill(HERE, stored(SECOND, at(journal)), at(journal)) == 0


async def test_a_state_that_is_not_the_one_after_the_last_entry_waits(database: Database, writer: Writer) -> None:
    """Later or earlier, or of a claim whose entry at that position is another one: the life stays lacking."""
    journal = [*FIRST.talk(1, 8)]
    await writer.write(HERE, [*journal[:2], *journal[5:7]])
    others = [*FIRST.talk(1, 6), SECOND.says(7, "other")]

    for author, records in ((FIRST, journal[:6]), (FIRST, journal), (SECOND, others)):
        assert await writer.fill(HERE, stored(author, at(records)), at(records)) == 0
    last = decode_record(others[-1]).data or b""
    assert await writer.fill(HERE, replace(stored(FIRST, at(others)), journal=(last,)), at(others)) == 0
    assert await history(database) == ["item-1", "item-2", "item-6", "item-7"]
    assert await is_lacking(database) == [True]

    last = decode_record(journal[6]).data or b""
    found = replace(stored(SECOND, at(journal[:7])), journal=(last,))  # a later claim that has written nothing yet
    assert await writer.fill(HERE, found, at(journal[:7])) == 3
    assert await history(database) == [f"item-{seq}" for seq in range(1, 8)]


async def test_items_of_several_gaps_come_each_to_its_own(database: Database, writer: Writer) -> None:
    """What a gap has corrected is correct, and what has left the window in one is known to have."""
    journal = [*FIRST.talk(1, 3), FIRST.says(4, "item-1", words="corrected"), *FIRST.talk(5, 9)]
    journal.append(FIRST.evicts(10, "item-2"))
    journal.append(FIRST.says(11, "last"))
    await writer.write(HERE, [*journal[:2], journal[5], journal[10]])  # gaps: 3 to 5, and 7 to 10

    assert await writer.fill(HERE, stored(FIRST, at(journal)), at(journal)) == 5

    assert await history(database) == [f"item-{seq}" for seq in (1, 2, 3, 5, 6, 7, 8, 9)] + ["last"]
    known = {name: (seq, gone, data) for name, seq, gone, data in
             await rows(database, items, "item_id", "seq", "is_evicted", "data")}  # fmt: skip
    assert known["item-1"] == (1, False, item("item-1", "corrected").data)
    assert known["item-2"][1]
    assert (known["item-3"][0], known["item-9"][0]) == (5, 10)


async def test_what_superseded_entries_had_filled_is_asked_for_again(database: Database, writer: Writer) -> None:
    """The checkpoint goes with them, and with it what it knew of a gap."""
    journal = [*FIRST.talk(1, 6)]
    await writer.write(HERE, [*journal[:2], *journal[4:]])
    await writer.fill(HERE, stored(FIRST, at(journal)), at(journal))
    again = [*journal[:5], SECOND.says(6, "new")]

    assert (await writer.write(HERE, again[-1:])).is_lacking
    assert await writer.fill(HERE, stored(SECOND, at(again)), at(again)) == 0

    assert [one.id for one in (await archived_state(database)).window] == [f"item-{n}" for n in range(1, 6)] + ["new"]
    assert await history(database) == [*(f"item-{n}" for n in range(1, 7)), "new"]


async def test_a_life_that_is_deleted_lacks_nothing(database: Database, writer: Writer) -> None:
    """Nobody asks for it again."""
    await writer.write(HERE, [FIRST.says(1), FIRST.says(5)])
    assert await is_lacking(database) == [True]
    await writer.write(HERE, [FIRST.deletes()])
    assert await is_lacking(database) == [False]


async def test_an_archive_that_is_switched_on_in_mid_life_has_all_that_redis_has(
    settings: Settings, old_store: Store, store: Store, database: Database
) -> None:
    """The owner goes on without it for a while; the next one begins with an entry that brings no item."""
    old = await Owner.of(old_store, "c")
    await old.say(3)
    assert await service.run_once(settings, program="a test") == 0
    await old.say(2)
    await old.write(AttributesChanged({"mood": "calm"}))
    new = await Owner.of(store, "c")
    await new.write(JOINED)
    assert await service.run_once(settings, program="a test") == 1

    assert await item_ids(database, "c") == ["m1", "m2", "m3", "m4", "m5"]
    state = await archived_state(database, tenant="default", name="c")
    assert [one.id for one in state.window] == ["m1", "m2", "m3", "m4", "m5"]
    assert (state.seq, state.attributes, list(state.participants)) == (7, {"mood": "calm"}, ["ann"])


@pytest.mark.parametrize("then", ["upkeep", "the next batch", "quiet"])
async def test_a_gap_that_nobody_has_filled_is_filled_later(
    settings: Settings, old_store: Store, store: Store, database: Database, then: str
) -> None:
    """By upkeep, if the archiver died when it had noted the gap; after the next batch, if more was on its way."""
    old = await Owner.of(old_store, "c")
    await old.say(2)
    new = await Owner.of(store, "c")
    await new.write(JOINED, JOINED)
    writer, backlog = Writer(database, "default"), store.backlog()
    failures = Failures()
    unknown = UnknownConversations(store, database, writer, tenant="default", limits=Limits(), failures=failures)
    batch = await backlog.peek("c")
    taken = batch.stored[:1] if then == "the next batch" else batch.stored
    await writer.write("c", taken)
    await backlog.settle("c", backlog=batch.backlog, through=batch.first + len(taken) - 1)
    if then == "the next batch":
        assert (await unknown.fill("c"), await unknown.fill_all(), await item_ids(database, "c")) == (0, 0, [])
    if then == "quiet":
        await FilledCheckpoints(Noted(), unknown.fill).idle("c")
    else:
        await service.run_once(settings, program="a test")

    assert await item_ids(database, "c") == ["m1", "m2"]
    assert await is_lacking(database) == [False]
    assert not failures.counts


class Noted:
    """Checkpoints that only tell what they were told."""

    def __init__(self) -> None:
        """Know of nothing yet."""
        self.told: list[str] = []

    async def note(self, conversation_id: str, written: Written) -> None:
        """See `Checkpoints`."""
        self.told.append(f"{conversation_id} {written.entries}")

    async def idle(self, conversation_id: str) -> None:
        """See `Checkpoints`."""
        self.told.append(conversation_id)


async def test_checkpoints_are_made_whatever_becomes_of_a_gap() -> None:
    """And a gap that was just tried is not tried twice; nor is a batch without any a reason to ask."""
    asked, noted = list[str](), Noted()

    async def fill(conversation_id: str) -> None:
        asked.append(conversation_id)
        message = "broken"
        raise CorruptStateError(message, key="x", position=0)

    filled = FilledCheckpoints(noted, fill)
    await filled.note("a", Written(1))
    await filled.note("b", Written(2, is_lacking=True, gaps=(Gap(1, 2, "given up"),)))
    with pytest.raises(CorruptStateError):
        await filled.note("c", Written(3, is_lacking=True))
    with pytest.raises(CorruptStateError):
        await filled.idle("d")
    assert (asked, noted.told) == (["c", "d"], ["a 1", "b 2", "c 3", "d"])


async def test_what_redis_has_no_more_is_asked_for_a_while(store: Store, database: Database) -> None:
    """An owner may restore it; after a day nobody is expected to."""
    writer = Writer(database, "default")
    unknown = UnknownConversations(store, database, writer, tenant="default", limits=Limits(), failures=Failures())
    await writer.write(HERE, [FIRST.says(1), FIRST.says(5)])
    await change(database, "UPDATE archive_lives SET active_at = 1e18")
    assert await unknown.fill_all() == 0
    assert await is_lacking(database) == [True]
    await change(database, "UPDATE archive_lives SET active_at = 1.0")
    assert await unknown.fill_all() == 0
    assert await is_lacking(database) == [False]
