"""An archiver beside a Ray head, with a head that is none."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from conversation_actors.cli import beside_head
from conversation_actors.cli.beside_head import archiver_beside
from conversation_actors.errors import InvalidInputError
from tests.support.processes import sigkill
from tests.support.waiting import wait_for

pytestmark = pytest.mark.processes

URL = "CONVERSATION_ARCHIVE_URL"
STARTER = """
import subprocess, sys
from conversation_actors.cli.beside_head import archiver_beside
with archiver_beside(["--head"]):
    command = ["gcs_server", "-c", "kill -STOP $$", "", f"--log_dir={sys.argv[1]}"]
    nowhere = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
    head = subprocess.Popen(command, executable="/bin/bash", **nowhere)
    print(head.pid, flush=True)
    raise SystemExit(0)
"""
"""Starts what looks like Ray's control store, as `ray start --head` does, and ends."""


def keepers(url: str) -> list[psutil.Process]:
    """Return the processes that have this archive in their environment and are about archiving."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(URL) == url and "conversation_actors.cli." in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def archivers(url: str) -> list[int]:
    """Return those that archive."""
    return [one.pid for one in keepers(url) if "archiver_process" in " ".join(one.cmdline())]


def test_it_outlives_the_terminal_and_ends_with_the_head(tmp_path: Path) -> None:
    """It is started again when it dies, and says where it logs."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'archive.db'}"
    environment = {**os.environ, URL: url, "CONVERSATION_REDIS_URL": "redis://127.0.0.1:1"}
    started = subprocess.run(
        [sys.executable, "-c", STARTER, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    try:
        log = tmp_path / "conversation_archiver.log"
        assert started.returncode == 0, started.stderr
        assert f"its log is {log}" in started.stderr
        wait_for(lambda: log.exists() and "waits to be archived" in log.read_text(), "it to wait for its servers")
        (first,) = archivers(url)
        sigkill(first)
        wait_for(lambda: archivers(url) not in ([], [first]), "another one")
        sigkill(int(started.stdout))
        wait_for(lambda: not keepers(url), "it to end with the head")
    finally:
        if started.stdout:
            sigkill(int(started.stdout))
        for process in keepers(url):
            process.kill()


def test_only_a_head_with_an_archive_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not Ray's is taken out of its options, and nothing else."""
    monkeypatch.setattr(beside_head, "_keeper", lambda: pytest.fail("an archiver is started"))
    with archiver_beside(["--head", "--port=1"]) as arguments:
        assert arguments == ["--head", "--port=1"]
    monkeypatch.setenv(URL, "sqlite+aiosqlite:///x")
    for given in (["--address=x:1"], ["--head", "--help"], ["--head", "--no-archiver", "--block"]):
        with archiver_beside(given) as arguments:
            assert arguments == [argument for argument in given if argument != "--no-archiver"]


def test_a_head_without_the_extra_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And starts all the same."""
    monkeypatch.setattr(beside_head, "_keeper", lambda: pytest.fail("an archiver is started"))
    monkeypatch.setattr(beside_head, "lacking", lambda: ("sqlalchemy",))
    monkeypatch.setenv(URL, "sqlite+aiosqlite:///x")
    with archiver_beside(["--head"]) as arguments:
        assert arguments == ["--head"]
    assert "archive none: sqlalchemy is not installed" in capsys.readouterr().err


def test_a_head_that_does_not_come_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it from that is raised, and no archiver waits for it for ever."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'none.db'}"
    code = (
        "from conversation_actors.cli.beside_head import archiver_beside\n"
        "with archiver_beside(['--head']): raise SystemExit('no head')"
    )
    environment = {**os.environ, URL: url}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == "no head\n"
    wait_for(lambda: not keepers(url), "nothing to be left")


def test_a_wrong_setting_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by every other command."""
    monkeypatch.setenv("CONVERSATION_ARCHIVE_TIMEOUT", "soon")
    with pytest.raises(InvalidInputError, match="timeout"), archiver_beside(["--head"]):
        pytest.fail("it begins")


def test_a_back_end_without_an_archive_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever be sent to it."""
    monkeypatch.setenv("CONVERSATION_BACKEND_URL", "https://backend.example")
    with pytest.raises(InvalidInputError, match=URL), archiver_beside(["--head"]):
        pytest.fail("it begins")
