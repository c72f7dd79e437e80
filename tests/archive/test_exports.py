"""Conversations out of an archive and into another one: nothing lost, nothing twice, nothing half."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.database import Database
from conversation_actors.archive.rows import ENTRY, LIFE, PICTURE, Row
from conversation_actors.errors import ConflictError, ConversationNotFoundError, CorruptStateError, InvalidInputError
from conversation_actors.items import Message
from conversation_actors.store import MemoryStore
from conversation_actors.store.backlog import Bounds
from conversation_actors.transfer import importing
from conversation_actors.transfer.export_file import digest_of
from conversation_actors.transfer.exporting import Exported, Format, export_all, export_one
from conversation_actors.transfer.importing import Importer, Plan
from conversation_actors.transfer.markdown import MarkdownForm
from tests.archive.conftest import make_database
from tests.support.archived_rows import LIFE_ROW, every_kind, rows_of

TENANT = "default"
MD = MarkdownForm.suffix


async def accepted(_: AsyncIterator[Row]) -> None:
    """Whatever was added."""


def said(*words: str) -> list[Row]:
    """Return a conversation in which these words were said."""
    return rows_of(*(Message(id=f"m{n}", role="user", content=text, created_at=1.0) for n, text in enumerate(words)))


def lives(count: int) -> list[Row]:
    """Return the rows of a conversation that was deleted, and has begun anew, so many times."""
    return [
        row if row.kind != LIFE else Row(LIFE, {**row.values, "life": f"life-{number}", "start": 10 * (number % 3)})
        for number in range(count)
        for row in said(f"in life {number}")
    ]


@pytest.fixture
async def full(database: Database) -> Copies:
    """An archive with some conversations, whose ids databases with a language would sort in another order."""
    copies = Copies(database, TENANT)
    await copies.add("b", every_kind(), accepted)
    await copies.add("B", lives(4), accepted)
    await copies.add("ä", said(*(f"{n} " * 20 for n in range(210))), accepted)
    await copies.add("a-b", said("x"), accepted)
    await copies.add("aa", said("x"), accepted)
    await Copies(database, "other").add("zz", said("another tenant's"), accepted)
    return copies


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Copies]:
    """Another archive, to import into."""
    (tmp_path / "other").mkdir()
    other = make_database(f"sqlite+aiosqlite:///{tmp_path}/other/archive.db")
    await other.migrate()
    yield Copies(other, TENANT)
    await other.aclose()


async def exported(copies: Copies, path: Path) -> bytes:
    """Return the bytes of an export of everything."""
    await export_all(copies, path, Format.JSONL)
    return content(path)


def content(path: Path) -> bytes:
    """Return what is in a file."""
    return path.read_bytes()


def names(directory: Path) -> list[str]:
    """Return the names of what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def imported(copies: Copies, *paths: Path) -> Plan:
    """Import as the command does."""
    importer = Importer(copies, MemoryStore())
    (await importer.plan(paths)).require_no_conflict()
    return await importer.add(paths)


