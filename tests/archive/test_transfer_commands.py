"""The commands that bring conversations out and in, as somebody runs them in a terminal."""

import asyncio
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors.archive.database import Database
from conversation_actors.cli import app as cli
from conversation_actors.codec import encode_entry
from conversation_actors.items import Message
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store import open_store
from tests.archive.conftest import TIMEOUT
from tests.support.servers import Server
from tests.support.waiting import wait_for

TTL = timedelta(minutes=10)


@dataclass(frozen=True)
class Ran:
    """What a command said, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


class Place:
    """A Redis and an archive, as the environment names them, and the command on them."""

    def __init__(self, directory: Path, server: Server, database: int) -> None:
        """Make an empty archive; the Redis is one of the server's databases."""
        directory.mkdir()
        self.directory = directory
        self.redis = f"{server.url.rstrip('/').removesuffix('/0')}/{database}"
        self.archive = f"sqlite+aiosqlite:///{directory}/archive.db"
        self.settings = Settings(
            redis_url=SecretStr(self.redis), archive=ArchiveSettings(url=SecretStr(self.archive), timeout=TIMEOUT)
        )
        asyncio.run(self._migrate())
        client = server.client()
        client.select(database)
        client.flushdb()
        client.close()

    async def _migrate(self) -> None:
        database = Database.of(self.settings)
        await database.migrate()
        await database.aclose()

    def environment(self) -> dict[str, str]:
        """Return the variables of a terminal here."""
        return {"CONVERSATION_REDIS_URL": self.redis, "CONVERSATION_ARCHIVE_URL": self.archive}

    def says(self, conversation_id: str, *words: str) -> None:
        """Have a conversation in Redis, all of which waits for the archive."""

        async def say() -> None:
            store = open_store(self.settings)
            claim = (await store.activate(conversation_id, owner=f"o-{conversation_id}", create=True, ttl=TTL)).claim
            entries = [
                encode_entry(
                    Entry(
                        seq,
                        1,
                        float(seq),
                        ItemsAppended((Message(id=f"m{seq}", role="user", content=text, created_at=1.0).to_stored(),)),
                    )
                )
                for seq, text in enumerate(words, 1)
            ]
            await store.append(claim, expected_seq=0, entries=entries, ttl=TTL)
            await store.index(conversation_id, participants=(), ttl=TTL)
            await store.aclose()

        asyncio.run(say())

    def run(self, *arguments: str | Path, **variables: str) -> Ran:
        """Run a command to its end, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["conversation-actors", *map(str, arguments)])
            for name in set(os.environ) - set(environment := self._environment(variables)):
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(arguments), env=self._environment({}), stdout=pipe, stderr=pipe, text=True)

    def rows(self, table: str) -> int:
        """Count a table's rows, by a look from outside."""
        file = f"file:{self.directory}/archive.db?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=5)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # our own names

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Return the command with these arguments."""
        return [sys.executable, "-m", "conversation_actors.cli", *map(str, arguments)]

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONVERSATION_", "REDIS_"))}
        return kept | {"NO_COLOR": "1", "TERM": "dumb"} | self.environment() | variables


@pytest.fixture
def here(tmp_path: Path, server: Server) -> Place:
    """Where conversations are."""
    return Place(tmp_path / "here", server, 0)


@pytest.fixture
def there(tmp_path: Path, server: Server) -> Place:
    """Where they are to be."""
    return Place(tmp_path / "there", server, 1)


def test_what_was_acknowledged_a_moment_ago_is_exported_and_imported(here: Place, there: Place, tmp_path: Path) -> None:
    """No archiver has run: the export brings the archive up to Redis. Import and export again are the same bytes."""
    here.says("a", "Hello", "Bye")
    here.says("b/1", "Hi")
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    ran = here.run("export", "--all", "--to", first)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"2 conversations in 1 file, {first.stat().st_size} bytes: {first}\n"
    dry = there.run("import", first, "--dry-run")
    assert dry.stdout == "would import: 2 new (8 rows), 0 there already, 0 in conflict\n"
    assert there.run("import", first, first).stdout == "imported: 2 new (8 rows), 2 there already\n"
    assert there.run("export", "--all", "--to", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    one = here.run("export", "a", "--to", tmp_path / "a.json", "--format", "chat-context")
    assert one.returncode == 0, one.stderr
    assert [item["content"] for item in json.loads((tmp_path / "a.json").read_bytes())["items"]] == [["Hello"], ["Bye"]]


def test_mistakes_are_one_sentence_and_an_exit_code(here: Place, tmp_path: Path) -> None:
    """2 for what was given wrongly, 1 for what a person has to look into; no password and no traceback."""
    (tmp_path / "x.jsonl").write_text("{}\n")
    (tmp_path / "new.jsonl").write_text('{"kind":"header","format":"conversation-actors export","version":9}\n')
    (tmp_path / "cut.jsonl").write_text('{"kind":"header","format":"conversation-actors export","version":1}\n')
    (tmp_path / "nothing.db").touch()
    unmigrated = {"CONVERSATION_ARCHIVE_URL": f"sqlite+aiosqlite:///{tmp_path}/nothing.db"}
    secret = {"CONVERSATION_ARCHIVE_URL": "mysql://user:hunter2@h/d"}
    cases: list[tuple[tuple[str | Path, ...], dict[str, str], int, str]] = [
        (("export", "--to", "x"), {}, 2, "give an id, or --all"),
        (("export", "nobody", "--to", tmp_path / "y"), {}, 1, "'nobody' is neither in Redis nor in the archive"),
        (("export", "--all", "--to", tmp_path / "y"), {"CONVERSATION_ARCHIVE_URL": ""}, 1, "no archive is configured"),
        (("export", "--all", "--to", tmp_path / "y"), unmigrated, 1, "archive"),
        (("export", "--all", "--to", tmp_path / "y"), secret, 2, "archive.url"),
        (("export", "--all", "--to", "/dev/null/y"), {}, 1, "/dev/null"),
        (("import", tmp_path / "x.jsonl"), {}, 2, "not a file of the format 'conversation-actors export'"),
        (("import", tmp_path / "new.jsonl"), {}, 1, "written in version 9 of the format"),
        (("import", tmp_path / "cut.jsonl"), {}, 1, "cut off"),
        (("import", tmp_path / "no.jsonl"), {}, 1, "No such file"),
        (("import",), {}, 2, "give files, or --from-redis-lists"),
        (("import", "--from-redis-lists", "all"), {}, 2, "needs one *"),
        (("import", tmp_path / "x.jsonl", "--follow"), {}, 2, "follow: goes with --from-redis-lists"),
    ]
    for arguments, variables, code, told in cases:
        ran = here.run(*arguments, **variables)
        assert (ran.returncode, ran.stdout) == (code, ""), (arguments, ran.stderr)
        assert ran.stderr.startswith("conversation-actors: "), ran.stderr
        assert told in ran.stderr
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert "hunter2" not in ran.stderr
    assert not (tmp_path / "y").exists()


def test_an_import_that_was_killed_is_repeated(here: Place, there: Place, tmp_path: Path) -> None:
    """SIGKILL while it writes; then the export of what is there is the same bytes."""
    for number in range(25):
        here.says(f"c{number:02}", *(f"{number} {word}" for word in range(5)))
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert here.run("export", "--all", "--to", first).returncode == 0
    process = there.start("import", first)
    wait_for(lambda: there.rows("archive_lives") or process.poll() is not None, "a conversation")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert there.run("import", first).returncode == 0
    assert there.run("export", "--all", "--to", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()


def test_lists_are_followed_across_kills_until_ctrl_c(here: Place, server: Server) -> None:
    """Each element once; Ctrl-C ends it in order, with what was done; an unreadable element makes it exit with 1."""
    redis = server.client()
    total = 0

    def say(count: int) -> None:
        nonlocal total
        for _ in range(count):
            redis.rpush(
                "conversation:a:history", json.dumps({"role": "user", "content": str(total), "timestamp": total})
            )
            total += 1

    say(50)
    command = ("import", "--from-redis-lists", "conversation:*:history", "--follow")
    process = here.start(*command)
    wait_for(lambda: here.rows("archive_items") >= total, "what was there")
    say(30)
    process.kill()
    process.communicate()
    redis.rpush("conversation:a:history", "no message")
    process = here.start(*command)
    wait_for(lambda: here.rows("archive_items") > total, "what came later")
    deadline = time.monotonic() + 60
    process.send_signal(signal.SIGINT)
    told, complained = process.communicate(timeout=max(1, deadline - time.monotonic()))
    assert process.returncode == cli.EXIT_FAILED
    assert "1 of them unreadable" in told
    assert complained.startswith(f"conversation-actors import: conversation:a:history[{total}]: ")
    assert here.run("export", "a", "--to", here.directory / "a.json", "--format", "chat-context").returncode == 0
    items = json.loads((here.directory / "a.json").read_bytes())["items"]
    assert [item["content"] for item in items] == [[str(number)] for number in range(total)]
    redis.close()
