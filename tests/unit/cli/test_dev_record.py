"""What a `dev` writes down, and what another one, or `stop`, makes of it."""

import asyncio
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from rich.console import Console

from conversation_actors.cli import dev, processes, stop
from conversation_actors.cli.archiver_process import ArchiverProcess
from conversation_actors.cli.dev_archive import DevArchive
from conversation_actors.cli.dev_record import DevFile, DevRecord, Phase, Process, digest, end_head, read
from conversation_actors.cli.processes import with_environment
from conversation_actors.cli.ray_head import DIRECTORY_PREFIX, ENVIRONMENT, RayHead
from conversation_actors.errors import InvalidInputError, StoreUnavailableError
from conversation_actors.store import EmbeddedServer
from tests.support.fakes import until
from tests.support.processes import is_alive
from tests.support.servers import wait_for

pytestmark = pytest.mark.processes

URL = "redis://default:secret@127.0.0.1:1/0"
VARIABLES = {"RAY_ADDRESS": "127.0.0.1:6379", "CONVERSATION_REDIS_URL": URL}
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Make a process in a session of its own, as Ray's head is one, and its child."""
    noted = tmp_path / "child"
    code = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen({SLEEP!r})\n"
        "pathlib.Path(sys.argv[1]).write_text(f'{child.pid}\\n')\ntime.sleep(600)"
    )
    leader = subprocess.Popen([sys.executable, "-c", code, str(noted)], start_new_session=True)
    wait_for(lambda: noted.exists() and noted.read_text().endswith("\n"), "the child")
    child = int(noted.read_text())
    try:
        yield leader.pid, child
    finally:
        if is_alive(child):
            os.kill(child, 9)
        leader.kill()
        leader.wait()


def console() -> tuple[Console, StringIO]:
    """Return a terminal, and what is shown there."""
    shown = StringIO()
    return Console(file=shown, highlight=False, soft_wrap=True, width=500), shown


