"""The archive of a `dev`: an SQLite database in its data directory, or the one that is configured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from conversation_actors.archive.address import sqlite_url
from conversation_actors.archive.extra import REMEDY, lacking, require_extra
from conversation_actors.cli.archiver_process import ArchiverProcess
from conversation_actors.settings import ArchiveSettings, Settings, WebhookSettings

_DATABASE, _LOG = "archive.db", "archiver.log"


@dataclass(frozen=True, slots=True)
class DevArchive:
    """An archive whose tables are there. `url` is for everybody; `log` is what its archiver logs to."""

    url: str
    log: Path

    def process(self, redis_url: str, *, spawned: Callable[[int], None]) -> ArchiverProcess:
        """Return an archiver, which nobody has started yet."""
        self.log.unlink(missing_ok=True)
        return ArchiverProcess(self.log, redis_url=redis_url, archive_url=self.url, spawned=spawned)


def dev_settings(directory: Path) -> Settings:
    """Return the settings of the environment, with an archive in a directory if they name none.

    So a back end, which needs an archive, may be set without one.
    """
    archive = ArchiveSettings()
    if archive.url is None:
        archive = archive.model_copy(update={"url": SecretStr(sqlite_url(directory / _DATABASE))})
    return Settings(archive=archive)


async def archive_for(directory: Path, console: Console) -> DevArchive | None:
    """Make sure that there is an archive, and say which; None without the extra, if none is configured.

    The tables of its own are made, or brought up to this version. Raises `ConversationError` if the one that is
    configured cannot be used.
    """
    settings, log = dev_settings(directory), directory / _LOG
    WebhookSettings()  # a mistake in them would end each archiver
    own = sqlite_url(directory / _DATABASE)
    assert settings.archive.url is not None
    configured = settings.archive.url.get_secret_value()
    if configured == own:
        if lacking() and settings.backend.url is None:
            console.print(f"Archive none: {REMEDY}", markup=False)
            return None
        require_extra()
        await _migrate(settings)
        console.print(f"Archive an SQLite database; its data stays in {directory}")
        return DevArchive(own, log)
    require_extra()
    await _check(settings)
    console.print("Archive yours, from the environment or .env")
    return DevArchive(configured, log)


async def _migrate(settings: Settings) -> None:
    """Make the tables of our own database, or bring them up to this version."""
    from conversation_actors.archive import service  # noqa: PLC0415  # SQLAlchemy takes its time

    await service.migrate(settings)


async def _check(settings: Settings) -> None:
    """Make sure that the configured database answers, and has the tables of this version."""
    from conversation_actors.archive import service  # noqa: PLC0415  # as above

    database = service.open_database(settings)
    try:
        await database.check()
    finally:
        await database.aclose()
