"""An archiver in a process of its own: how it is told, kept running and ended."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from conversation_actors.cli.archiver_process import COMMAND, ArchiverProcess
from conversation_actors.timing import Timing
from tests.support.processes import is_alive, sigkill
from tests.support.waiting import wait_for, wait_until

pytestmark = pytest.mark.processes

QUICK = Timing(archive_restart=(0.01, 0.02))
ECHO = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('in order'))); "
    "print(sys.stdin.read(), flush=True); signal.pause()"
)


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs it."""
    return (sys.executable, "-c", code)


def text(log: Path) -> str:
    """Return what was logged up to now."""
    return log.read_text() if log.exists() else ""


async def test_it_is_told_its_urls_and_nobody_else_is(tmp_path: Path) -> None:
    """Not by its command line, which anybody on the machine may read."""
    log = tmp_path / "log"
    archiver = ArchiverProcess(log, redis_url="redis://:secret@host", archive_url="a", command=python(ECHO))
    keeping = asyncio.create_task(archiver.keep())
    try:
        await wait_until(lambda: asyncio.sleep(0, text(log).endswith("\n")), "its word")
        assert json.loads(log.read_text()) == {"redis_url": "redis://:secret@host", "archive_url": "a"}
        assert not any("secret" in word for word in archiver._command)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await asyncio.to_thread(archiver.stop)
    assert log.read_text().endswith("in order\n")


async def test_one_that_dies_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each time; and what it said last is told."""
    pids: list[int] = []
    code = "import time; print('my last words', flush=True); time.sleep(600)"
    log = tmp_path / "log"
    archiver = ArchiverProcess(log, spawned=pids.append, command=python(code), timing=QUICK)
    keeping = asyncio.create_task(archiver.keep())
    try:
        for count in (1, 2, 3):
            await wait_until(lambda count=count: asyncio.sleep(0, text(log).count("\n") == count), "its word")  # type: ignore[misc]
            await asyncio.to_thread(sigkill, pids[-1])
            await wait_until(lambda count=count: asyncio.sleep(0, len(pids) == count + 1), "another")  # type: ignore[misc]
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await asyncio.to_thread(archiver.stop, hurry=True)
        await asyncio.to_thread(archiver.stop)
    assert not any(is_alive(pid) for pid in pids)
    assert [vars(record)["said"] for record in caplog.records] == ["my last words"] * 3


def test_one_that_cannot_begin_says_why_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret, and without a traceback."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1")
    log = tmp_path / "log"
    archiver = ArchiverProcess(log, archive_url="mysql://user:secret@host/x", command=COMMAND)
    process = archiver._start()
    wait_for(lambda: process.poll() is not None, "its end")
    assert process.returncode == 1
    told = log.read_text()
    assert told.count("\n") == 1
    assert "the archiver cannot go on: archive" in told
    assert "secret" not in told