def test_one_at_a_time_holds_it(tmp_path: Path) -> None:
    """While one does, another one gets nothing; afterwards it sees what the first has written."""
    first = DevFile.take(tmp_path / "data")
    assert first is not None
    with first as file:
        assert file.left is None
        assert DevFile.take(tmp_path / "data") is None
        file.write(phase=Phase.READY, variables=VARIABLES, head=Process.of(os.getpid()), head_directory="x")
        written = read(tmp_path / "data")
    second = DevFile.take(tmp_path / "data")
    assert second is not None
    with second as file:
        assert file.left == written
        assert written is not None
        assert (written.dev, written.phase) == (Process.of(os.getpid()), Phase.READY)
        assert written.variables == VARIABLES


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """One sentence with its name, the variable's, and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"file \(CONVERSATION_DATA_DIR\) cannot be used: File exists"):
        DevFile.take(tmp_path / "file")


def test_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    """Nobody else can read the record; behind its end no password is left in it."""
    file = DevFile.take(tmp_path / "data")
    assert file is not None
    with file:
        file.write(phase=Phase.READY, variables=VARIABLES, redis_digests=(digest(URL),))
        record = tmp_path / "data" / "dev.json"
        assert record.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    file = DevFile.take(tmp_path / "data")
    assert file is not None
    with file:
        file.close_left()
    assert "secret" not in record.read_text()
    left = read(tmp_path / "data")
    assert left is not None
    assert left.phase is Phase.ENDED


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"dev": 1, "phase": "x"}', '{"dev": {"pid": 1}, "phase": "ready"}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    """Of another version, or written by somebody else: the lock alone says whether one runs."""
    (tmp_path / "dev.json").write_text(text)
    assert read(tmp_path) is None


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])
def test_a_process_is_known_again(monkeypatch: pytest.MonkeyPatch, proc: str) -> None:
    """By id and start time, by /proc and by ps; another start time is another process, and a dead one is none."""
    monkeypatch.setattr(processes, "_PROC", Path(proc))
    running = subprocess.Popen(SLEEP)
    process = Process.of(running.pid)
    assert process.is_running
    assert not process.is_replaced
    other = Process(running.pid, "earlier")
    assert other.is_replaced
    assert not other.is_running
    running.kill()
    wait_for(lambda: not process.is_running, "its end")  # not collected yet
    running.wait()
    assert not Process.of(running.pid).started
    assert not process.is_replaced
    assert replace(process, boot="an earlier one").is_replaced


def test_what_a_dead_one_left_of_ray_is_ended(session: tuple[int, int], tmp_path: Path) -> None:
    """The whole session, and its directory; the count is told."""
    leader, child = session
    made = tmp_path / f"{DIRECTORY_PREFIX}test"
    made.mkdir()
    record = DevRecord(Process(1, "x"), head=Process.of(leader), head_directory=str(made))
    assert end_head(record) == 2
    assert not is_alive(child)
    assert not made.exists()


def test_what_is_left_without_its_first_process_is_ended_too(session: tuple[int, int]) -> None:
    """`ray start` was killed, and what it had started lives on in its session."""
    leader, child = session
    head = Process.of(leader)
    os.kill(leader, 9)
    wait_for(lambda: not head.is_running, "its end")
    assert end_head(DevRecord(Process(1, "x"), head=head)) == 1
    assert not is_alive(child)


def test_a_head_that_was_not_noted_any_more_is_ended_too(tmp_path: Path) -> None:
    """`dev` was killed between starting it and writing down its number: it is known by its directory."""
    made = tmp_path / f"{DIRECTORY_PREFIX}test"
    made.mkdir()
    head = subprocess.Popen([*SLEEP, f"--temp-dir={made}"], start_new_session=True)
    other = subprocess.Popen([*SLEEP, f"--temp-dir={made}2"], start_new_session=True)
    try:
        assert end_head(DevRecord(Process(1, "x"), head_directory=str(made))) == 1
        assert head.wait(10) == -signal.SIGKILL
        assert is_alive(other.pid)
    finally:
        for process in (head, other):
            process.kill()
            process.wait()
    assert not made.exists()


def test_a_directory_is_noted_before_anything_is_started_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that there is no moment at which a kill leaves something that nobody knows of."""
    noted: list[int | None] = []

    def start(*_: object, **__: object) -> SimpleNamespace:
        assert noted == [None]
        return SimpleNamespace(pid=7)

    monkeypatch.setattr("conversation_actors.cli.ray_head.subprocess.Popen", start)
    head = RayHead(spawned=lambda pid, _: noted.append(pid))
    head._directory = tmp_path
    head._spawn(tmp_path, None)
    assert noted == [None, 7]


def test_another_process_with_the_same_id_is_left_alone(session: tuple[int, int], tmp_path: Path) -> None:
    """A record of last week names a number that somebody else has by now; so for a directory that is not ours."""
    leader, child = session
    record = DevRecord(Process(1, "x"), head=Process(leader, "last week"), head_directory=str(tmp_path))
    assert end_head(record) == 0
    assert is_alive(leader)
    assert is_alive(child)
    assert tmp_path.exists()


async def test_a_second_one_finds_the_first(tmp_path: Path) -> None:
    """It gets the record of the one that is ready, and tells what another terminal needs."""
    file = DevFile.take(tmp_path)
    assert file is not None
    terminal, shown = console()
    with file:
        file.write(phase=Phase.READY, variables=VARIABLES, redis_digests=(digest(URL),))
        found = await dev._take_or_find(tmp_path, terminal)
    assert isinstance(found, DevRecord)
    dev._tell_of_other(found, None, terminal, as_json=False)
    told = shown.getvalue()
    assert f"running already (process {os.getpid()})" in told
    assert "conversation-actors stop" in told
    for name, value in VARIABLES.items():
        assert f"export {name}={value}\n" in told


