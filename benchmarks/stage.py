"""Start what a benchmark measures: a Valkey, Ray clusters and a driver for each. All of it is ended afterwards."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.nodes import Cluster, Variant, clean_environment, clusters
from conversation_actors.cli.processes import kill_session, last_lines
from conversation_actors.store import EmbeddedServer

PATIENCE_SECONDS = 420.0
"""The longest time for one command; a plain cluster that opens dozens of conversations on two busy cores is slow."""
DEFAULT_DETECTION = {
    "RAY_timeout_ms_task_wait_for_death_info": "1000",
    "RAY_core_worker_internal_heartbeat_ms": "1000",
}
"""Ray's own values. If they are set beforehand, the client does not change them (see `quick_crash_detection`)."""


class DriverError(Exception):
    """A failure of a command in its driver, or a command without an answer."""


class Driver:
    """A `benchmarks.driver` process, as the suite uses it."""

    def __init__(self, cluster: Cluster, redis_url: str, log: Path, *, prefix: Sequence[str] = ()) -> None:
        """Start the process, with `prefix` before its command. It joins the cluster with its first command."""
        self.cluster, self._log = cluster, log
        environment = clean_environment(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=cluster.token, BENCH_REDIS_URL=redis_url,
            **(DEFAULT_DETECTION if cluster.variant is Variant.PLAIN else {}),
        )  # fmt: skip
        pool = "pool" if cluster.variant is Variant.WARM else "none"
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "benchmarks.driver", cluster.address, pool],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, cwd=log.parent, start_new_session=True,
            )  # fmt: skip
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def variant(self) -> Variant:
        """The variant of the driver's cluster."""
        return self.cluster.variant

    def call(self, command: str, **given: Any) -> Any:
        """Run a command, and return what it returns. Raises `DriverError` if it fails or there is no answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": command, "given": given}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=PATIENCE_SECONDS)
        except (BrokenPipeError, queue.Empty):
            line = b""
        answer = json.loads(line) if line else {"error": f"no answer; {' '.join(last_lines(self._log, 4))[-600:]}"}
        if "error" in answer:
            message = f"{self.variant} {command}: {answer['error']}"
            raise DriverError(message)
        return answer["answer"]

    def close(self) -> None:
        """End the process, and everything that it has started."""
        kill_session(self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # `close` may close the pipe meanwhile
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put(b"")


@dataclass(frozen=True)
class Stage:
    """What a benchmark is given: how thorough to be, a way to tell its progress, and a way to start what it needs."""

    is_quick: bool
    tell: Callable[[str], None]
    modules_redis: str | None = None
    """The URL of a Redis with the modules JSON and search, for peers that need them."""

    def pick(self, full: int, quick: int) -> int:
        """Return the number of rounds, or of anything else, for this kind of run."""
        return quick if self.is_quick else full

    def pick_many(self, full: tuple[int, ...], quick: tuple[int, ...]) -> tuple[int, ...]:
        """Return the numbers of rounds, or of anything else, for this kind of run."""
        return quick if self.is_quick else full

    @contextmanager
    def valkey(self) -> Iterator["Valkey"]:
        """Run an empty server, and remove its files at the end."""
        directory = Path(tempfile.mkdtemp(prefix="cab-redis-", dir="/tmp"))  # mkdtemp makes it private
        try:
            with EmbeddedServer(directory / "data") as server:
                yield Valkey(server.url, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextmanager
    def drivers(self, *wanted: Cluster) -> Iterator["Drivers"]:
        """Run the clusters side by side, each with a driver, and all with one Valkey."""
        with ExitStack() as stack:
            server = stack.enter_context(self.valkey())
            self.tell(f"starting {' and '.join(cluster.variant for cluster in wanted)}")
            stack.enter_context(clusters(*wanted))
            started: dict[Variant, Driver] = {}
            for cluster in wanted:
                driver = Driver(cluster, server.url, server.directory / f"{cluster.variant}.log")
                stack.callback(driver.close)
                started[cluster.variant] = driver
            yield Drivers(server, started)


@dataclass(frozen=True)
class Valkey:
    """A running server."""

    url: str
    directory: Path


@dataclass(frozen=True)
class Drivers:
    """One driver for each variant, and the Valkey they share."""

    valkey: Valkey
    by_variant: Mapping[Variant, Driver]

    def __getitem__(self, variant: Variant) -> Driver:
        return self.by_variant[variant]

    def __iter__(self) -> Iterator[Driver]:
        return iter(self.by_variant.values())


class Signals:
    """A context in which SIGTERM ends a run as Ctrl-C does, and neither interrupts the clean-up after that."""

    def __enter__(self) -> Self:
        """Install the handlers of both signals."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore Python's default handlers."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @staticmethod
    def _stop(number: int, _: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(2, b"\nending what was started ...\n")
        raise KeyboardInterrupt(number)
