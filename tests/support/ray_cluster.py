"""A real Ray cluster for tests: nodes are `ray start` processes, ended by their process ids."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import ray
from ray.scripts.scripts import start

from conversation_actors.settings import quick_crash_detection
from tests.support.servers import free_port, wait_for

IS_PLAIN = os.environ.get("TEST_PLAIN_RAY", "") not in {"", "0"}
"""Whether the clusters of this run have ordinary workers; else they are forked, as a user's are."""
PLAIN, FORKING = "ray.scripts.scripts", "conversation_actors.cli"
"""Modules that take `start` and Ray's options."""
_LOG_MONITOR = ["--include-log-monitor=false"] if "include_log_monitor" in {p.name for p in start.params} else []
"""Nobody reads the logs of a test's node; an older Ray has no such option."""
_NO_MONITOR = ["--no-monitor"] if "no_monitor" in {p.name for p in start.params} else []
"""No test's head asks a cloud for more nodes: a process less, on two cores."""
START_SECONDS = 60.0
"""A node takes 4 to 8 s to start on two idle cores."""
_ATTEMPTS = 3
_OBJECT_STORE_BYTES = 80_000_000
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray makes the machine's own address of 127.0.0.1, so strangers can reach the ports: a token keeps them out.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
}
QUICK_NODE_DEATH = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}
"""For a head: a killed node is noticed in 2.5 to 3.5 s, a hung one in 5.4 to 6.4 s."""


class Node:
    """One Ray node: a `ray start --block` process and all below it."""

    def __init__(self, directory: Path, *options: str, resources: str, environment: Mapping[str, str]) -> None:
        """`options` say whether it is a head, or which head to join. Nothing runs before `start`."""
        self._directory = directory
        self._options = (*options, f"--resources={resources}")
        self._environment = {**os.environ, **_ENVIRONMENT, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[psutil.Process] = set()

    def start(self) -> Self:
        """Start, and wait until the raylet runs."""
        command = [
            sys.executable, "-m", PLAIN if IS_PLAIN else FORKING, "start", "--block",
            "--num-cpus=4", "--disable-usage-stats",
            *_LOG_MONITOR, "--min-worker-port=0", "--max-worker-port=0",
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}",
            *self._options,
        ]  # fmt: skip
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment
            )
        try:
            wait_for(self._has_started, f"a Ray node, see {self._log_path}", patience=START_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def option(self, name: str) -> str:
        """Return the value of an option of its own, such as ``port``."""
        return next(one.partition("=")[2] for one in self._options if one.startswith(f"--{name}="))

    @property
    def raylet(self) -> psutil.Process:
        """The node's raylet."""
        return self.named("raylet")

    def named(self, name: str) -> psutil.Process:
        """Return the node's process of this name."""
        return next(process for process in self.processes() if _name(process) == name)

    def kill_raylet(self) -> None:
        """End the node as suddenly as one ends: SIGKILL of the raylet and of every worker."""
        raylet = self.raylet
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """SIGKILL everything that was started; stopped processes too."""
        if self._process is None:
            return
        processes = [psutil.Process(self._process.pid), *self.processes()] if self._process.poll() is None else []
        for process in {*processes, *self._known}:
            with suppress(psutil.NoSuchProcess):
                process.kill()  # psutil checks that the pid is not somebody else's by now
        self._process.wait()

    def log(self) -> str:
        """Return what `ray start` printed."""
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return self._directory / f"node-{id(self)}.log"

    def _has_started(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            message = f"`ray start` ended: {self.log()[-1500:]}"
            raise RuntimeError(message)
        return "Ray runtime started" in self.log() and bool(self.processes())

    def processes(self) -> list[psutil.Process]:
        """Return everything below `ray start` that runs, or is stopped."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            self._known.update(psutil.Process(self._process.pid).children(recursive=True))
        return [process for process in self._known if process.is_running()]


class RayCluster:
    """A head, and nodes added to it. Use it as a context manager."""

    def __init__(
        self, *, resources: str = '{"conversation": 100}', environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is what the head's processes get beside this process's."""
        self._resources, self._environment = resources, dict(environment or {})
        # Unix sockets live below it, and their paths may have 107 bytes: pytest's directories are too deep.
        self._directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.address = ""
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        """Start the head."""
        for attempt in range(_ATTEMPTS):
            port = free_port()
            try:
                self.nodes.append(self._head(port).start())
            except RuntimeError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            self.address = f"{ray.util.get_node_ip_address()}:{port}"
            break
        return self

    def _head(self, port: int) -> Node:
        return Node(
            self._directory, "--head", f"--port={port}", "--node-ip-address=127.0.0.1",
            "--include-dashboard=false", *_NO_MONITOR, f"--ray-client-server-port={free_port()}",
            f"--temp-dir={self._directory}", resources=self._resources, environment=self._environment,
        )  # fmt: skip

    def kill_head(self) -> None:
        """SIGKILL every process of the head."""
        self.nodes[0].kill()

    def restart_head(self) -> None:
        """Start another head at the old one's address: it knows nothing of what was there."""
        self.nodes[0] = self._head(int(self.address.rpartition(":")[2])).start()

    def __exit__(self, *_: object) -> None:
        """Leave, and kill all nodes."""
        if _joined_address() == self.address:
            ray.shutdown()
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def add_node(self, *, resources: str = '{"conversation": 100}') -> Node:
        """Start one more node."""
        for attempt in range(_ATTEMPTS):
            node = Node(
                self._directory, f"--address={self.address}", resources=resources, environment=self._environment
            )
            try:
                self.nodes.append(node.start())
            except RuntimeError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            break
        return self.nodes[-1]

    def join(self) -> None:
        """Make this process a member of this cluster, and of no other."""
        if _joined_address() == self.address:
            return
        ray.shutdown()
        os.environ.update(_ENVIRONMENT)
        with quick_crash_detection():  # as a client does that connects by itself
            # Ray has read its environment at import; this is how it does so again.
            ray._raylet.Config.initialize("")
            ray.init(address=self.address, namespace="tests", log_to_driver=False, configure_logging=False)


def _name(process: psutil.Process) -> str:
    """Return its name; nothing if it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def _joined_address() -> str | None:
    return str(ray.get_runtime_context().gcs_address) if ray.is_initialized() else None


def program_environment(**variables: str) -> dict[str, str]:
    """Return the environment for a process of a test's own: this one's, and the repository on the path."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, **_ENVIRONMENT, "PYTHONPATH": root, **variables}


def as_json(**resources: float) -> Any:
    """Return resources as `ray start` wants them."""
    return "{" + ", ".join(f'"{name}": {amount}' for name, amount in resources.items()) + "}"
