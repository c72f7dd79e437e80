"""A client's way to its archive: nothing is imported or asked before it is needed, and who asks together waits once."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors.archive.database import Database
from conversation_actors.client.archive import ClientArchive
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError
from conversation_actors.settings import ArchiveSettings
from tests.support.fakes import brief, until

ROOT = Path(__file__).parents[3]


def archive_at(url: str) -> ClientArchive:
    """Make a client's archive."""
    archive = ArchiveSettings(url=SecretStr(url), timeout=timedelta(seconds=20))
    return ClientArchive(brief().model_copy(update={"archive": archive}))


class Checks:
    """Stands in for `Database.check`: counts, waits until it may go on, and raises what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take its place."""
        self.begun = self.closed = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        monkeypatch.setattr(Database, "check", lambda _: self._check())
        monkeypatch.setattr(Database, "aclose", lambda _: self._aclose())

    async def _check(self) -> None:
        self.begun += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error

    async def _aclose(self) -> None:
        self.closed += 1


@pytest.fixture
async def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    """Checks that a test decides on."""
    return Checks(monkeypatch)


async def test_who_asks_together_waits_for_one_answer(checks: Checks) -> None:
    """While a database is away, many calls take no longer than one; and one that gives up takes none with it."""
    archive = archive_at("sqlite+aiosqlite:///none.db")
    checks.error = ArchiveUnavailableError("away")
    asking = [asyncio.create_task(archive.database()) for _ in range(5)]
    await until(lambda: checks.begun == 1)
    asking[0].cancel()
    checks.may_end.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError, *[ArchiveUnavailableError] * 4]
    assert (checks.begun, checks.closed) == (1, 1)
    checks.error = None
    assert await archive.database() is await archive.database()
    assert checks.begun == 2
    await archive.aclose()
    await archive.aclose()
    assert checks.closed == 2


async def test_a_client_that_is_closed_waits_for_no_database(checks: Checks) -> None:
    """Who waited is told, and nothing stays open."""
    archive = archive_at("sqlite+aiosqlite:///none.db")
    asking = asyncio.create_task(archive.database())
    await until(lambda: checks.begun == 1)
    await archive.aclose()
    with pytest.raises(ArchiveUnavailableError, match="closed"):
        await asking
    assert checks.closed == 1


async def test_a_missing_extra_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no ImportError."""
    monkeypatch.delitem(sys.modules, "conversation_actors.archive.database")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ArchiveMisconfiguredError, match=r"psycopg: pip install 'conversation-actors\[archive\]'"):
        await archive_at("sqlite+aiosqlite:///none.db").database()


def test_whoever_has_no_archive_imports_no_library_of_databases() -> None:
    """It takes a third of a second, and may not be installed."""
    program = "import sys, conversation_actors.client.client; print([n for n in sys.modules if n == 'sqlalchemy'])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
