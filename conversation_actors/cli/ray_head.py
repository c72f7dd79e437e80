"""A Ray head node of our own, which runs beside any other Ray of the machine and ends without touching that."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from conversation_actors.cli.processes import kill_session, last_lines, with_environment
from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.free_port import free_port
from conversation_actors.runtime.ray_environment import MODE, chosen_token_variables, ensure_token, knows_tokens

ENVIRONMENT: dict[str, str | None] = {
    "RAY_ADDRESS": None,
    # Ray's servers listen on every interface: without a token anybody who reaches them may run code here.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # Ray would wait half a minute for all work to end, but owners, and workers kept ready, stay.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
"""What `ray start`, and everything that connects to it, needs. Given an address, Ray does not look for the token
itself."""
NO_ARCHIVER = "--no-archiver"
"""The option of `conversation-actors start` by which a head has no archiver beside it: who starts one here has its own,
or none."""
DIRECTORY_PREFIX = "ca-ray-"
CONVERSATIONS = 200
_OBJECT_STORE_BYTES = 100 << 20
_READY_SECONDS = 60.0
_STOP_SECONDS = 5.0
_POLL = 0.05
_HOST = "127.0.0.1"
_PORT_ATTEMPTS = 3
_PORT_TAKEN = "Failed to bind to address"
"""What Ray's client server says of a port that somebody else has got in the meantime; the whole head ends then."""
_LONGEST_PARENT = 40
"""Characters: a Unix socket's path has at most 107 (103 on macOS), of which Ray uses about 60."""


class RayHead:
    """`conversation-actors start --head`, in a session of its own, so that this terminal's Ctrl-C does not reach it.

    Its files are in a temporary directory, which is removed when it stops.
    """

    def __init__(
        self,
        *,
        cpus: int | None = None,
        spawned: Callable[[int | None, Path], None] = lambda _pid, _directory: None,
        pick_port: Callable[[str], int] = free_port,
    ) -> None:
        """Take as `cpus` what Ray is to believe it has; it keeps as many workers ready. None: what there is.

        `spawned` is told of the directory before anything is started in it, and then of the process as well. All other
        processes are in that one's session. `pick_port` is asked for the port of Ray's client server.
        """
        self._cpus, self._pick_port = cpus, pick_port
        self._spawned = spawned
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    async def start(self) -> str:
        """Start the head, and return its address when it is ready. Raises `ClusterUnavailableError`."""
        if knows_tokens():
            await asyncio.to_thread(ensure_token)
        for _ in range(_PORT_ATTEMPTS - 1):
            try:
                return await self._start_once()
            except ClusterUnavailableError as error:
                if _PORT_TAKEN not in str(error):
                    raise
                await asyncio.to_thread(self.stop, hurry=True)
        return await self._start_once()

    async def _start_once(self) -> str:
        directory = self._directory = _short_directory()
        client_port = self._client_port()
        self._spawn(directory, client_port)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                address = await self._address(directory)
                if client_port is not None:
                    await self._until_listening(client_port)
                return address
        except TimeoutError:
            message = f"Ray was not ready after {_READY_SECONDS:.0f} s: {self.last_words()}"
            raise ClusterUnavailableError(message) from None

    async def wait(self) -> int:
        """Wait until the head has ended, and return its exit code."""
        assert self._process is not None
        while (code := self._process.poll()) is None:  # noqa: ASYNC110  # nothing to wait for but the kernel
            await asyncio.sleep(_POLL * 4)
        return code

    def stop(self, *, hurry: bool = False) -> None:
        """End the head with all that it started, and remove its files; with `hurry`, without a goodbye. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            if not hurry:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    hurry = True
            kill_session(process.pid)
            process.wait()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def last_words(self) -> str:
        """Return the end of what the head printed."""
        return " ".join(last_lines(self._log, 4))[-800:] or "it said nothing"

    @property
    def _log(self) -> Path:
        assert self._directory is not None
        return self._directory / "ray-start.log"

    def _spawn(self, directory: Path, client_port: int | None) -> None:
        self._spawned(None, directory)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # arguments of our own, and no shell
                self._command(directory, client_port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._spawned(self._process.pid, directory)

    async def _address(self, directory: Path) -> str:
        """Return the address, which Ray writes into the directory as its last act of starting.

        Raises `ClusterUnavailableError` if the head ends before.
        """
        written = directory / "ray_current_cluster"
        while not (written.exists() and (address := written.read_text().strip())):
            await self._pause_while_running()
        return address

    async def _until_listening(self, client_port: int) -> None:
        """Wait for Ray's client server, which listens last of all; if it cannot, the whole head ends.

        Raises `ClusterUnavailableError` if the head ends before.
        """
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(_HOST, client_port)
                writer.close()
                return
            await self._pause_while_running()

    async def _pause_while_running(self) -> None:
        assert self._process is not None
        await asyncio.sleep(_POLL)
        if self._process.poll() is not None:
            message = f"Ray did not start: {self.last_words()}"
            raise ClusterUnavailableError(message)

    def _client_port(self) -> int | None:
        """Pick a port for Ray's client server; without grpc, with which Ray refuses to start one, return None."""
        return self._pick_port(_HOST) if find_spec("grpc") is not None else None

    def _command(self, directory: Path, client_port: int | None) -> list[str]:
        options = {
            "port": 0,
            "dashboard-agent-listen-port": 0,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "include-dashboard": "false",
            "include-log-monitor": "false",
            "log-color": "false",
            "object-store-memory": _OBJECT_STORE_BYTES,
            "resources": json.dumps({"conversation": CONVERSATIONS}),
        }
        if self._cpus is not None:
            options["num-cpus"] = self._cpus
        if client_port is not None:
            options["ray-client-server-port"] = client_port
        arguments = [temporary_directory(directory), *(f"--{name}={value}" for name, value in options.items())]
        command = [sys.executable, "-m", "conversation_actors.cli", "start", "--head", "--block", NO_ARCHIVER]
        return with_environment([*command, "--disable-usage-stats", *arguments], changes=ENVIRONMENT)


def temporary_directory(directory: Path) -> str:
    """Return the option by which a head of ours is known from all others."""
    return f"--temp-dir={directory}"


def variables_for_others(address: str) -> dict[str, str]:
    """Return the environment variables that anything needs to join a head of ours."""
    variables = {"RAY_ADDRESS": address}
    return variables | ({MODE: "token"} | chosen_token_variables() if knows_tokens() else {})


def _short_directory() -> Path:
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=parent if len(parent) <= _LONGEST_PARENT else "/tmp"))  # noqa: S108  # mkdtemp makes it private
