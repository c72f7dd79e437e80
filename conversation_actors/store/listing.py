"""Listings across conversations, on Redis: kept beside the conversations, repairable from them."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from conversation_actors.errors import CorruptStateError, StoreMisconfiguredError
from conversation_actors.store.base import Found
from conversation_actors.store.connection import Servers
from conversation_actors.store.keys import Keys, ListingKeys
from conversation_actors.store.script_calls import ScriptCalls, milliseconds
from conversation_actors.store.scripts import script

logger = logging.getLogger(__name__)

_PAGE = 100
_SCAN = 500


class Listing:
    """The indexes by last activity: of all conversations, and of each participant's."""

    def __init__(self, servers: Servers, calls: ScriptCalls, keys: Keys) -> None:
        """Share the connections of the store."""
        self._servers = servers
        self._calls = calls
        self._keys = keys

    async def enter(self, conversation_id: str, participants: Sequence[str], ttl: timedelta) -> None:
        """Enter one conversation as active now, for `ttl` from now, both by the server's clock."""
        await self._enter(conversation_id, participants, milliseconds(ttl), score="")

    async def pages(self, participant: str | None) -> AsyncIterator[Found]:
        """Yield what is listed, page by page. `last_active_at` is when the conversation was last indexed."""
        listing = self._keys.active_index if participant is None else self._keys.participant_index(participant)
        bound = "+inf"
        while page := await self._page(listing, bound):
            async with self._calls.answering("list"):
                described = await self._read([conversation_id for conversation_id, _ in page])
            for (conversation_id, score), fields in zip(page, described, strict=True):
                found = self._found(conversation_id, score, fields)
                if found is None:
                    await self._drop(listing, conversation_id, score)
                else:
                    yield found
            bound = f"({page[-1][1]}"

    async def check(self) -> None:
        """Look into the listing of all conversations. Raises what the store raises if that cannot be done."""
        await self._entries(self._keys.active_index, "+inf", "-inf", 1)

    async def rebuild(self) -> int:
        """Enter every living conversation again, with the time of its last change."""
        async with self._calls.answering("reindex"):
            owners = await self._servers.owners()
        total = 0
        for owner in owners:
            cursor = -1
            while cursor != 0:
                cursor, ids = await self._scan(owner, max(cursor, 0))
                total += await self._reenter(ids)
        return total

    async def _enter(self, conversation_id: str, participants: Sequence[str], ttl_ms: int, *, score: str) -> None:
        # Not gathered: a cancelled or failed gather leaves the others running behind the caller's back.
        active = self._keys.active_index.as_tuple()
        await self._calls.on_index(script("index"), active, conversation_id, ttl_ms, 1, score)
        for identity in participants:
            keys = self._keys.participant_index(identity).as_tuple()
            await self._calls.on_index(script("index"), keys, conversation_id, ttl_ms, 0, score)

    async def _drop(self, listing: ListingKeys, conversation_id: str, score: int) -> None:
        try:
            await self._calls.on_index(script("unlist"), listing.as_tuple(), conversation_id, score)
        except StoreMisconfiguredError as error:
            if not error.lacks_right:
                raise
            logger.debug("what has vanished stays listed for others to drop", extra={"reason": str(error)})

    async def _page(self, listing: ListingKeys, bound: str) -> list[tuple[str, int]]:
        """Read one page, the highest scores first. Entries of one score are never parted by its end.

        So the lowest score of a page is all that is needed to ask for the next one.
        """
        page = await self._entries(listing, bound, "-inf", _PAGE)
        if len(page) < _PAGE:
            return page
        lowest = page[-1][1]
        ties = await self._entries(listing, lowest, lowest)
        return [entry for entry in page if entry[1] > lowest] + ties

    async def _entries(
        self, listing: ListingKeys, highest: str | int, lowest: str | int, most: int = -1
    ) -> list[tuple[str, int]]:
        command = ("ZREVRANGEBYSCORE", listing.activity, highest, lowest, "WITHSCORES", "LIMIT", 0, most)
        flat = await self._calls.plainly("list", listing.activity, command)
        return [(flat[i].decode(), int(float(flat[i + 1]))) for i in range(0, len(flat), 2)]

    async def _read(self, ids: Sequence[str]) -> list[list[Any]]:
        """Read what is listed of many conversations: one round trip a server."""
        groups: dict[Redis, list[str]] = {}
        for conversation_id in ids:
            owner = await self._servers.owner_of(self._keys.conversation(conversation_id).meta)
            groups.setdefault(owner, []).append(conversation_id)
        read: dict[str, list[Any]] = {}
        for owner, members in groups.items():
            pipeline = owner.pipeline(transaction=False)
            for conversation_id in members:
                meta = self._keys.conversation(conversation_id).meta
                pipeline.execute_command("HMGET", meta, "seq", "participants", "deleted", "active_at")
                pipeline.execute_command("PTTL", meta)
            replies = await pipeline.execute()
            pairs = zip(replies[::2], replies[1::2], strict=True)
            read.update({member: [*fields, ttl_ms] for member, (fields, ttl_ms) in zip(members, pairs, strict=True)})
        return [read[conversation_id] for conversation_id in ids]

    async def _scan(self, owner: Redis, cursor: int) -> tuple[int, list[str]]:
        async with self._calls.answering("reindex"):
            following, keys = await owner.scan(cursor, match=self._keys.all_meta, count=_SCAN)
        names = [key.decode() if isinstance(key, bytes) else key for key in keys]
        return int(following), [self._keys.conversation_id_of(name) for name in names]

    async def _reenter(self, ids: Sequence[str]) -> int:
        async with self._calls.answering("reindex"):
            described = await self._read(ids)
        total = 0
        for conversation_id, fields in zip(ids, described, strict=True):
            active_at, ttl_ms = fields[3], fields[4]
            found = self._found(conversation_id, int(active_at or 0), fields)
            if found is None or ttl_ms <= 0:
                continue
            await self._enter(conversation_id, found.participants, ttl_ms, score=active_at.decode())
            total += 1
        return total

    def _found(self, conversation_id: str, score: int, fields: Sequence[Any]) -> Found | None:
        seq, participants, deleted = fields[:3]
        if seq is None or deleted == b"1":
            return None
        identities = _identities(self._keys.conversation(conversation_id).meta, participants)
        return Found(conversation_id, score / 1000, identities, int(seq), self._keys.tenant)


def _identities(key: str, text: bytes | None) -> tuple[str, ...]:
    try:
        read = json.loads(text or b"")
    except ValueError as error:
        message = f"{key}: participants is not JSON"
        raise CorruptStateError(message, key=key, position=getattr(error, "pos", 0)) from error
    if not isinstance(read, list) or not all(isinstance(identity, str) for identity in read):
        message = f"{key}: participants is not a list of strings"
        raise CorruptStateError(message, key=key, position=0)
    return tuple(read)
