"""Durable storage of conversations: `MemoryStore`, `RedisStore`, and a server of our own for development.

`RedisStore` and `EmbeddedServer` are imported when first asked for: redis-py takes a quarter of a second
to import, which whoever does not talk to Redis should not pay.
"""

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Durability
from conversation_actors.store.backlog import Backlog, Batch, Bounds, Lag, Record, Waiting, decode_record
from conversation_actors.store.base import Ancestor, Claim, Found, Head, Outcome, Recovered, Store, Stored
from conversation_actors.store.expectations import ExpectationStore, Place
from conversation_actors.store.heartbeats import (
    Beat,
    Damaged,
    HeartbeatRecord,
    HeartbeatStore,
    conversation_of,
    record_name,
)
from conversation_actors.store.heartbeats import Found as FoundHeartbeat
from conversation_actors.store.memory import MemoryStore
from conversation_actors.store.shared import archive_bounds, forget_memory, memory_name, shared_store

if TYPE_CHECKING:
    from conversation_actors.settings import Settings
    from conversation_actors.store.embedded import EmbeddedServer
    from conversation_actors.store.redis import RedisStore

__all__ = [
    "Ancestor",
    "Backlog",
    "Batch",
    "Beat",
    "Bounds",
    "Claim",
    "Damaged",
    "EmbeddedServer",
    "ExpectationStore",
    "Found",
    "FoundHeartbeat",
    "Head",
    "HeartbeatRecord",
    "HeartbeatStore",
    "Lag",
    "MemoryStore",
    "Outcome",
    "Place",
    "Record",
    "Recovered",
    "RedisStore",
    "Store",
    "Stored",
    "Waiting",
    "conversation_of",
    "decode_record",
    "forget_memory",
    "memory_name",
    "open_replica",
    "open_store",
    "record_name",
]

_LAZY = {"RedisStore": "redis", "EmbeddedServer": "embedded"}


def open_store(settings: "Settings") -> Store:
    """Make the store that the settings ask for; connect when it is first used.

    Raises `InvalidInputError` if no Redis is configured, or its URL is wrong; for ``memory://`` also
    `StoreMisconfiguredError`.
    """
    if settings.is_in_memory:
        return shared_store(settings)
    from conversation_actors.store.address import parse  # noqa: PLC0415 - see the module's docstring
    from conversation_actors.store.redis import RedisStore  # noqa: PLC0415 - same

    url = settings.require_redis_url()
    try:
        address = parse(url)
    except InvalidInputError as error:
        message = str(error).replace("redis_url:", f"redis_url ({settings.redis_source}):", 1)
        raise InvalidInputError(message, field="redis_url") from None
    return RedisStore(
        replace(address, connections=settings.redis_connections, source=settings.redis_source),
        durability=settings.required_durability,
        timeout=settings.timeouts.redis,
        tenant=settings.tenant,
        archive=archive_bounds(settings),
    )


def open_replica(settings: "Settings") -> Store | None:
    """Make the store that is only read from, of which the settings may name one; connect when it is first used.

    Raises `InvalidInputError` where its URL is wrong.
    """
    if settings.read_url is None:
        return None
    from conversation_actors.store.address import parse  # noqa: PLC0415 - see the module's docstring
    from conversation_actors.store.redis import RedisStore  # noqa: PLC0415 - same

    try:
        address = parse(settings.read_url.get_secret_value())
        return RedisStore(
            replace(address, connections=settings.redis_connections, source="CONVERSATION_READ_URL"),
            durability=(Durability.REDIS, 0),
            timeout=settings.timeouts.redis,
            tenant=settings.tenant,
            is_replica=True,
        )
    except InvalidInputError as error:
        message = str(error).replace("redis_url", "read_url", 1)
        raise InvalidInputError(message, field="read_url") from None


def __getattr__(name: str) -> Any:
    """Import a lazy name."""
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