async def test_a_second_one_waits_for_the_first(tmp_path: Path) -> None:
    """One that is starting is told of, once, and waited for; one that ends lets it start itself."""
    file = DevFile.take(tmp_path)
    assert file is not None
    terminal, shown = console()
    file.write()
    waiting = asyncio.create_task(dev._take_or_find(tmp_path, terminal))
    while not shown.getvalue():  # noqa: ASYNC110  # said by what is waited for
        await asyncio.sleep(0.01)
    file.write(phase=Phase.ENDED)
    file.__exit__(None, None, None)
    taken = await waiting
    assert isinstance(taken, DevFile)
    with taken:
        assert shown.getvalue().count("is starting; waiting for it") == 1


@pytest.mark.parametrize(
    "text", ["", "{}", '{"dev": {"pid": 1, "started": ""}, "phase": "ready", "redis_digests": []}']
)
async def test_who_holds_the_directory_without_a_word_is_told_of(tmp_path: Path, text: str) -> None:
    """A `stop`, or a `dev` of another version: nobody waits in silence."""
    file = DevFile.take(tmp_path)
    assert file is not None
    (tmp_path / "dev.json").write_text(text)
    terminal, shown = console()
    waiting = asyncio.create_task(dev._take_or_find(tmp_path, terminal))
    await until(lambda: bool(shown.getvalue()) or waiting.done())
    file.__exit__(None, None, None)
    taken = await waiting
    assert isinstance(taken, DevFile)
    with taken:
        assert shown.getvalue() == f"Another process works in {tmp_path}; waiting for it …\n"


def test_a_record_of_a_newer_version_is_read(tmp_path: Path) -> None:
    """What it says beside is passed over: what it has started is found, and ended."""
    file = DevFile.take(tmp_path)
    assert file is not None
    with file:
        file.write(phase=Phase.READY, head=Process(7, "x"))
    told = json.loads((tmp_path / "dev.json").read_text())
    told["head"]["colour"] = told["colour"] = "blue"
    (tmp_path / "dev.json").write_text(json.dumps(told))
    found = read(tmp_path)
    assert found is not None
    assert found.head == Process(7, "x")


def test_a_second_one_with_another_redis_is_refused() -> None:
    """It is told how to have two; the first one's own URL, pasted into its terminal, is no other."""
    record = DevRecord(Process(7, "x"), Phase.READY, variables=VARIABLES, redis_digests=(digest(URL),))
    terminal, shown = console()
    with pytest.raises(InvalidInputError, match="CONVERSATION_DATA_DIR"):
        dev._tell_of_other(record, "redis://other/0", terminal, as_json=False)
    assert not shown.getvalue()
    dev._tell_of_other(record, URL, terminal, as_json=False)
    assert "nothing is started" in shown.getvalue()


@pytest.mark.parametrize("phase", list(Phase))
def test_a_url_that_was_pasted_means_the_server_of_our_own(tmp_path: Path, phase: Phase) -> None:
    """Also when the one that printed it has ended: its server is started anew, and the URL is no foreign one's."""
    file = DevFile.take(tmp_path)
    assert file is not None
    terminal, _ = console()
    with file:
        file.write(phase=phase, has_server=True, redis_digests=(digest("redis://newer/0"), digest(URL)))
    file = DevFile.take(tmp_path)
    assert file is not None
    with file:
        assert dev._Stack(file, URL, terminal, dev._Signals())._server is not None
        assert dev._Stack(file, "redis://other/0", terminal, dev._Signals())._server is None


async def test_a_redis_that_cannot_be_used_is_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told to export a URL that works for nobody."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CONVERSATION_REDIS_URL", URL)
    monkeypatch.setattr(RayHead, "start", lambda _self: pytest.fail("Ray is started"))
    monkeypatch.setattr(dev._Signals, "listen", lambda _self: None)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1/0, from CONVERSATION_REDIS_URL"):
        await dev.run(as_json=False)
    assert "Redis" not in capsys.readouterr().out


def test_ray_is_told_to_end_at_once() -> None:
    """By the variable that this Ray reads; an older one does not wait until nobody works there."""
    code = "from ray._private import ray_constants as c; print(getattr(c, 'RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S', 0))"
    command = with_environment([sys.executable, "-c", code], changes=ENVIRONMENT)
    assert float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == 0


