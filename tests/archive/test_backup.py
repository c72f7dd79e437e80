"""A backup of Redis and the archive, taken while both are at work, and restored into an empty pair."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis

from conversation_actors.activation.recovery import rebuild
from conversation_actors.archive.copying import EVERYTHING, Chosen, Copies
from conversation_actors.archive.database import Database
from conversation_actors.archive.rows import ENTRY, GAP, LIFE, Row
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import decode_entry, encode_entry
from conversation_actors.errors import ConflictError, CorruptStateError, InvalidInputError
from conversation_actors.items import Message
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store import Store, open_store
from conversation_actors.store.backlog import decode_record
from conversation_actors.store.base import Outcome
from conversation_actors.store.keys import Keys
from conversation_actors.store.redis_copies import RedisCopies, RedisCopy
from conversation_actors.transfer.backing_up import FILE, Backup, is_whole
from conversation_actors.transfer.backup_rows import copy_of, rows_of
from conversation_actors.transfer.restoring import Restoration
from tests.archive.conftest import TIMEOUT, make_database
from tests.support.servers import Server

TTL = timedelta(minutes=10)
PASSWORD = "pa55word-of-redis"
SECRETS = (PASSWORD, "pa55word-of-the-archive", "token-of-ray")


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    """Have the Redis of all tests here ask for a password."""
    client = server.client()
    client.config_set("requirepass", PASSWORD)
    client.close()
    return server


class Pair:
    """A Redis and an archive, with what a test does to them."""

    def __init__(self, server: Server, number: int, database: Database) -> None:
        """The Redis is one of the server's databases, and empty."""
        self.redis_client = Redis(port=server.port, password=PASSWORD, db=number)
        self.redis_client.flushdb()
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/{number}"
        archive = ArchiveSettings(url=SecretStr("postgresql+psycopg://u:pa55word-of-the-archive@h/d"), timeout=TIMEOUT)
        self.settings = Settings(redis_url=SecretStr(url), archive=archive)
        self.database = database
        self.is_over = asyncio.Event()
        self.store: Store = open_store(self.settings)
        self.redis = RedisCopies(self.settings)
        self.copies, self.writer = Copies(database, self.settings.tenant), Writer(database, self.settings.tenant)

    async def aclose(self) -> None:
        """Close connections."""
        await self.redis.aclose()
        await self.store.aclose()
        await self.database.aclose()
        self.redis_client.close()

    async def talk(self, conversation_id: str, most: int = 10_000) -> None:
        """Own a conversation and write to it, until it is over."""
        claim = (await self.store.activate(conversation_id, owner=f"o-{conversation_id}", create=True, ttl=TTL)).claim
        await self.store.index(conversation_id, participants=("anna",), ttl=TTL)
        for seq in range(1, most + 1):
            item = Message(id=f"m{seq}", role="user", content=f"{conversation_id} says {seq}").to_stored()
            entry = encode_entry(Entry(seq, claim.epoch, float(seq), ItemsAppended((item,))))
            outcome = await self.store.append(claim, expected_seq=seq - 1, entries=[entry], ttl=TTL)
            assert outcome is Outcome.OK
            if self.is_over.is_set():
                return

    async def talk_on(self, conversation_id: str, owner: str = "next") -> None:
        """Own a conversation that is there, and write one entry to it."""
        taken = await self.store.activate(conversation_id, owner=owner, create=False, ttl=TTL)
        entry = encode_entry(Entry(taken.seq + 1, taken.claim.epoch, 9.0, ItemsAppended(())))
        await self.store.append(taken.claim, expected_seq=taken.seq, entries=[entry], ttl=TTL)

    async def archive(self, *, once: bool = False) -> None:
        """Archive what waits, as an archiver does, until it is over."""
        backlog = self.store.backlog()
        while True:
            for waiting in await backlog.waiting():
                one = waiting.conversation_id
                batch = await backlog.take(one, archiver="archiver", ttl=TTL, most_bytes=1 << 20)
                if batch is None or not batch.stored:
                    continue
                await self.writer.write(one, batch.stored)
                await backlog.settle(one, backlog=batch.backlog, through=batch.through)
                await backlog.release(one, archiver="archiver")
            if once or self.is_over.is_set():
                return
            await asyncio.sleep(0)

    async def back_up(self, directory: Path) -> int:
        """Back this up."""
        return (await Backup(self.store, self.redis, self.copies).write(directory)).conversations

    async def restore(self, directory: Path) -> int:
        """Restore here."""
        return await Restoration(self.store, self.redis, self.copies).run(directory)


@pytest.fixture
async def here(server: Server, database: Database) -> AsyncIterator[Pair]:
    """Where conversations are."""
    made = Pair(server, 0, database)
    yield made
    await made.aclose()


@pytest.fixture
async def there(server: Server, tmp_path: Path) -> AsyncIterator[Pair]:
    """An empty pair."""
    (tmp_path / "there").mkdir()
    database = make_database(f"sqlite+aiosqlite:///{tmp_path}/there/archive.db")
    await database.migrate()
    made = Pair(server, 1, database)
    yield made
    await made.aclose()


