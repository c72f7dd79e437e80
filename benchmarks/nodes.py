"""Run the benchmarks' own Ray nodes, on 127.0.0.1 unless told otherwise.

Each is a process session of its own and is ended by its id.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

import psutil

from conversation_actors.cli.processes import kill_session, last_lines, session_members
from conversation_actors.free_port import free_port

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0
HERE = "127.0.0.1"
OBJECT_STORE_BYTES = 100 << 20
ROOM = 5000
"""The number of conversations that a node says it has room for."""
QUICK_NODE_DEATH = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}
"""The health checks of a head, as `cluster.yaml` sets them."""
_SETTLE_SECONDS = 10.0
_SETTLE_LOOK = 0.1
_QUIET_SECONDS = 0.3
"""A time longer than the pool waits from an opening to the refill."""
_SETTLED_CPU = 0.02
_POLL = 0.05


class Variant(StrEnum):
    """The three ways of starting a conversation's process that are compared."""

    WARM = "warm"
    """With fork server and pool, as `conversation-actors start` and a client have them by default."""
    FORKED = "forked"
    """With fork server but no pool. Each process is forked when it is asked for."""
    PLAIN = "plain"
    """With `ray start`. The same actor runs in an ordinary worker."""

    @property
    def program(self) -> str:
        """The module whose command `start` takes Ray's options."""
        return "ray.scripts.scripts" if self is Variant.PLAIN else "conversation_actors.cli"


def clean_environment(**added: str) -> dict[str, str]:
    """Return this process's environment without anybody's settings, and with the repository on the path.

    Without PYTHONDONTWRITEBYTECODE, which may be set here, no process compiles the project anew, as in an installation.
    """
    foreign = ("CONVERSATION_", "PYTHON", "RAY_", "REDIS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", **added}


