"""The archive of a `dev` is in its data directory, whatever that is called."""

from pathlib import Path

import pytest
from rich.console import Console

from conversation_actors.cli.dev_archive import archive_for, dev_settings


def files_in(directory: Path) -> set[str]:
    """Return the paths of everything below, without what SQLite keeps beside a database."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    return {path for path in found if not path.endswith(("-wal", "-shm"))}


@pytest.mark.parametrize("name", ["a #1", "why?", "100%41"])
async def test_the_archive_is_in_the_data_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a URL would mean something else by the directory's name; again with the URL that it has told."""
    monkeypatch.delenv("CONVERSATION_ARCHIVE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / name
    directory.mkdir()
    archive = await archive_for(directory, Console(quiet=True))
    assert archive is not None
    assert files_in(tmp_path) == {name, f"{name}/archive.db"}
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", archive.url)
    assert await archive_for(directory, Console(quiet=True)) == archive


async def test_a_back_end_needs_no_archive_of_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent to from the one in the data directory."""
    monkeypatch.delenv("CONVERSATION_ARCHIVE_URL", raising=False)
    monkeypatch.setenv("CONVERSATION_BACKEND_URL", "https://backend.example")
    monkeypatch.chdir(tmp_path)
    archive = await archive_for(tmp_path, Console(quiet=True))
    assert archive is not None
    settings = dev_settings(tmp_path)
    assert settings.archive.url is not None
    assert (settings.archive.url.get_secret_value(), settings.backend.shown) == (archive.url, "https://backend.example")