def test_stop_where_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, no error, and no directory is made for it."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path / "none"))
    stop.run()
    assert capsys.readouterr().out == f"Nothing of `dev` is running on {tmp_path / 'none'}.\n"
    assert not (tmp_path / "none").exists()


def test_stop_ends_what_a_killed_one_left(
    tmp_path: Path,
    session: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says what; the second time there is nothing."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path))
    file = DevFile.take(tmp_path)
    assert file is not None
    with file:
        file.write(phase=Phase.READY, head=Process.of(session[0]))
    stop.run()
    assert "Ended: 2 processes of Ray, left by a killed `dev`" in capsys.readouterr().out
    assert not is_alive(session[1])
    stop.run()
    assert "Nothing of `dev`" in capsys.readouterr().out


def test_stop_ends_a_running_one_by_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM, as a service manager would; then it waits until it has let go."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path))
    code = (
        "import pathlib, signal, sys\n"
        "from conversation_actors.cli.dev_record import DevFile, Phase\n"
        "file = DevFile.take(pathlib.Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "file.write(phase=Phase.READY); print('held', flush=True); signal.pause()"
    )
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "held\n"
    try:
        stop.run()
    finally:
        running.kill()
        running.communicate()
    told = capsys.readouterr().out
    assert f"Stopping `dev` (process {running.pid}), it saves every conversation first …" in told
    assert "Ended: `dev`, with all that it had started." in told


def test_stop_hurries_nobody_who_stops_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second signal would have `dev` stop without saving anything: Ctrl-C was pressed, or another `stop` is at it."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path))
    code = (
        "import pathlib, signal, sys, time\n"
        "from conversation_actors.cli.dev_record import DevFile, Phase\n"
        "file = DevFile.take(pathlib.Path(sys.argv[1]))\n"
        "file.write(phase=Phase.STOPPING); print('saving', flush=True); time.sleep(0.5); print('saved', flush=True)"
    )
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "saving\n"
    stop.run()
    assert running.communicate()[0] == "saved\n"
    assert f"`dev` (process {running.pid}) is stopping already, it saves every conversation first …" in (
        capsys.readouterr().out
    )


async def test_who_saves_is_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another `dev` then waits instead of naming what is about to end, and `stop` does not hurry it."""
    phases = []

    async def drain(_address: str, _hurry: asyncio.Event) -> str:
        phases.append(phase_of(tmp_path))
        return "Saved: 0."

    stack, signals = a_stack(tmp_path, monkeypatch)
    monkeypatch.setattr(dev, "_drain", drain)
    running = asyncio.create_task(stack.run(as_json=True))
    await until(lambda: phase_of(tmp_path) is Phase.READY)
    signals.stop.set()
    assert await running == 0
    assert [*phases, phase_of(tmp_path)] == [Phase.STOPPING, Phase.ENDED]


async def test_a_record_that_cannot_be_written_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has removed the data directory while it ran, or the disk is full: what was started is ended."""
    stack, signals = a_stack(tmp_path / "data", monkeypatch)
    monkeypatch.setattr(dev, "_drain", lambda *_: asyncio.sleep(0, "Saved: 0."))
    running = asyncio.create_task(stack.run(as_json=True))
    await until(lambda: phase_of(tmp_path / "data") is Phase.READY)
    shutil.rmtree(tmp_path / "data")
    signals.stop.set()
    assert await running == 0
    assert cast("Head", stack._head).is_stopped


class Head:
    """Ray's head as `dev` sees it."""

    def __init__(self) -> None:
        """Begin to run, until it is stopped."""
        self.is_stopped = False

    async def start(self) -> str:
        """At once."""
        return "127.0.0.1:6379"

    async def wait(self) -> int:
        """For ever."""
        await asyncio.Event().wait()
        return 0

    def stop(self, *, hurry: bool) -> None:
        """Be stopped."""
        self.is_stopped = not hurry


def phase_of(directory: Path) -> Phase | None:
    """How far the last `dev` there is."""
    found = read(directory)
    return None if found is None else found.phase


def a_stack(
    directory: Path, monkeypatch: pytest.MonkeyPatch, archive: DevArchive | None = None
) -> tuple[dev._Stack, dev._Signals]:
    """Return what a `dev` starts beside a Redis that is not its own, without any process but an archive's."""
    monkeypatch.setattr(dev, "RayHead", lambda **_: Head())
    monkeypatch.setattr(dev, "_check_redis", lambda _: asyncio.sleep(0))
    monkeypatch.setattr(dev, "archive_for", lambda *_: asyncio.sleep(0, archive))
    file = DevFile.take(directory)
    assert file is not None
    signals = dev._Signals()
    return dev._Stack(file, "redis://other/0", console()[0], signals), signals


class Archive(DevArchive):
    """An archive whose archiver does nothing."""

    def process(self, redis_url: str, *, spawned: Callable[[int], None]) -> ArchiverProcess:
        """Return one that ends when it is told to."""
        command = (sys.executable, "-c", "import signal; signal.pause()")
        return ArchiverProcess(self.log, redis_url=redis_url, spawned=spawned, command=command)


async def test_its_archiver_is_noted_told_of_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is among the others, and the process ends with the rest."""
    archive = Archive("sqlite+aiosqlite:///x", tmp_path / "archiver.log")
    stack, signals = a_stack(tmp_path, monkeypatch, archive)
    monkeypatch.setattr(dev, "_drain", lambda *_: asyncio.sleep(0, "Saved: 0."))
    running = asyncio.create_task(stack.run(as_json=True))
    await until(lambda: (found := read(tmp_path)) is not None and found.archiver is not None)
    record = read(tmp_path)
    assert record is not None
    assert record.archiver is not None
    assert record.archiver.is_running
    assert record.variables["CONVERSATION_ARCHIVE_URL"] == archive.url
    signals.stop.set()
    assert await running == 0
    assert not record.archiver.is_running


def test_stop_ends_the_archiver_that_a_killed_one_left(
    tmp_path: Path, session: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so; an id that is another process's by now is left alone."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path))
    file = DevFile.take(tmp_path)
    assert file is not None
    with file:
        file.write(phase=Phase.READY, archiver=replace(Process.of(session[0]), started="before"))
    stop.run()
    assert is_alive(session[0])
    file = DevFile.take(tmp_path)
    assert file is not None
    with file:
        file.write(phase=Phase.READY, archiver=Process.of(session[0]))
    capsys.readouterr()
    stop.run()
    assert "Ended: the archiver, left by a killed `dev`" in capsys.readouterr().out
    assert not is_alive(session[1])


def test_a_redis_of_another_directory_is_worked_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URL, pasted where another data directory is set, leads to its `dev`; any other Redis does not."""
    monkeypatch.setenv("CONVERSATION_DATA_DIR", str(tmp_path / "here"))
    monkeypatch.setattr(EmbeddedServer, "directory_of", {URL: tmp_path / "there"}.get)
    assert dev._directory(URL) == tmp_path / "there"
    assert dev._directory("redis://other/0") == dev._directory(None) == tmp_path / "here"


def test_a_closed_terminal_is_a_ctrl_c(tmp_path: Path) -> None:
    """SIGHUP, and a terminal that takes no word any more: `dev` stops in order, and leaves nothing."""
    code = (
        "import asyncio, pathlib, sys\nfrom conversation_actors.cli.dev import _Signals\n"
        "async def main():\n"
        "    signals = _Signals(); signals.listen(); print('ready', flush=True)\n"
        "    await signals.stop.wait(); print('stopping', flush=True)\n"
        "    pathlib.Path(sys.argv[1]).write_text('in order')\n"
        "asyncio.run(main())"
    )
    mine, terminal = pty.openpty()
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "told")], stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while not shown.endswith(b"\n"):
        shown += os.read(mine, 100)
    wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_SLEEPING, "the program to wait")
    os.close(mine)
    running.send_signal(signal.SIGHUP)
    assert running.wait(20) == 0
    assert (tmp_path / "told").read_text() == "in order"
