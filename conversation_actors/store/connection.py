"""Connections to whatever the URL names: one server, a service watched by Sentinel, or a cluster.

All of it comes down to plain `redis.asyncio.Redis` clients, one per server, because the durability
commands (WAIT, WAITAOF) speak of the connection they are sent on: a client that spreads commands over
nodes by itself cannot promise that a WAIT follows its write on the same connection. redis-py's retries
are off; who repeats what is decided by the caller, who knows what may be repeated.
"""

import asyncio
import inspect
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ClusterDownError
from redis.exceptions import ConnectionError as RedisConnectionError

from conversation_actors.store.address import Address, Topology
from conversation_actors.store.pool import bounded
from conversation_actors.store.replies import CLIENT_ERRORS

_DISCOVERY_SHARE = 3
"""One Sentinel may take this fraction of the timeout, so that a hung one leaves time for the others."""

NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)
"""Keeps redis-py from telling each server its own name and version, two commands for every connection."""


class Servers(Protocol):
    """The servers that may be written to."""

    async def owner_of(self, key: str) -> Redis:
        """Find the server that holds `key`."""

    async def owners(self) -> list[Redis]:
        """Find all servers that hold keys."""

    def at(self, host: str, port: int) -> Redis:
        """Return the client of one named server."""

    def forget(self) -> None:
        """Look again, next time, who holds what. Never blocks."""

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""


def connect(address: Address, *, timeout: float, is_replica: bool = False) -> Servers:
    """Make the clients; nothing is sent yet. With `is_replica`, of servers to read from, which may lag."""
    if address.topology is Topology.CLUSTER:
        return ClusterServers(address, timeout=timeout, is_replica=is_replica)
    if address.topology is Topology.SENTINEL:
        return SentinelServer(address, timeout=timeout, is_replica=is_replica)
    options = _options(address, timeout)
    if address.topology is Topology.UNIX:
        return OneServer(bounded(Redis(unix_socket_path=address.path, **options), address, timeout))
    host, port = address.hosts[0]
    return OneServer(bounded(Redis(host=host, port=port, **options), address, timeout))


def _options(address: Address, timeout: float) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **NAMELESS,
    }
    return plain | {"ssl": True, **address.tls} if address.uses_tls else plain


class OneServer:
    """One server that never moves."""

    def __init__(self, client: Redis) -> None:
        """Take over the client: `aclose` closes it."""
        self.client = client

    async def owner_of(self, key: str) -> Redis:  # noqa: ARG002 - it holds every key
        """Return the one server."""
        return self.client

    async def owners(self) -> list[Redis]:
        """Return the one server."""
        return [self.client]

    def at(self, host: str, port: int) -> Redis:  # noqa: ARG002 - there is no other
        """Return the one server."""
        return self.client

    def forget(self) -> None:
        """Do nothing: there is nothing to look up."""

    async def aclose(self) -> None:
        """Close the pool."""
        await self.client.aclose()


class SentinelServer(OneServer):
    """The current primary of one service, or one of its replicas. Each new connection asks the Sentinels for it."""

    def __init__(self, address: Address, *, timeout: float, is_replica: bool) -> None:
        """Prepare the clients of the Sentinels and of the server."""
        options = _options(address, timeout)
        share = {"socket_timeout": timeout / _DISCOVERY_SHARE, "socket_connect_timeout": timeout / _DISCOVERY_SHARE}
        identity = {"username": address.sentinel_username, "password": address.sentinel_password, "db": 0}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types here
            list(address.hosts), sentinel_kwargs=options | share | identity, **options
        )
        found = sentinel.slave_for if is_replica else sentinel.master_for
        super().__init__(found(address.service, redis_class=Redis))
        self._sentinel = sentinel
        self.client = bounded(self.client, address, timeout)

    async def aclose(self) -> None:
        """Close the pools of the primary and of the Sentinels."""
        await super().aclose()
        for watcher in self._sentinel.sentinels:
            await watcher.aclose()


class ClusterServers:
    """The primaries of a cluster, or a replica of each, by slot.

    The map is read when it is needed, and again after `forget`.
    """

    def __init__(self, address: Address, *, timeout: float, is_replica: bool) -> None:
        """Remember where to ask first; the servers named in the URL may be any of the cluster."""
        self._address, self._timeout = address, timeout
        self._is_replica = is_replica
        self._options = _options(address, timeout)
        self._seeds = address.hosts
        self._clients: dict[tuple[str, int], Redis] = {}
        self._ranges: list[tuple[int, int, tuple[str, int]]] = []
        self._lock = asyncio.Lock()

    async def owner_of(self, key: str) -> Redis:
        """Find the server of the key's slot; raises `ClusterDownError` if no server has it."""
        slot = key_slot(key.encode())
        for first, last, node in await self._map():
            if first <= slot <= last:
                return self.at(*node)
        self.forget()
        message = f"slot {slot} is not served by any node"
        raise ClusterDownError(message)

    async def owners(self) -> list[Redis]:
        """Find all primaries."""
        return [self.at(*node) for node in sorted({node for _, _, node in await self._map()})]

    def at(self, host: str, port: int) -> Redis:
        """Return the client of one server, made when first asked for."""
        if (host, port) not in self._clients:
            client = Redis(host=host, port=port, **self._options)
            self._clients[host, port] = bounded(client, self._address, self._timeout)
        return self._clients[host, port]

    def forget(self) -> None:
        """Read the map again before the next use."""
        self._ranges = []

    async def aclose(self) -> None:
        """Close every pool."""
        for client in self._clients.values():
            await client.aclose()

    async def _map(self) -> list[tuple[int, int, tuple[str, int]]]:
        async with self._lock:
            if not self._ranges:
                self._ranges = await self._ask_all()
            return self._ranges

    async def _ask_all(self) -> list[tuple[int, int, tuple[str, int]]]:
        """Ask every known server at once, and take the first answer: a hung one costs no time."""
        tasks = [asyncio.create_task(self._ask(*node)) for node in {*self._seeds, *self._clients}]
        failure: Exception = RedisConnectionError("no node of the cluster is known")
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    return await answer
                except CLIENT_ERRORS as error:
                    failure = error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise failure

    async def _ask(self, host: str, port: int) -> list[tuple[int, int, tuple[str, int]]]:
        slots = await self.at(host, port).execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]  # redis-py has no types here
        # An empty host means "the one you asked".
        ranges = [
            (first, last, (server[0].decode() or host, server[1]))
            for first, last, *servers in slots
            for server in [servers[-1 if self._is_replica else 0]]  # the primary comes first
        ]
        if not ranges:
            message = f"{host}:{port} serves no slots"
            raise ClusterDownError(message)
        return ranges