async def archived(pair: Pair, conversation_id: str) -> list[Row]:
    """Return what the archive has of a conversation."""
    return [row async for row in pair.copies.rows(conversation_id)]


def content(directory: Path) -> bytes:
    """Return the bytes of a backup."""
    return (directory / FILE).read_bytes()


async def test_a_backup_of_a_pair_at_work_is_restored_whole(here: Pair, there: Pair, tmp_path: Path) -> None:
    """Owners write and an archiver archives all along. What is restored has no gap between Redis and archive.

    It opens with its life and its position, in the next epoch; what waited for the archive is archived there.
    """
    talking = [asyncio.create_task(here.talk(f"c{number}")) for number in range(2)]
    await here.talk("quiet", most=5)
    await here.archive(once=True)
    archiving = asyncio.create_task(here.archive())
    await here.back_up(tmp_path / "1")
    here.is_over.set()
    await asyncio.gather(*talking, archiving)
    assert await there.restore(tmp_path / "1") == 3
    assert sorted([found.conversation_id async for found in there.store.list(participant=None)]) == [
        "c0",
        "c1",
        "quiet",
    ]
    waiting = {one.conversation_id for one in await there.store.backlog().waiting()}
    for name in ("c0", "c1", "quiet"):
        assert name in waiting or not (await there.store.backlog().peek(name)).stored
        taken = await there.store.activate(name, owner="next", create=False, ttl=TTL)
        assert (taken.claim.life, taken.claim.epoch) == (f"o-{name}", 2)
        state, _ = rebuild(taken, there.settings.history.limits())
        await there.archive(once=True)
        rows = await archived(there, name)
        entries = [row.values["seq"] for row in rows if row.kind == ENTRY]
        assert entries == list(range(1, state.seq + 1)), name
        assert not [row for row in rows if row.kind == GAP]
        assert [row.values["seq"] for row in rows if row.kind == LIFE] == [state.seq]
    again = content(tmp_path / "1")
    for secret in SECRETS:
        assert secret.encode() not in again
    assert (tmp_path / "1" / FILE).stat().st_mode & 0o077 == 0


class Overtaken(RedisCopies):
    """Redis, in which others write and archive just before a backup reads it: it read the archive before that."""

    def __init__(self, pair: Pair, times: int) -> None:
        """So many times."""
        super().__init__(pair.settings)
        self._pair, self._left = pair, times

    async def read(self, conversation_id: str) -> RedisCopy:
        """Be overtaken, and read."""
        if self._left:
            self._left -= 1
            await self._pair.talk_on(conversation_id, owner=f"o{self._left}")
            await self._pair.archive(once=True)
        return await super().read(conversation_id)


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_what_moves_between_two_reads_is_not_missed(
    here: Pair, there: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_claimed: bool
) -> None:
    """The claim keeps archivers away; one that has come before the claim is noticed, and all is read again."""

    async def unclaimed(*_: object) -> None:
        pass

    if not is_claimed:
        monkeypatch.setattr(Backup, "_claim", unclaimed)
    await here.talk("a", most=3)
    overtaken = Overtaken(here, 2)
    await Backup(here.store, overtaken, here.copies).write(tmp_path / "1")
    await overtaken.aclose()
    await there.restore(tmp_path / "1")
    waiting = len((await there.store.backlog().peek("a")).stored)
    assert waiting == (4 if is_claimed else 0)
    await there.archive(once=True)
    seq = 4 if is_claimed else 5
    assert [row.values["seq"] for row in await archived(there, "a") if row.kind == ENTRY] == list(range(1, seq + 1))


class Slow(Copies):
    """An archive whose first row is long on its way: until the claim is renewed, for whatever that is worth."""

    def __init__(self, pair: Pair) -> None:
        """The same archive."""
        super().__init__(pair.database, pair.settings.tenant)
        self.is_renewed = asyncio.Event()

    async def rows(self, conversation_id: str, chosen: Chosen = EVERYTHING) -> AsyncIterator[Row]:
        """Yield the rows, inside the transaction."""
        async for row in super().rows(conversation_id, chosen):
            yield row
            await self.is_renewed.wait()


