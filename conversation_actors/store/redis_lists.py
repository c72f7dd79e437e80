"""Lists that another program keeps in the same Redis. They are only read."""

from collections.abc import AsyncIterator
from dataclasses import replace

from conversation_actors.settings import Durability, Settings
from conversation_actors.store.address import parse
from conversation_actors.store.connection import connect
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.script_calls import ScriptCalls

_AT_ONCE = 500
_SPECIAL = "\\*?[]^"


class ListPattern:
    """Which keys are lists of conversations: a text with one ``*``, in whose place the conversation's id stands."""

    def __init__(self, text: str) -> None:
        """Raise `ValueError` unless there is one ``*``."""
        if text.count("*") != 1:
            message = f"{text!r} needs one *, in the place of the conversation's id"
            raise ValueError(message)
        self._before, _, self._after = text.partition("*")

    @property
    def glob(self) -> str:
        """The pattern as Redis reads it, where other characters mean something too."""
        return f"{_literal(self._before)}*{_literal(self._after)}"

    def id_in(self, key: str) -> str:
        """Return the part of a key that stands for the ``*``."""
        return key[len(self._before) : len(key) - len(self._after)]


def _literal(text: str) -> str:
    return "".join(f"\\{one}" if one in _SPECIAL else one for one in text)


class RedisLists:
    """Reads lists of any key. Methods raise as those of `Store` do."""

    def __init__(self, settings: Settings) -> None:
        """Connect to the Redis of the settings, when first asked."""
        address = replace(parse(settings.require_redis_url()), source=settings.redis_source)
        timeout = settings.timeouts.redis.total_seconds()
        self._servers = connect(address, timeout=timeout)
        acknowledgement = Acknowledgement((Durability.REDIS, 0), timeout=timeout)
        where = f"{address.shown}, from {address.source}"
        self._calls = ScriptCalls(self._servers, acknowledgement, timeout=timeout, where=where)

    async def keys(self, pattern: ListPattern) -> AsyncIterator[bytes]:
        """Yield the keys of lists that match; one may come twice, and one that is made meanwhile may not come."""
        async with self._calls.answering("scan for lists"):
            owners = await self._servers.owners()
        for owner in owners:
            cursor = -1
            while cursor != 0:
                async with self._calls.answering("scan for lists"):
                    cursor, keys = await owner.scan(max(cursor, 0), match=pattern.glob, count=_AT_ONCE, _type="list")
                for key in keys:
                    yield key.encode() if isinstance(key, str) else key

    async def read(self, key: str, first: int, count: int) -> list[bytes]:
        """Return at most `count` elements from the place `first` on; none if there is no such list."""
        elements: list[bytes] = await self._calls.plainly("read a list", key, ("LRANGE", key, first, first + count - 1))
        return elements

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._servers.aclose()
