"""Checkpoints: a state from one and the entries after it is the state from all entries, wherever it was made."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.checkpoints import Checkpoints, advance, state_at
from conversation_actors.archive.database import Database
from conversation_actors.archive.newest import ArchivedLife, locked_life
from conversation_actors.archive.tables import checkpoints, entries, gaps, lives
from conversation_actors.codec import decode_entry, encode_entry, encode_snapshot
from conversation_actors.errors import CorruptStateError, RefusedError
from conversation_actors.state import (
    EVENT_NAMES,
    Command,
    ConversationState,
    Entry,
    ItemsAppended,
    Limits,
    decide,
)
from tests.archive.conftest import make_database
from tests.support.strategies import (
    appends,
    late_appends,
    lease_commands,
    limits,
    message,
    other_commands,
    participant_commands,
    removals,
)

_numbers = itertools.count()
commands = st.one_of(appends, appends, late_appends, lease_commands, participant_commands, other_commands, removals)
LIMITS = Limits()


def written(asked: list[Command], bounds: Limits) -> tuple[list[bytes], ConversationState]:
    """The entries that an owner would write for these commands, and the state that it has then."""
    state, journal = ConversationState(bounds), list[bytes]()
    for number, command in enumerate(asked):
        try:
            events = decide(state, command, now=1000.0 + number)
        except RefusedError:
            continue
        for place, event in enumerate(events):
            request_id = f"request-{number}" if number % 3 and not place else None
            entry = Entry(state.seq + 1, 1, 1000.0 + number, event, request_id)
            journal.append(encode_entry(entry))
            state.apply(decode_entry(journal[-1]))
    return journal, state


def messages(count: int) -> list[bytes]:
    """So many entries with a message each."""
    events = [ItemsAppended((message(f"u{seq}"),)) for seq in range(1, count + 1)]
    return [encode_entry(Entry(seq, 1, float(seq), event)) for seq, event in enumerate(events, 1)]


async def archived(connection: AsyncConnection, journal: list[bytes], conversation_id: str = "c") -> ArchivedLife:
    """A new life with these entries, as an archiver has them in the database."""
    life = f"life {next(_numbers)}"
    end = {"seq": len(journal), "epoch": 1, "owner": "one", "lineage": "[]"}
    row = {"tenant": "default", "conversation_id": conversation_id, "life": life, "start": 0, **end}
    made = insert(lives).values(**row, created_at=1.0, active_at=2.0).returning(lives.c.id)
    number = (await connection.execute(made)).scalar_one()
    for data in journal:
        entry = decode_entry(data)
        fields = {"seq": entry.seq, "epoch": entry.epoch, "at": entry.at, "event": EVENT_NAMES[type(entry.event)]}
        await connection.execute(insert(entries).values(life_id=number, data=data, **fields))
    found = await locked_life(connection, number)
    assert found is not None
    return found


def stored(state: ConversationState) -> bytes:
    """All that a state is, but for its life."""
    return encode_snapshot(state)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(commands, min_size=1, max_size=25), bounds=limits, data=st.data())
def test_a_state_from_a_checkpoint_is_the_state(
    database_url: str, asked: list[Command], bounds: Limits, data: st.DataObject
) -> None:
    """Whatever happened before and after it; and the state at an earlier position passes a later checkpoint by."""
    journal, state = written(asked, bounds)
    first = data.draw(st.integers(0, len(journal)))
    earlier = data.draw(st.integers(0, len(journal)))
    partly = ConversationState(bounds)
    for entry in journal[:earlier]:
        partly.apply(decode_entry(entry))

    async def compare() -> None:
        database = make_database(database_url)
        async with database.writing("test") as connection:
            life = await archived(connection, journal)
            await advance(connection, life, bounds, most=first)
            assert stored(await state_at(connection, life, bounds, through=life.seq)) == stored(state)
            assert stored(await state_at(connection, life, bounds, through=earlier)) == stored(partly)
        await database.aclose()

    asyncio.run(compare())


async def test_a_checkpoint_is_made_when_there_is_much_to_replay(database: Database) -> None:
    """After so many entries that were archived here, and up to the last one; and when nothing comes for a while."""
    async with database.writing("test") as connection:
        life = await archived(connection, messages(30))
    kept = Checkpoints(database, "default", limits=LIMITS, every=20)
    assert await checkpoint_of(database, life) is None
    await kept.count("c", 19)
    assert await checkpoint_of(database, life) is None
    await kept.count("c", 1)
    assert await checkpoint_of(database, life) == 30
    async with database.writing("test") as connection:
        other = await archived(connection, messages(2), "other")
    await kept.idle("other")
    assert await checkpoint_of(database, other) == 2


async def test_nothing_is_made_of_what_is_not_there(database: Database) -> None:
    """Neither of an unknown conversation, nor of a deleted one."""
    kept = Checkpoints(database, "default", limits=LIMITS)
    await kept.idle("nobody")
    async with database.writing("test") as connection:
        life = await archived(connection, messages(2))
        await connection.execute(update(lives).where(lives.c.id == life.number).values(deleted_at=3.0))
    await kept.idle("c")
    assert await checkpoint_of(database, life) is None


async def test_a_gap_that_is_known_is_left_out(database: Database) -> None:
    """The state tells that it has not counted everything; without the note, the error names what is missing."""
    async with database.writing("test") as connection:
        life = await archived(connection, messages(6))
        missing = (entries.c.life_id == life.number) & entries.c.seq.in_([3, 4])
        await connection.execute(delete(entries).where(missing))
        with pytest.raises(CorruptStateError, match=rf"archive_entries\[life {life.life}\]\[3\]: is missing"):
            await state_at(connection, life, LIMITS, through=6)
        noted = insert(gaps).values(life_id=life.number, reason="given up", noted_at=1.0)
        await connection.execute(noted.values(from_seq=3, to_seq=3))
        with pytest.raises(CorruptStateError, match=r"\[4\]: is missing"):
            await state_at(connection, life, LIMITS, through=6)
        await connection.execute(noted.values(from_seq=4, to_seq=None))
        state = await state_at(connection, life, LIMITS, through=6)
    assert [item.id for item in state.window] == ["u1", "u2", "u5", "u6"]
    assert (state.seq, state.has_counted_all) == (6, False)


@pytest.mark.parametrize("table", ["archive_entries", "archive_checkpoints"])
async def test_a_corrupt_row_is_named(database: Database, table: str) -> None:
    """Table, life and position."""
    async with database.writing("test") as connection:
        life = await archived(connection, messages(6))
        await advance(connection, life, LIMITS, most=3)
        if table == "archive_checkpoints":
            await connection.execute(update(checkpoints).values(data=b"nonsense"))
        else:
            await connection.execute(update(entries).where(entries.c.seq == 5).values(data=b"nonsense"))
        with pytest.raises(CorruptStateError) as raised:
            await state_at(connection, life, LIMITS, through=6)
    assert raised.value.key.startswith(f"{table}[life {life.life}]")


async def test_a_long_conversation_takes_several_pages(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint is at the end all the same."""
    monkeypatch.setattr("conversation_actors.archive.checkpoints._PAGE_ENTRIES", 4)
    async with database.writing("test") as connection:
        life = await archived(connection, messages(10))
        assert (await state_at(connection, life, LIMITS, through=10)).total_items == 10
    await Checkpoints(database, "default", limits=LIMITS).idle("c")
    assert await checkpoint_of(database, life) == 10


async def checkpoint_of(database: Database, life: ArchivedLife) -> int | None:
    """The position of a life's checkpoint."""
    async with database.reading("test") as connection:
        query = checkpoints.select().where(checkpoints.c.life_id == life.number)
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else int(row.seq)
