"""All that Redis has of a conversation, as it is there, out of one Redis and into another one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from conversation_actors.settings import Settings
from conversation_actors.store.address import parse
from conversation_actors.store.connection import connect
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.keys import Keys
from conversation_actors.store.script_calls import ScriptCalls
from conversation_actors.store.scripts import script

_AT_ONCE = 500
_OF_THE_SOURCE = frozenset({b"listed", b"archiver", b"until"})
"""Fields of a backlog that speak of a listing and of an archiver, which are not copied."""


@dataclass(frozen=True, slots=True)
class RedisCopy:
    """The five keys of a conversation: `meta` and `archive` are hashes. Times to live are in ms, not above 0 for none.

    An empty `meta` is a conversation of which only the backlog is left.
    """

    meta: Mapping[bytes, bytes]
    snapshot: bytes | None
    journal: tuple[bytes, ...]
    left_ms: int
    archive: Mapping[bytes, bytes]
    backlog: tuple[bytes, ...]
    archive_left_ms: int

    @property
    def is_empty(self) -> bool:
        """Whether there is no such conversation."""
        return not (self.meta or self.archive or self.backlog)


class RedisCopies:
    """Copies of one tenant's conversations. Methods raise as those of `Store` do."""

    def __init__(self, settings: Settings) -> None:
        """Connect to the Redis of the settings, when first asked."""
        address = replace(parse(settings.require_redis_url()), source=settings.redis_source)
        timeout = settings.timeouts.redis.total_seconds()
        self._keys = Keys(settings.tenant)
        self._servers = connect(address, timeout=timeout)
        acknowledgement = Acknowledgement(settings.required_durability, timeout=timeout)
        where = f"{address.shown}, from {address.source}"
        self._calls = ScriptCalls(self._servers, acknowledgement, timeout=timeout, where=where)

    async def is_empty(self) -> bool:
        """Tell whether the tenant has no key at all."""
        for owner in await self._owners():
            if await self._scan(owner, f"conv:{self._keys.tenant}:*", first_only=True):
                return False
        return True

    async def ids(self) -> set[str]:
        """Return the ids of all conversations of which there is anything."""
        found: set[str] = set()
        for owner in await self._owners():
            found |= {self._keys.conversation_id_of(key) for key in await self._scan(owner, self._keys.all_meta)}
            backlogs = await self._scan(owner, self._keys.all_backlogs)
            found |= {self._keys.conversation_id_of_backlog(key) for key in backlogs}
        return found

    async def read(self, conversation_id: str) -> RedisCopy:
        """Return all that is there of a conversation, at one moment."""
        keys = self._keys.conversation(conversation_id)
        reply = await self._calls.reading(script("copy_out"), keys, names=keys.with_backlog)
        _, left_ms, meta, snapshot, journal, archive_left_ms, archive, backlog = reply
        kept = {name: value for name, value in _pairs(archive).items() if name not in _OF_THE_SOURCE}
        return RedisCopy(_pairs(meta), snapshot, tuple(journal), left_ms, kept, tuple(backlog), archive_left_ms)

    async def add(self, conversation_id: str, copy: RedisCopy) -> bool:
        """Write a copy in one step; False, and nothing is written, if there is anything of this conversation."""
        keys = self._keys.conversation(conversation_id)
        snapshots = () if copy.snapshot is None else (copy.snapshot,)
        meta, archive = _flat(copy.meta), _flat(copy.archive)
        counts = (len(meta), len(snapshots), len(copy.journal), len(archive), len(copy.backlog))
        values = (*meta, *snapshots, *copy.journal, *archive, *copy.backlog)
        ttls = (copy.left_ms, copy.archive_left_ms)
        reply = await self._calls.reading(script("copy_in"), keys, *ttls, *counts, *values, names=keys.with_backlog)
        return bool(reply[0] == b"OK")

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._servers.aclose()

    async def _owners(self) -> list[Redis]:
        async with self._calls.answering("scan"):
            return await self._servers.owners()

    async def _scan(self, owner: Redis, pattern: str, *, first_only: bool = False) -> list[str]:
        found: list[str] = []
        cursor = -1
        while cursor != 0 and not (first_only and found):
            async with self._calls.answering("scan"):
                cursor, keys = await owner.scan(max(cursor, 0), match=pattern, count=_AT_ONCE)
            found += [key.decode() if isinstance(key, bytes) else key for key in keys]
        return found


def _pairs(flat: list[Any]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    return [part for pair in sorted(fields.items()) for part in pair]