class Node:
    """One `… start --block` process and all processes below it."""

    def __init__(
        self,
        directory: Path,
        options: list[str],
        *,
        variant: Variant,
        environment: Mapping[str, str],
        address: str = HERE,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start the node, and return at once. `wait_started` waits until it runs.

        `prefix` goes before the command of the node, which is to run on a host with this `address`.
        """
        self._log = directory / f"node-{secrets.token_hex(3)}.log"
        command = [
            *prefix, sys.executable, "-m", variant.program, "start", "--block",
            "--disable-usage-stats", "--log-color=false",
            f"--node-ip-address={address}", "--include-log-monitor=false", "--min-worker-port=0", "--max-worker-port=0",
            "--dashboard-agent-listen-port=0", f"--object-store-memory={OBJECT_STORE_BYTES}", *options,
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=dict(environment), cwd=directory, start_new_session=True,
            )  # fmt: skip

    def wait_started(self, written: Path | None = None) -> None:
        """Wait until the raylet runs and, if `written` is given, the head has written its address there.

        Raises `RuntimeError` if the node ends, or does not start in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in self._log.read_text(errors="replace") or not _is_written(written):
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"a Ray node did not start: {' '.join(last_lines(self._log, 8))[-800:]}"
                raise RuntimeError(message)
            time.sleep(_POLL)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that run on this node."""
        found = []
        for pid in session_members(self._process.pid):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def has(self, pid: int) -> bool:
        """Tell whether a process runs on this node."""
        return pid in session_members(self._process.pid)

    def kill(self) -> None:
        """End everything on the node with SIGKILL, all at one time, like the sudden end of a node."""
        kill_session(self._process.pid)
        self._process.wait()


class Cluster:
    """A head with a token of its own, and the nodes added to it. `clusters` starts and ends it."""

    def __init__(
        self,
        variant: Variant,
        *,
        head_room: int = ROOM,
        environment: Mapping[str, str] | None = None,
        host: str = HERE,
    ) -> None:
        """Start nothing before `begin`. If `head_room` is 0, conversations run on added nodes only.

        `host` is the address of this machine at which other nodes find the head.
        """
        self.variant = variant
        self._head_room, self._host = head_room, host
        # Unix sockets are made below it, and their paths must not be longer than 107 bytes
        self._directory = Path(tempfile.mkdtemp(prefix="cab-", dir="/tmp"))  # mkdtemp makes it private
        self.token = secrets.token_hex(32)
        self._environment = clean_environment(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self.token, **dict(environment or {})
        )
        self.nodes: list[Node] = []
        self.address = ""

    def begin(self) -> None:
        """Start the head without waiting for it."""
        client_port = free_port(self._host)
        options = [
            "--head", "--port=0", "--include-dashboard=false", f"--ray-client-server-port={client_port}",
            f"--temp-dir={self._directory}", *_room(self._head_room),
        ]  # fmt: skip
        self.nodes.append(self._node(options, self.variant, self._host))

    def wait_started(self) -> None:
        """Wait until the head runs and its address is known."""
        written = self._directory / "ray_current_cluster"
        self.nodes[0].wait_started(written)
        self.address = written.read_text().strip()

    def add_node(self) -> Node:
        """Start one more node with room for conversations, and wait until it runs."""
        node = self._node([f"--address={self.address}", *_room(ROOM)], self.variant, self._host)
        self.nodes.append(node)
        node.wait_started()
        return node

    def add_guest(self, address: str, prefix: Sequence[str]) -> Node:
        """Start a node that runs no conversation, on a host that `prefix` leads to, and wait until it runs."""
        node = self._node([f"--address={self.address}", "--num-cpus=0"], Variant.PLAIN, address, prefix=prefix)
        self.nodes.append(node)
        node.wait_started()
        return node

    def kill_node(self, node: Node) -> None:
        """End a node with SIGKILL."""
        self.nodes.remove(node)
        node.kill()

    def _node(self, options: list[str], variant: Variant, address: str, *, prefix: Sequence[str] = ()) -> Node:
        return Node(
            self._directory, options,
            variant=variant, environment=self._environment, address=address, prefix=prefix,
        )  # fmt: skip

    def close(self) -> None:
        """End all nodes, and remove their files. Idempotent."""
        while self.nodes:
            self.nodes[-1].kill()
            self.nodes.pop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that run on all nodes."""
        return [process for node in self.nodes for process in node.processes()]

    def settle(self, quiet: float = _QUIET_SECONDS) -> int:
        """Wait until no worker has started, ended or been busy for `quiet` seconds. Return the number of idle workers.

        Wait for ten seconds at most, because a pool may be refilled for as long as conversations are opened.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        before, busy = _worker_seconds(self.processes()), time.monotonic()
        while True:
            time.sleep(_SETTLE_LOOK)
            after = _worker_seconds(self.processes())
            is_quiet = all(
                seconds - before[pid][0] <= _SETTLED_CPU for pid, (seconds, _) in after.items() if pid in before
            )
            now = time.monotonic()
            if not is_quiet or after.keys() != before.keys():
                busy = now
            if now - busy >= quiet or now > deadline:
                return sum(is_idle for _, is_idle in after.values())
            before = after


@contextmanager
def clusters(*wanted: Cluster) -> Iterator[None]:
    """Start several clusters at one time. Whatever happens, end them all."""
    try:
        for cluster in wanted:
            cluster.begin()
        for cluster in wanted:
            cluster.wait_started()
        yield
    finally:
        for cluster in wanted:
            cluster.close()


def _worker_seconds(processes: list[psutil.Process]) -> dict[int, tuple[float, bool]]:
    """Return the CPU seconds of every Ray worker by process id, and whether the worker is idle.

    Workers that are being started are included.
    """
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess, IndexError):
            line = " ".join(process.cmdline())
            if line.startswith("ray::") or "default_worker.py" in line or "launcher" in line:
                times = process.cpu_times()
                found[process.pid] = (times.user + times.system, line.startswith("ray::IDLE"))
    return found


def _is_written(path: Path | None) -> bool:
    return path is None or (path.exists() and bool(path.read_text().strip()))


def _room(conversations: int) -> list[str]:
    return [f"--resources={json.dumps({'conversation': conversations})}"] if conversations else []
