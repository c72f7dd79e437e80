"""The commands of webhooks: what they refuse, by which sentence, and what they print."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors.archive.database import Database
from conversation_actors.cli import delivering
from conversation_actors.errors import ArchiveMisconfiguredError, InvalidInputError
from conversation_actors.sources.groups import all_names
from tests.support.outboxes import Business
from tests.support.receivers import SECRET
from tests.support.sent_backend import sent_backend
from tests.support.waiting import wait_until

URL = "https://crm.example/hunter2"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With one endpoint, and an archive that is not there yet."""
    monkeypatch.chdir(tmp_path)
    for name in all_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONVERSATION_WEBHOOK_URL", URL)
    monkeypatch.setenv("CONVERSATION_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("CONVERSATION_TENANT", "tenant")
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", f"sqlite+aiosqlite:///{tmp_path}/archive.db")


async def filled(tmp_path: Path, **happening: Any) -> None:
    """Make the archive, with something in its outbox."""
    database = Database(SecretStr(f"sqlite+aiosqlite:///{tmp_path}/archive.db"), timeout=timedelta(seconds=60))
    await database.migrate()
    await Business(database).happen("c", 2, **happening)
    await database.aclose()


def replaying(**chosen: object) -> None:
    """Run the command with these options alone."""
    options = {"only_dead": False, "since": None, "conversation": None, "destination": None, **chosen}
    asyncio.run(delivering.replay(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": "999999-01-01"}, "since"),
        ({"only_dead": True, "destination": "nobody"}, "destination"),
        ({"conversation": ""}, "conversation"),
    ],
)
def test_a_replay_says_what_it_needs(chosen: dict[str, object], field: str, tmp_path: Path) -> None:
    """Before anything is sent once more."""
    asyncio.run(filled(tmp_path))
    with pytest.raises(InvalidInputError) as refused:
        replaying(**chosen)
    assert refused.value.field == field


def test_without_an_endpoint_there_is_nothing_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the variables."""
    monkeypatch.delenv("CONVERSATION_WEBHOOK_URL")
    with pytest.raises(InvalidInputError, match="CONVERSATION_WEBHOOK_URL and CONVERSATION_WEBHOOK_SECRET"):
        asyncio.run(delivering.deliver_until_stopped())


def test_without_tables_it_says_to_migrate() -> None:
    """In one sentence."""
    with pytest.raises(ArchiveMisconfiguredError, match="conversation-actors archive migrate"):
        asyncio.run(delivering.deliver_until_stopped())


def test_an_endpoint_that_is_configured_is_not_forgotten(tmp_path: Path) -> None:
    """It would get everything again."""
    asyncio.run(filled(tmp_path))
    with pytest.raises(InvalidInputError, match="is in the settings"):
        asyncio.run(delivering.forget("default"))


def test_the_status_shows_what_waits_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and as JSON."""
    asyncio.run(filled(tmp_path))
    asyncio.run(delivering.tell_status(as_json=False))
    told = capsys.readouterr().out
    assert told.startswith("default  https://crm.example\n  waiting   2 of 1 conversations, the oldest for ")
    asyncio.run(delivering.tell_status(as_json=True))
    printed = capsys.readouterr().out
    (one,) = json.loads(printed)
    assert (one["name"], one["waiting"], one["dead"], one["reasons"]) == ("default", 2, 0, [])
    assert "hunter2" not in told + printed


def test_a_back_end_is_a_destination_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has a status, replays and dead letters by its name, and is forgotten once it is out of the settings."""
    monkeypatch.delenv("CONVERSATION_WEBHOOK_URL")
    monkeypatch.setenv("CONVERSATION_BACKEND_URL", "https://backend.example/hunter2")
    asyncio.run(filled(tmp_path))
    asyncio.run(delivering.tell_status(as_json=False))
    replaying(only_dead=True, destination="backend")
    with pytest.raises(InvalidInputError, match="is in the settings"):
        asyncio.run(delivering.forget("backend"))
    monkeypatch.delenv("CONVERSATION_BACKEND_URL")
    asyncio.run(delivering.forget("backend"))
    told = capsys.readouterr().out
    assert told.startswith("backend  https://backend.example\n  waiting   2 of 1 conversations")
    assert "hunter2" not in told


async def test_a_back_end_alone_is_delivered_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the command is told to stop."""
    await filled(tmp_path, type="messages.removed", ids=None)
    monkeypatch.delenv("CONVERSATION_WEBHOOK_URL")
    async with sent_backend() as backend:
        monkeypatch.setenv("CONVERSATION_BACKEND_URL", backend.url)
        monkeypatch.setenv("CONVERSATION_BACKEND_PRIVATE_NETWORKS", "true")
        running = asyncio.create_task(delivering.deliver_until_stopped())
        await wait_until(lambda: asyncio.sleep(0, backend.keys == ["evt_1", "evt_2"]), "both", patience=90)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {one.path for one in backend.taken} == {"/v1/messages/removed"}