async def test_a_transaction_of_the_archive_waits_for_no_redis(
    here: Pair, there: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is renewed beside a long reading. A Redis that hangs then keeps neither the snapshot nor the rows."""
    await here.talk("a", most=3)
    await here.archive(once=True)
    await here.talk_on("a")
    slow, claim, claims = Slow(here), Backup._claim, list[str]()

    async def hanging(self: Backup, conversation_id: str) -> None:
        claims.append(conversation_id)
        if len(claims) > 1:
            slow.is_renewed.set()
            await asyncio.Event().wait()
        await claim(self, conversation_id)

    monkeypatch.setattr(Backup, "_claim", hanging)
    monkeypatch.setattr("conversation_actors.transfer.backing_up._CLAIM", timedelta(milliseconds=1))
    async with asyncio.timeout(60):
        await Backup(here.store, here.redis, slow).write(tmp_path / "1")
    assert claims == ["a", "a"]
    await there.restore(tmp_path / "1")
    await there.archive(once=True)
    assert [row.values["seq"] for row in await archived(there, "a") if row.kind == ENTRY] == [1, 2, 3, 4]


async def test_what_is_restored_is_what_was_there(here: Pair, there: Pair, tmp_path: Path) -> None:
    """Field by field: state, journal, tombstones, a backlog without its conversation; times to live as they were."""
    await here.talk("a", most=7)
    await here.archive(once=True)
    await here.talk("b", most=3)
    await here.talk("gone", most=2)
    await here.store.delete("gone", ttl=TTL)
    await here.talk("expired", most=2)
    for key in ("meta", "journal"):
        here.redis_client.delete(f"conv:default:{{expired}}:{key}")
    await here.back_up(tmp_path / "1")
    await there.restore(tmp_path / "1")
    for name in ("a", "b", "gone", "expired"):
        source, copy = await here.redis.read(name), await there.redis.read(name)
        assert abs(source.left_ms - copy.left_ms) < 120_000
        assert source == replace(copy, left_ms=source.left_ms, archive_left_ms=source.archive_left_ms)
        assert await archived(here, name) == await archived(there, name)
    assert await there.store.head("gone") is None
    await there.archive(once=True)
    assert [row.values["seq"] for row in await archived(there, "expired") if row.kind == ENTRY] == [1, 2]
    assert await archived(there, "gone") == []
    keys = Keys().permanent
    assert all(there.redis_client.ttl(key) > 0 or key.decode() in keys for key in there.redis_client.scan_iter())


async def test_only_an_empty_pair_is_restored_into(here: Pair, there: Pair, tmp_path: Path) -> None:
    """Redis or the archive, whichever has something; then nothing is written to either."""
    await here.talk("a", most=2)
    await here.back_up(tmp_path / "1")
    with pytest.raises(InvalidInputError, match="has a backup already"):
        await here.back_up(tmp_path / "1")
    with pytest.raises(ConflictError, match="nothing was restored: Redis must be empty"):
        await here.restore(tmp_path / "1")
    await there.writer.write("x", (await here.store.backlog().peek("a")).stored)
    with pytest.raises(ConflictError, match="nothing was restored: the archive must be empty"):
        await there.restore(tmp_path / "1")
    assert there.redis_client.dbsize() == 0
    assert await archived(there, "a") == []


async def test_a_damaged_backup_restores_nothing(here: Pair, there: Pair, tmp_path: Path) -> None:
    """Everything is read before anything is written."""
    await here.talk("a", most=2)
    await here.talk("b", most=2)
    await here.back_up(tmp_path / "1")
    whole = content(tmp_path / "1")
    for damaged in (whole[:-10], whole.replace(b"b says 2", b"b says 3")):
        (tmp_path / "1" / FILE).write_bytes(damaged)
        with pytest.raises(CorruptStateError):
            await there.restore(tmp_path / "1")
    assert await there.copies.is_empty()
    assert await there.redis.is_empty()


def redis_copy(*waiting: int, seq: int, archive: bool = True, deleted: bool = False) -> RedisCopy:
    """Return a conversation at `seq`, of which these entries wait."""
    meta = {b"life": b"l", b"seq": str(seq).encode(), b"base": b"0", b"start": b"0"} | (
        {b"deleted": b"1"} if deleted else {}
    )
    records = [b'["l",0,1,"o"]\n' + encode_entry(Entry(one, 1, 1.0, ItemsAppended(()))) for one in waiting]
    return RedisCopy(meta, None, (), 1, {b"backlog": b"x"} if archive else {}, tuple(records), 1)


@pytest.mark.parametrize(
    ("known", "copy", "expected"),
    [
        ({"l": 4}, redis_copy(5, 6, seq=6), True),
        ({"l": 4}, redis_copy(3, 4, 5, seq=5), True),
        ({"l": 4}, redis_copy(6, seq=6), False),
        ({"l": 4}, redis_copy(seq=4), True),
        ({"l": 4}, redis_copy(seq=5), False),
        ({}, redis_copy(1, 2, seq=2), True),
        ({}, redis_copy(2, seq=2), False),
        ({}, redis_copy(seq=2), False),
        ({}, redis_copy(seq=2, archive=False), True),
        ({"l": 4}, redis_copy(seq=5, deleted=True), False),
        ({}, redis_copy(seq=5, deleted=True), True),
    ],
)
def test_a_gap_between_archive_and_redis_is_seen(known: dict[str, int], copy: RedisCopy, *, expected: bool) -> None:
    """What was archived after the archive was read, and settled before Redis was, is in neither copy."""
    assert is_whole(known, copy) is expected
    assert copy_of(rows_of(copy)) == copy
    assert [decode_entry(decode_record(one).data or b"").seq for one in copy.backlog] == sorted(
        decode_entry(decode_record(one).data or b"").seq for one in copy.backlog
    )
