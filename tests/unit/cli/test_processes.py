"""Processes of other programs, as this system tells of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conversation_actors.cli import processes
from conversation_actors.cli.processes import is_running, kill_session, session_members

FAMILY = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["proc", "ps"])
def _told_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By Linux's own files, where no program is called, and by ``ps`` where there are none."""
    if request.param == "ps":
        monkeypatch.setattr(processes, "_PROC", tmp_path)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    """Make a process in a session of its own, which has started another one."""
    command = [sys.executable, "-c", FAMILY]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        kill_session(started.pid)


@pytest.mark.usefixtures("_told_by")
def test_a_session_is_found_and_ended(leader: subprocess.Popen[str]) -> None:
    """With what was started in it; a dead process that nobody has collected yet counts as none."""
    members = session_members(leader.pid)
    assert len(members) == 2
    assert all(is_running(pid) for pid in members)
    kill_session(leader.pid)
    assert session_members(leader.pid) == []
    assert not is_running(leader.pid)
