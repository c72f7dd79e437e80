"""RedisBacklog: what waits for the archive, as archivers and readers get it from Redis."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from conversation_actors.store.backlog import Batch, Bounds, Lag, Waiting, written_at
from conversation_actors.store.connection import Servers
from conversation_actors.store.keys import ConversationKeys, Keys
from conversation_actors.store.redis_queueing import UnarchivedListing
from conversation_actors.store.replies import is_wrong_type
from conversation_actors.store.script_calls import Argument, ScriptCalls, milliseconds
from conversation_actors.store.scripts import script

_AT_ONCE = 500
"""Conversations that are looked at in one round trip."""
_REMEMBERED = timedelta(hours=1)
"""For how long no push under an old mark is let in; none is under way for as long."""


class RedisBacklog:
    """A `Backlog` on Redis. Its writes wait for no durability: what is lost of them is only done again."""

    def __init__(self, servers: Servers, calls: ScriptCalls, keys: Keys, bounds: Bounds) -> None:
        """Share the connections of the store."""
        self._servers, self._calls, self._keys, self._bounds = servers, calls, keys, bounds
        self._listing = UnarchivedListing(calls, keys)

    async def check(self, keys: ConversationKeys, mark: int) -> None:
        """Run every script once, on a backlog that no id can name, and that was pushed to under `mark`."""
        batch = await self._take(keys, "check", timedelta(seconds=1), 1)
        if batch is not None:
            await self._settle(keys, batch.backlog, batch.through)
        await self._release(keys, "check")
        await self._lag(keys)
        await self._unlist(keys, mark, timedelta(seconds=10))

    async def waiting(self) -> Sequence[Waiting]:
        """See `Backlog.waiting`."""
        members = await self._listing.members()
        waiting: list[Waiting] = []
        for first in range(0, len(members), _AT_ONCE):
            page = members[first : first + _AT_ONCE]
            counts = await self._counts([conversation_id for conversation_id, _ in page])
            waiting += [Waiting(*member, count) for member, count in zip(page, counts, strict=True)]
        return waiting

    async def take(self, conversation_id: str, *, archiver: str, ttl: timedelta, most_bytes: int) -> Batch | None:
        """See `Backlog.take`. Nothing is taken that is not yet as durable as the settings ask."""
        return await self._take(self._keys.conversation(conversation_id), archiver, ttl, most_bytes)

    async def settle(self, conversation_id: str, *, backlog: str, through: int) -> None:
        """See `Backlog.settle`."""
        await self._settle(self._keys.conversation(conversation_id), backlog, through)

    async def release(self, conversation_id: str, *, archiver: str) -> None:
        """See `Backlog.release`."""
        await self._release(self._keys.conversation(conversation_id), archiver)

    async def unlist(self, waiting: Waiting) -> bool:
        """See `Backlog.unlist`."""
        keys = self._keys.conversation(waiting.conversation_id)
        if not await self._unlist(keys, waiting.mark, _REMEMBERED):
            return False
        return await self._listing.leave(waiting.conversation_id, waiting.mark)

    async def peek(self, conversation_id: str) -> Batch:
        """See `Backlog.peek`. Needs no more rights than reading."""
        keys = self._keys.conversation(conversation_id)
        commands = (
            ("HMGET", keys.archive, "backlog", "removed", "given_up"),
            ("LRANGE", keys.backlog, 0, -1),
        )
        _, ((name, removed, given_up), records) = await self._calls.reading_plainly(keys, (), commands)
        return Batch((name or b"").decode(), int(removed or 0), tuple(records), 0, int(given_up or 0))

    async def lag(self, conversation_id: str | None = None) -> Lag:
        """See `Backlog.lag`."""
        if conversation_id is not None:
            return await self._lag(self._keys.conversation(conversation_id))
        total = Lag()
        for listed, _ in await self._listing.members():
            total += await self._lag(self._keys.conversation(listed))
        return total

    async def relist(self) -> int:
        """See `Backlog.relist`. Scans every primary; harmless beside running conversations."""
        async with self._calls.answering("relist"):
            owners = await self._servers.owners()
        total = 0
        for owner in owners:
            cursor = -1
            while cursor != 0:
                async with self._calls.answering("relist"):
                    cursor, found = await owner.scan(max(cursor, 0), match=self._keys.all_backlogs, count=_AT_ONCE)
                ids = {self._keys.conversation_id_of_backlog(_text(key)) for key in found}
                lacking = await self._listing.lacks(sorted(ids))
                for conversation_id in lacking:
                    await self._listing.enter(conversation_id)
                total += len(lacking)
        return total

    async def _take(self, keys: ConversationKeys, archiver: str, ttl: timedelta, most_bytes: int) -> Batch | None:
        arguments = (archiver, milliseconds(ttl), most_bytes, secrets.token_hex(8))
        reply = await self._calls.reading(script("archive_take"), keys, *arguments, names=keys.queue)
        if reply[0] == b"LOST":
            return None
        _, name, removed, left, given_up, *records = reply
        return Batch(name.decode(), removed, tuple(records), left, given_up)

    async def _settle(self, keys: ConversationKeys, backlog: str, through: int) -> None:
        age = milliseconds(self._bounds.age)
        await self._calls.on_index(script("archive_settle"), keys.queue, backlog, through, age)

    async def _release(self, keys: ConversationKeys, archiver: str) -> None:
        await self._calls.on_index(script("archive_release"), (keys.archive,), archiver)

    async def _unlist(self, keys: ConversationKeys, mark: int, remembered: timedelta) -> bool:
        arguments: tuple[Argument, ...] = (mark, milliseconds(remembered))
        reply = await self._calls.on_index(script("archive_unlist"), keys.queue, *arguments)
        return bool(reply[0] == b"OK")

    async def _lag(self, keys: ConversationKeys) -> Lag:
        reply = await self._calls.on_index(script("archive_lag"), keys.queue)
        _, now_ms, records, size, given_up, oldest = reply
        at = written_at(oldest)
        seconds = 0.0 if at is None else max(0.0, int(now_ms) / 1000 - at)
        return Lag(int(records > 0), records, size, seconds, given_up)

    async def _counts(self, conversation_ids: Sequence[str]) -> list[int]:
        """Return how many records each has waiting: one round trip a server. One that is damaged counts as one."""
        groups: dict[Redis, list[str]] = {}
        counted: dict[str, int] = {}
        async with self._calls.answering("list"):
            for conversation_id in conversation_ids:
                key = self._keys.conversation(conversation_id).backlog
                groups.setdefault(await self._servers.owner_of(key), []).append(conversation_id)
            for owner, members in groups.items():
                pipeline = owner.pipeline(transaction=False)
                for conversation_id in members:
                    pipeline.execute_command("LLEN", self._keys.conversation(conversation_id).backlog)
                replies = await pipeline.execute(raise_on_error=False)
                counted.update((member, _count(reply)) for member, reply in zip(members, replies, strict=True))
        return [counted[conversation_id] for conversation_id in conversation_ids]


def _count(reply: Any) -> int:
    if isinstance(reply, ResponseError) and is_wrong_type(reply):
        return 1  # whoever takes it is told what is wrong
    if isinstance(reply, Exception):
        raise reply
    return int(reply)


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
