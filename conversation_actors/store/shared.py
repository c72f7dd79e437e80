"""What ``memory://`` stands for: stores in this process's memory, each shared by everybody who names it."""

import inspect
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

from conversation_actors.errors import InvalidInputError, StoreMisconfiguredError
from conversation_actors.settings import MEMORY, Durability, Settings
from conversation_actors.store.backlog import Bounds
from conversation_actors.store.base import Store
from conversation_actors.store.memory import MemoryStore

_NAME = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)

Value = TypeVar("Value")


def memory_name(settings: Settings) -> str:
    """Return what follows ``memory://``, which tells one store of a process from another; empty for the usual one.

    Raises `InvalidInputError` for what is no name, and for a `read_url`: memory has no replica.
    """
    url = settings.require_redis_url()
    name = url.removeprefix(MEMORY)
    if not url.startswith(MEMORY) or not _NAME.fullmatch(name):
        message = (
            f"redis_url ({settings.redis_source}): after memory:// there may be a name, "
            "of at most 64 letters, digits, ., _ and -"
        )
        raise InvalidInputError(message, field="redis_url")
    if settings.read_url is not None:
        message = "read_url: memory:// has no replica; unset CONVERSATION_READ_URL"
        raise InvalidInputError(message, field="read_url")
    return name


def archive_bounds(settings: Settings) -> Bounds | None:
    """Return what may wait for the archive; None if the settings name no archive."""
    archive = settings.archive
    return None if archive.url is None else Bounds(archive.backlog_bytes, archive.backlog_age)


class SharedStores:
    """The stores in one process's memory, by name and tenant. Any thread may use them."""

    def __init__(self) -> None:
        """None yet."""
        self._stores: dict[tuple[str, str], tuple[MemoryStore, Store]] = {}
        self._lock = threading.Lock()

    def get(self, settings: Settings) -> Store:
        """Return the store that the settings name, made when it is first asked for.

        What is written to it waits for the archive from when somebody first asks for it who archives.

        Raises as `memory_name` does, and `StoreMisconfiguredError` for a durability that memory does not have.
        """
        key = memory_name(settings), settings.tenant
        if settings.required_durability[0] is not Durability.REDIS:
            message = f"durability={settings.durability} needs a Redis server; memory:// ends with its process"
            raise StoreMisconfiguredError(message)
        with self._lock:
            if key not in self._stores:
                made = MemoryStore(tenant=settings.tenant)
                self._stores[key] = made, cast("Store", OneAtATime(made, threading.Lock()))
            inner, shared = self._stores[key]
            bounds = archive_bounds(settings)
            if bounds is not None:
                inner.archive_within(bounds)
            return shared

    def forget(self, name: str) -> None:
        """Drop what is stored under a name, for every tenant. Who has such a store open keeps it to itself."""
        with self._lock:
            for key in [key for key in self._stores if key[0] == name]:
                del self._stores[key]


class OneAtATime:
    """Has one thread at a time in an object whose coroutines never wait for anything, as those of a `MemoryStore`.

    Objects that its plain methods return share its lock.
    """

    def __init__(self, inner: object, lock: threading.Lock) -> None:
        """Take the object; nobody else is to use it from now on."""
        self._inner, self._lock = inner, lock

    def __getattr__(self, name: str) -> Any:
        """Return the inner object's method, guarded."""
        method = getattr(self._inner, name)
        if inspect.isasyncgenfunction(method):
            return self._listing(method)
        return self._awaited(method) if inspect.iscoroutinefunction(method) else self._plain(method)

    def _awaited(self, method: Callable[..., Awaitable[Value]]) -> Callable[..., Awaitable[Value]]:
        async def call(*arguments: Any, **named: Any) -> Value:
            with self._lock:
                return await method(*arguments, **named)

        return call

    def _listing(self, method: Callable[..., AsyncIterator[Value]]) -> Callable[..., AsyncIterator[Value]]:
        async def call(*arguments: Any, **named: Any) -> AsyncIterator[Value]:
            with self._lock:
                found = [one async for one in method(*arguments, **named)]
            for one in found:
                yield one

        return call

    def _plain(self, method: Callable[..., object]) -> Callable[..., "OneAtATime"]:
        def call(*arguments: Any, **named: Any) -> OneAtATime:
            with self._lock:
                return OneAtATime(method(*arguments, **named), self._lock)

        return call


_SHARED = SharedStores()


def shared_store(settings: Settings) -> Store:
    """Return the store of this process that the settings name; see `SharedStores.get`."""
    return _SHARED.get(settings)


def forget_memory(name: str) -> None:
    """Drop what this process has stored under ``memory://`` and a name; see `SharedStores.forget`."""
    _SHARED.forget(name)