async def test_an_import_exports_the_same_bytes(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """From either database into another one; the second import finds everything there."""
    whole = await exported(full, tmp_path / "1.jsonl")
    ids = [json.loads(line)["id"] for line in whole.splitlines() if line.startswith(b'{"kind":"conversation"')]
    assert ids == sorted(ids, key=str.encode) == ["B", "a-b", "aa", "b", "ä"]
    done = await imported(empty, tmp_path / "1.jsonl")
    assert (done.new, done.there) == (5, 0)
    assert await exported(empty, tmp_path / "2.jsonl") == whole
    again = await imported(empty, tmp_path / "1.jsonl", tmp_path / "2.jsonl")
    assert (again.new, again.there) == (0, 10)
    assert await exported(empty, tmp_path / "2.jsonl") == whole


async def test_into_each_kind_of_database(database: Database, empty: Copies, tmp_path: Path) -> None:
    """What one kind has exported, the other one imports."""
    await empty.add("b", every_kind(), accepted)
    await empty.add("l", lives(3), accepted)
    whole = await exported(empty, tmp_path / "1.jsonl")
    await imported(Copies(database, TENANT), tmp_path / "1.jsonl")
    assert await exported(Copies(database, TENANT), tmp_path / "2.jsonl") == whole


async def test_pages_of_any_size_are_one_order(full: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is read page by page; where a page ends is seen nowhere."""
    whole = await exported(full, tmp_path / "1.jsonl")
    for at_once in (1, 3):
        monkeypatch.setattr("conversation_actors.archive.copying.ROWS_AT_ONCE", at_once)
        monkeypatch.setattr("conversation_actors.archive.copying.IDS_AT_ONCE", at_once)
        assert await exported(full, tmp_path / "2.jsonl") == whole


async def test_an_import_that_was_killed_is_repeated(
    full: Copies, empty: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it ended, no conversation is there in part, and the repetition brings the rest."""
    whole = await exported(full, tmp_path / "1.jsonl")
    for survived in range(5):
        calls = 0

        async def dying(conversation_id: str, rows: AsyncIterator[Row], survived: int = survived) -> str | None:
            nonlocal calls
            digest = await digest_of(conversation_id, rows)
            calls += 1
            if calls > survived:
                raise KeyboardInterrupt
            return digest

        monkeypatch.setattr(importing, "digest_of", dying)
        with pytest.raises(KeyboardInterrupt):
            await Importer(empty, MemoryStore()).add([tmp_path / "1.jsonl"])
        monkeypatch.setattr(importing, "digest_of", digest_of)
        assert len([one async for one in empty.ids()]) == max(0, survived)
        for there in ["B", "a-b", "aa", "b", "ä"][:survived]:
            assert str(await digest_of(there, empty.rows(there))) in whole.decode()
    await imported(empty, tmp_path / "1.jsonl")
    assert await exported(empty, tmp_path / "2.jsonl") == whole


async def test_what_is_there_with_other_content_stops_everything(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """The last conversation of the file, and nothing of the first ones was written."""
    await exported(full, tmp_path / "1.jsonl")
    await empty.add("ä", said("something else"), accepted)
    with pytest.raises(ConflictError, match="nothing was imported: 'ä' is in the archive with other content"):
        await imported(empty, tmp_path / "1.jsonl")
    assert [one async for one in empty.ids()] == ["ä"]


async def test_what_lives_in_redis_is_a_conflict(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """An imported past would contradict it."""
    await exported(full, tmp_path / "1.jsonl")
    store = MemoryStore()
    await store.activate("aa", owner="o", create=True, ttl=timedelta(minutes=1))
    plan = await Importer(empty, store).plan([tmp_path / "1.jsonl"])
    assert plan.conflicts == ["'aa' is in Redis, and not in the archive"]
    assert (plan.new, plan.there) == (4, 0)


async def test_what_redis_knows_to_be_deleted_is_a_conflict(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """The deletion that waits would take along what was imported, and a tombstone keeps it from being opened."""
    await exported(full, tmp_path / "1.jsonl")
    store = MemoryStore(archive=Bounds(1 << 20, timedelta(hours=1)))
    claim = (await store.activate("b", owner="o", create=True, ttl=timedelta(minutes=1))).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=timedelta(minutes=1))
    for conversation_id in ("aa", "b"):  # the one has never been here
        await store.delete(conversation_id, ttl=timedelta(minutes=1))
    plan = await Importer(empty, store).plan([tmp_path / "1.jsonl"])
    assert plan.conflicts == [f"{name!r} was deleted, and Redis remembers that" for name in ("aa", "b")]
    assert (plan.new, plan.there) == (3, 0)


async def test_what_was_deleted_stays_deleted(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """An old export does not bring it back; and an export has nothing of it."""
    await empty.add("aa", [Row(LIFE, {**LIFE_ROW, "seq": 1, "deleted_at": 9.0})], accepted, Chosen(deleted=True))
    assert b'"aa"' not in await exported(empty, tmp_path / "0.jsonl")
    await exported(full, tmp_path / "1.jsonl")
    with pytest.raises(ConflictError, match="'aa' was deleted in the archive"):
        await imported(empty, tmp_path / "1.jsonl")
    with pytest.raises(ConflictError, match="its life 'life-1' was deleted"):
        await Importer(empty, MemoryStore()).add([tmp_path / "1.jsonl"])


async def test_damage_anywhere_is_found_before_anything_is_written(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """A second file whose last line is missing, after a first one that is whole."""
    whole = await exported(full, tmp_path / "1.jsonl")
    (tmp_path / "2.jsonl").write_bytes(whole[: whole.rindex(b'{"kind":"trailer"')])
    with pytest.raises(CorruptStateError, match="cut off"):
        await imported(empty, tmp_path / "1.jsonl", tmp_path / "2.jsonl")
    assert await empty.is_empty()


async def test_two_files_that_contradict_each_other(full: Copies, empty: Copies, tmp_path: Path) -> None:
    """One id, two contents."""
    await exported(full, tmp_path / "1.jsonl")
    await empty.add("aa", said("y"), accepted)
    await exported(empty, tmp_path / "2.jsonl")
    plan = await Importer(Copies(empty._database, "new"), MemoryStore()).plan(
        [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    )
    assert plan.conflicts == ["'aa' is in two files, with different content"]


async def test_what_the_database_changes_is_not_kept(
    full: Copies, empty: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each conversation is read back before its transaction ends."""
    await exported(full, tmp_path / "1.jsonl")
    insert = Copies._insert

    async def forgetful(self: Copies, connection: object, one: str, rows: Sequence[Row], deleted: set[str]) -> None:
        kept = list(rows)
        await insert(self, connection, one, [row for row in kept if row.kind != PICTURE], deleted)  # type: ignore[arg-type]

    monkeypatch.setattr(Copies, "_insert", forgetful)
    with pytest.raises(CorruptStateError, match="'b': the archive gave back other rows"):
        await Importer(empty, MemoryStore()).add([tmp_path / "1.jsonl"])
    assert [one async for one in empty.ids()] == ["B", "a-b", "aa"]


async def test_one_conversation_goes_into_one_file(full: Copies, tmp_path: Path) -> None:
    """In each format; an id that nobody knows makes no file."""
    out = tmp_path / "out"
    done = await export_one(full, "aa", out / "aa.jsonl", Format.JSONL)
    assert done == Exported(1, 1, len(content(out / "aa.jsonl")))
    await export_one(full, "B", out / "B.json", Format.CHAT_CONTEXT)
    assert [item["content"] for item in json.loads(content(out / "B.json"))["items"]] == [["in life 3"]]
    await export_one(full, "B", out / f"B{MD}", Format.MARKDOWN)
    assert content(out / f"B{MD}").count(b"> in life") == 4
    with pytest.raises(ConversationNotFoundError, match="'nobody' is neither in Redis nor in the archive"):
        await export_one(full, "nobody", out / f"nobody{MD}", Format.MARKDOWN)
    with pytest.raises(InvalidInputError, match="is a directory"):
        await export_one(full, "aa", tmp_path, Format.JSONL)
    assert names(out) == ["B.json", f"B{MD}", "aa.jsonl"]


async def test_all_conversations_go_into_a_directory(full: Copies, tmp_path: Path) -> None:
    """A file for each, but for JSON Lines."""
    done = await export_all(full, tmp_path / "out", Format.MARKDOWN)
    assert (done.conversations, done.files) == (5, 5)
    assert names(tmp_path / "out") == [f"{name}{MD}" for name in ("%C3%A4", "B", "a-b", "aa", "b")]
    with pytest.raises(InvalidInputError, match="is a file"):
        await export_all(full, tmp_path / "out" / f"b{MD}", Format.CHAT_CONTEXT)
    with pytest.raises(InvalidInputError, match="is a directory"):
        await export_all(full, tmp_path / "out", Format.JSONL)


async def test_only_what_is_asked_for_is_read(full: Copies) -> None:
    """A form for people needs no entries."""
    kinds = {row.kind async for row in full.rows("b", Chosen(kinds=frozenset({ENTRY})))}
    assert kinds == {LIFE, ENTRY}


async def test_ids_are_asked_for_in_the_order_of_their_bytes(database: Database) -> None:
    """A database sorts as its language does otherwise: then two databases would export other bytes."""
    async with database.reading("look at a statement") as connection:
        asked = Copies(database, TENANT)._page(connection, "b", with_deleted=False)
        told = str(asked.compile(dialect=connection.dialect))
    assert told.count('COLLATE "C"') == (3 if connection.dialect.name == "postgresql" else 0)
