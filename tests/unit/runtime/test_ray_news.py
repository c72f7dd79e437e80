"""What Ray tells a client becomes lines of our log."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from ray._private import worker

from conversation_actors.runtime.ray_news import tell_by_log

DEATH = (
    "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the problem, "
    "check the logs for the dead worker. Lease ID: 01000000 Worker ID: 1862b186 Node ID: 13e8d6d8 "
    "Worker IP address: 192.0.2.2 Worker port: 33343 Worker PID: 13656 Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)
MANY = (
    "WARNING: 16 PYTHON worker processes have been started on node: 13e8d6d8 with address: 192.0.2.2, which is 4x the "
    "maximum expected startup concurrency (4)."
)
Say = Callable[..., None]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what Ray has printed itself."""
    found: list[Any] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, *_args, **_options: found.append(data))
    return found


@pytest.fixture
def say(printed: list[Any]) -> Say:
    """Have Ray tell something, as its listening thread does it."""
    assert printed == []
    for _ in range(2):
        tell_by_log()

    def tell(*lines: str, pid: object = "raylet") -> None:
        worker.print_to_stdstream({"lines": lines, "pid": pid, "is_err": False}, ignore_prefix=False)

    return tell


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_a_death_is_one_line(say: Say, printed: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """With the process, the kind of its end, and the node; nothing is printed."""
    say(DEATH)
    told = "process 13656 of the cluster has died (SYSTEM_ERROR); if it was an owner, Ray starts the next one"
    assert _lines(caplog) == [(logging.WARNING, told)]
    assert vars(caplog.records[0])["node_id"] == "13e8d6d8"
    assert printed == []


def test_many_processes_are_no_news(
    say: Say, printed: list[Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each owner has one: only who looks for everything is told."""
    caplog.set_level(logging.DEBUG)
    say(MANY)
    assert [level for level, _ in _lines(caplog)] == [logging.DEBUG]
    assert printed == []
    assert capsys.readouterr().out == ""


def test_anything_else_is_one_line_without_colour(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is, an operator may need it; what is endless is cut."""
    say("\x1b[33mThe actor cannot be\n  scheduled right now\x1b[0m", "x" * 1000)
    assert _lines(caplog) == [
        (logging.WARNING, "Ray tells: The actor cannot be scheduled right now"),
        (logging.WARNING, f"Ray tells: {'x' * 400} …"),
    ]


def test_what_workers_print_is_left_alone(say: Say, printed: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """An application that has joined with ``log_to_driver`` gets its workers' lines as ever."""
    say("hello", pid=4711)
    assert [one["lines"] for one in printed] == [("hello",)]
    assert caplog.records == []


def test_a_ray_that_prints_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put where nothing was."""
    monkeypatch.delattr(worker, "print_to_stdstream")
    tell_by_log()
    assert not hasattr(worker, "print_to_stdstream")
