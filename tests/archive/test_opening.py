"""Opening what Redis has no more while programs of two versions run, and while much waits for the archive."""

import secrets
import threading
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from conversation_actors import ConversationClient
from conversation_actors.archive import replaying, reviving
from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import entries
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import decode_entry
from conversation_actors.errors import ConversationNotFoundError, IncompatibleVersionError
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.state import Entry, Limits
from conversation_actors.store.backlog import Batch
from tests.support.archive_contents import change
from tests.support.archive_records import Author

HERE = "room-1"
NEWER = b'{"v":99,"seq":2,"epoch":1,"at":1.0,"event":"poem"}\n'


def settings_of(url: str, *, required: bool = False) -> Settings:
    """Settings with this archive, and with an empty store."""
    archive = ArchiveSettings(url=SecretStr(url), required=required, timeout=timedelta(seconds=20))
    return Settings(redis_url=SecretStr(f"memory://{secrets.token_hex(4)}"), archive=archive)


async def test_calls_begin_after_others_have_migrated_the_archive(database_url: str, database: Database) -> None:
    """Tables of a newer version are as good as none: they matter to who asks for what there is, or must have them."""
    await change(database, "UPDATE archive_version SET version_num = '0999'")
    async with ConversationClient(settings_of(database_url)) as client:
        assert (await client.open(HERE)).seq == 0
        assert client.failures["archive"] == 1
        with pytest.raises(IncompatibleVersionError, match="0999"):
            await client.open("another", create=False)
    async with ConversationClient(settings_of(database_url, required=True)) as client:
        with pytest.raises(IncompatibleVersionError, match="0999"):
            await client.open(HERE)


async def test_what_a_newer_version_has_written_is_not_begun_anew(database_url: str, database: Database) -> None:
    """It is there, and whoever cannot read it must not write another one in its place."""
    await Writer(database, "default").write(HERE, Author().talk(1, 2))
    async with database.writing("writing as a newer version") as connection:
        await connection.execute(update(entries).where(entries.c.seq == 2).values(data=NEWER))
    async with ConversationClient(settings_of(database_url)) as client:
        with pytest.raises(IncompatibleVersionError):
            await client.open(HERE)
        assert client.failures == {}
        with pytest.raises(ConversationNotFoundError):
            await client.open("another", create=False)


@pytest.mark.parametrize("is_much", [True, False])
async def test_much_that_waits_is_read_beside_the_event_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, is_much: bool
) -> None:
    """Others go on meanwhile; what is little is read at once."""
    threads: set[threading.Thread] = set()

    def decode(data: bytes) -> Entry:
        threads.add(threading.current_thread())
        return decode_entry(data)

    for module in (reviving, replaying):
        monkeypatch.setattr(module, "decode_entry", decode)
    words = "x" * (100 << 10 if is_much else 10)
    waiting = Batch("b", 0, tuple(Author().says(seq, words=words) for seq in range(1, 5)))
    asleep = await reviving.state_of(database, "default", HERE, limits=Limits(), waiting=waiting)
    assert asleep is not None
    assert asleep.state.seq == 4
    assert (threading.main_thread() in threads) is not is_much
