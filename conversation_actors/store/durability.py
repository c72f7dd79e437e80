"""What an acknowledgement means: the command that waits for it, its judgement, and what the server must offer."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Durability

_LOG = logging.getLogger(__name__)

_OLDEST_REDIS = (6, 2)
_WAITAOF_REDIS = (7, 2)
_MARK = ("PUBLISH", "conv:read", "")
"""Stores nothing, and still stands in the stream of writes: WAIT waits for all before it. A cluster does not have it
there, so that what is read in one may be as new as what its primary has."""
_WAIT_SHARE = 0.75
"""Part of the timeout that WAIT may take, so that its (short) answer arrives before the client gives up."""


class Acknowledgement:
    """The settings' durability, as commands and checks."""

    def __init__(self, durability: tuple[Durability, int], *, timeout: float) -> None:
        """Ask for this kind of durability, and number of replicas (0 unless ``replicas=n``)."""
        self._kind, self._replicas = durability
        self._wait_ms = max(1, int(timeout * 1000 * _WAIT_SHARE))

    def commands(self, *, after_read: bool = False) -> tuple[tuple[str | int, ...], ...]:
        """Return what to send right after a write, on the same connection; nothing if the reply is enough.

        With `after_read`, after what has only read: what others had written by then must be durable, too. The last
        reply is for `judge`.
        """
        marked = (_MARK,) if after_read else ()
        if self._kind is Durability.FSYNC:
            return (*marked, ("WAITAOF", 1, 0, self._wait_ms))
        if self._kind is Durability.REPLICAS:
            return (*marked, ("WAIT", self._replicas, self._wait_ms))
        return ()

    def judge(self, reply: Any) -> None:
        """Raise `StoreUnavailableError` when too few confirmed in time: written, but not as durable as asked."""
        if self._kind is Durability.FSYNC and int(reply[0]) < 1:
            message = f"the write was not on the server's disk within {self._wait_ms} ms"
            raise StoreUnavailableError(message)
        if self._kind is Durability.REPLICAS and int(reply) < self._replicas:
            message = f"{int(reply)} of {self._replicas} replicas confirmed the write within {self._wait_ms} ms"
            raise StoreUnavailableError(message)

    def check(self, info: Mapping[str, Any]) -> None:
        """Raise `StoreMisconfiguredError` unless a server with this INFO can do it."""
        name, version = _version(info)
        if name == "Redis" and version < _OLDEST_REDIS:
            _refuse(f"Redis {_text(version)} is too old; use Redis 6.2 or newer, or Valkey")
        if self._kind is Durability.FSYNC:
            _check_fsync(name, version, info)
        connected = int(info.get("connected_slaves", 0))
        if self._kind is Durability.REPLICAS and connected < self._replicas:
            _refuse(
                f"durability=replicas={self._replicas} needs as many connected replicas, "
                f"and the server has {connected}; attach replicas, or set CONVERSATION_DURABILITY=redis"
            )
        _warn_of_eviction(info)


def _check_fsync(name: str, version: tuple[int, ...], info: Mapping[str, Any]) -> None:
    if name == "Redis" and version < _WAITAOF_REDIS:
        _refuse(
            f"durability=fsync needs WAITAOF, which Redis {_text(version)} does not have; "
            "use Redis 7.2 or newer or Valkey, or set CONVERSATION_DURABILITY=redis"
        )
    if not int(info.get("aof_enabled", 0)):
        _refuse(
            "durability=fsync needs an append-only file, and the server runs without one; "
            "set `appendonly yes` on the server, or CONVERSATION_DURABILITY=redis"
        )


def _warn_of_eviction(info: Mapping[str, Any]) -> None:
    """Warn of every policy but noeviction: all our keys have a TTL, so ``volatile-*`` takes them too."""
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        _LOG.warning(
            "Redis may evict acknowledged conversations; set maxmemory-policy to noeviction",
            extra={"maxmemory_policy": policy, "maxmemory": info.get("maxmemory")},
        )


def _version(info: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    # Valkey reports redis_version 7.2.4 for the sake of old clients, and its own beside it.
    name, text = (
        ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info.get("redis_version", "0"))
    )
    return name, tuple(int(part) for part in re.findall(r"\d+", str(text))[:2])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _refuse(message: str) -> None:
    raise StoreMisconfiguredError(message)
