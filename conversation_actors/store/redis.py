"""RedisStore: conversations on Redis ≥ 6.2 or Valkey; one server, Sentinel, or Cluster."""

import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from conversation_actors.errors import ConversationNotFoundError, CorruptStateError
from conversation_actors.settings import DEFAULT_TENANT, Durability
from conversation_actors.store.address import Address, parse
from conversation_actors.store.backlog import Bounds, is_deletion
from conversation_actors.store.base import MAX_ANCESTORS, Ancestor, Claim, Found, Head, Outcome, Recovered, Stored
from conversation_actors.store.connection import connect
from conversation_actors.store.durability import Acknowledgement
from conversation_actors.store.keys import Keys
from conversation_actors.store.listing import Listing
from conversation_actors.store.redis_backlog import RedisBacklog
from conversation_actors.store.redis_expectations import RedisExpectations
from conversation_actors.store.redis_heartbeats import RedisHeartbeats
from conversation_actors.store.redis_probe import PROBE_TTL_MS, probe_conversation
from conversation_actors.store.redis_queueing import Queueing, header_of, steps
from conversation_actors.store.redis_reading import RedisReading
from conversation_actors.store.script_calls import Argument, ScriptCalls, milliseconds
from conversation_actors.store.scripts import SCHEMA, conversation_script

logger = logging.getLogger(__name__)

_NOTHING = ("", "", "", "")
"""What a snapshot may replace of others."""
_BOUNDS = Bounds(16 << 20, timedelta(days=30))
"""Of a store that nothing is archived from; what settles in its backlogs was written by others."""


class RedisStore:
    """A `Store` on Redis.

    `timeout` bounds every call, including the connect and the wait for durability. Nothing is repeated
    behind the caller's back except what the server said it did not do. What one Redis acknowledged and
    then lost (a failover to a replica that lagged, under ``durability=redis``) shows as `Outcome.GAP`.
    """

    def __init__(
        self,
        url: str | Address,
        *,
        durability: tuple[Durability, int],
        timeout: timedelta,
        tenant: str = DEFAULT_TENANT,
        is_replica: bool = False,
        archive: Bounds | None = None,
    ) -> None:
        """Read the URL (`InvalidInputError` if it is wrong); connect when first used.

        With `is_replica`, read from servers that may lag behind those that are written to. With `archive`, all that
        is written waits in the backlog too, within those bounds.
        """
        self._keys = Keys(tenant)
        seconds = timeout.total_seconds()
        self._servers = connect(parse(url), timeout=seconds, is_replica=is_replica)
        self._acknowledgement = Acknowledgement(durability, timeout=seconds)
        where = f"{parse(url).shown}, from {parse(url).source}"
        self._calls = ScriptCalls(self._servers, self._acknowledgement, timeout=seconds, where=where)
        self._listing = Listing(self._servers, self._calls, self._keys)
        self._reading = RedisReading(self._calls, self._keys, is_replica=is_replica)
        self._backlog = RedisBacklog(self._servers, self._calls, self._keys, archive or _BOUNDS)
        self._queueing = None if archive is None else Queueing(self._calls, self._keys, archive)

    async def check(self) -> None:
        """Ask every primary what it is, then run every script once on a conversation and a lease that no id can name.

        The probe finds a missing right or a full disk here, where it hurts nobody; it is gone within seconds.
        """
        async with self._calls.answering("check"):
            for owner in await self._servers.owners():
                self._acknowledgement.check(await owner.info())
        await probe_conversation(self._calls, self._keys, self._backlog if self._queueing is not None else None)
        await self._listing.check()
        keys = self._keys.tagged_heartbeats(f"%check-{secrets.token_hex(8)}")
        ttl = timedelta(milliseconds=PROBE_TTL_MS)
        await RedisHeartbeats(self._calls, keys, ttl=ttl, remember_ms=PROBE_TTL_MS).check()
        await RedisExpectations(self._calls, keys).check()

    async def activate(self, conversation_id: str, *, owner: str, create: bool, ttl: timedelta) -> Recovered:
        """See `Store.activate`."""
        keys = self._keys.conversation(conversation_id)
        script = conversation_script("activate")
        reply = await self._calls.on_conversation(script, keys, owner, int(create), milliseconds(ttl), SCHEMA)
        if reply[0] == b"NOTFOUND":
            message = f"conversation {conversation_id!r} does not exist"
            raise ConversationNotFoundError(message)
        _, epoch, seq, base, life, start, created, lineage, left_ms, now_ms, snapshot, journal = reply
        return Recovered(
            claim=Claim(
                conversation_id, epoch, owner, life.decode(), self._keys.tenant, _lineage(keys.meta, lineage), start
            ),
            seq=seq,
            snapshot_seq=base,
            snapshot=snapshot,
            journal=tuple(journal),
            created=bool(created),
            left=timedelta(milliseconds=left_ms),
            at=int(now_ms) / 1000,
        )

    async def append(
        self,
        claim: Claim,
        *,
        expected_seq: int,
        entries: Sequence[bytes],
        ttl: timedelta,
        kept: timedelta | None = None,
        participants: Sequence[str] | None = None,
    ) -> Outcome:
        """See `Store.append`. One round trip, whose cost does not depend on what is stored already.

        Another one where conversations are archived, the first time, and when all was archived for a while.
        """
        identities = "" if participants is None else _json(participants)
        described = (expected_seq, milliseconds(ttl), milliseconds(kept or ttl), identities)
        if self._queueing is None:
            outcome, left = await self._write("append", claim, *described, *entries)
        else:
            outcome, left = await self._push("append", claim, *described, entries=entries)
        return _judged(claim, outcome, left)

    async def save_snapshot(
        self,
        claim: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta | None = None,
        keep: int = 0,
        restore: bool = True,
    ) -> Outcome:
        """See `Store.save_snapshot`. Two round trips if it replaces what another claim has left."""
        ttls = (milliseconds(ttl), milliseconds(kept or ttl))
        described = (_json(participants), snapshot, SCHEMA, keep, int(restore), _json(claim.lineage), claim.start)
        outcome, left = await self._write("save_snapshot", claim, seq, *ttls, *described, *_NOTHING)
        if restore and left is not None and claim.follows(left):
            outcome, left = await self._write("save_snapshot", claim, seq, *ttls, *described, *left)
        return _judged(claim, outcome, left)

    async def keep(self, conversation_id: str, *, ttl: timedelta) -> timedelta | None:
        """See `Store.keep`. Nothing waits for its durability: it is repeated long before it is needed."""
        keys = self._keys.conversation(conversation_id)
        reply = await self._calls.on_conversation(conversation_script("keep"), keys, milliseconds(ttl))
        return timedelta(milliseconds=reply[1]) if reply[0] == b"OK" else None

    async def head(self, conversation_id: str) -> Head | None:
        """See `Store.head`."""
        meta = self._keys.conversation(conversation_id).meta
        async with self._calls.answering("head"):
            client = await self._servers.owner_of(meta)
            raw = await client.hmget(meta, ["epoch", "owner", "seq", "deleted"])
        return _head(meta, raw)

    async def read(self, conversation_id: str) -> Stored:
        """See `Store.read`."""
        return await self._reading.read(conversation_id)

    async def index(self, conversation_id: str, *, participants: Sequence[str], ttl: timedelta) -> None:
        """See `Store.index`."""
        await self._listing.enter(conversation_id, participants, ttl)

    def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """See `Store.list`. What becomes active while the listing runs may be left out of it."""
        return self._listing.pages(participant)

    async def reindex(self) -> int:
        """See `Store.reindex`. Scans every primary; harmless beside running conversations."""
        return await self._listing.rebuild()

    def heartbeats(self, lease: str, *, ttl: timedelta) -> RedisHeartbeats:
        """See `Store.heartbeats`."""
        return RedisHeartbeats(self._calls, self._keys.heartbeats(lease), ttl=ttl)

    def expectations(self, lease: str) -> RedisExpectations:
        """See `Store.expectations`."""
        return RedisExpectations(self._calls, self._keys.heartbeats(lease))

    async def remembers_deletion(self, conversation_id: str) -> bool:
        """See `Store.remembers_deletion`."""
        keys = self._keys.conversation(conversation_id)
        commands = (("HGET", keys.meta, "deleted"), ("LRANGE", keys.backlog, 0, -1))
        _, (deleted, waiting) = await self._calls.reading_plainly(keys, (), commands)
        return deleted == b"1" or any(map(is_deletion, waiting))

    def backlog(self) -> RedisBacklog:
        """See `Store.backlog`."""
        return self._backlog

    async def requeue(self, claim: Claim, *, entries: Sequence[bytes]) -> Outcome:
        """See `Store.requeue`. In steps; those of a call that fails half-way are made again, which harms nobody."""
        if self._queueing is None:
            return Outcome.OK
        for step in steps(entries):
            _, left = await self._push("archive_requeue", claim, *_NOTHING, entries=step, anew=True)
            if left is not None and claim.follows(left):
                _, left = await self._push("archive_requeue", claim, *left, entries=step, anew=True)
            if left is not None:
                return Outcome.FENCED
        return Outcome.OK

    async def revive(
        self,
        left_by: Claim,
        *,
        seq: int,
        snapshot: bytes,
        ttl: timedelta,
        participants: Sequence[str],
        kept: timedelta,
    ) -> bool:
        """See `Store.revive`."""
        keys = self._keys.conversation(left_by.conversation_id)
        claims = _json(left_by.lineage[-MAX_ANCESTORS:])
        described = (claims, _json(participants), milliseconds(ttl), milliseconds(kept), SCHEMA)
        arguments = (left_by.life, left_by.epoch, left_by.owner, left_by.start, seq, snapshot, *described)
        reply = await self._calls.on_conversation(
            conversation_script("revive"), keys, *arguments, names=keys.with_backlog
        )
        return bool(reply[0] == b"OK")

    async def delete(self, conversation_id: str, *, ttl: timedelta) -> bool:
        """See `Store.delete`."""
        keys = self._keys.conversation(conversation_id)
        script = conversation_script("delete")
        arguments = (milliseconds(ttl), SCHEMA)
        if self._queueing is None:
            reply = await self._calls.on_conversation(script, keys, *arguments)
        else:
            reply = await self._queueing.push(script, conversation_id, keys, *arguments)
        return bool(reply[0] == b"OK")

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        await self._servers.aclose()

    async def _write(self, name: str, claim: Claim, *arguments: Argument) -> tuple[str, Ancestor | None]:
        """Run a script in the name of a claim. Return its outcome, and what another claim has left, if it has."""
        keys = self._keys.conversation(claim.conversation_id)
        place = (claim.life, claim.epoch, claim.owner)
        return _outcome(await self._calls.on_conversation(conversation_script(name), keys, *place, *arguments))

    async def _push(
        self, name: str, claim: Claim, *arguments: Argument, entries: Sequence[bytes], anew: bool = False
    ) -> tuple[str, Ancestor | None]:
        """Do as `_write` does, with a script that adds to the backlog."""
        if self._queueing is None:
            message = "nothing is archived from this store"
            raise RuntimeError(message)
        reply = await self._queueing.push(
            conversation_script(name),
            claim.conversation_id,
            self._keys.conversation(claim.conversation_id),
            *(claim.life, claim.epoch, claim.owner),
            *arguments,
            header=header_of(claim),
            entries=entries,
            pusher=claim.owner,
            anew=anew,
        )
        return _outcome(reply)


def _outcome(reply: Sequence[Any]) -> tuple[str, Ancestor | None]:
    """Return what a script says, and what another claim has left, if it has."""
    if reply[0] != b"FOREIGN":
        return reply[0].decode(), None
    _, life, epoch, owner, seq = reply
    return "FOREIGN", Ancestor(life.decode(), epoch, owner.decode(), seq)


def _judged(claim: Claim, outcome: str, left: Ancestor | None) -> Outcome:
    """Tell what another claim has left: a gap only if this claim followed that one."""
    if left is None:
        return Outcome(outcome)
    return Outcome.GAP if claim.follows(left) else Outcome.FENCED


def _lineage(meta: str, text: bytes) -> tuple[Ancestor, ...]:
    """Read the claims before one. What cannot be read is as good as nothing: readers then start anew."""
    try:
        return tuple(
            Ancestor(str(life), int(epoch), str(owner), int(seq)) for life, epoch, owner, seq in json.loads(text)
        )
    except (TypeError, ValueError) as error:
        logger.warning("the lineage cannot be read, and is not used", extra={"key": meta, "reason": repr(error)})
        return ()


def _head(meta: str, raw: Sequence[Any]) -> Head | None:
    epoch, owner, seq, deleted = raw
    if deleted == b"1" or all(field is None for field in raw):
        return None
    try:
        return Head(epoch=int(epoch), owner=owner.decode(), seq=int(seq))
    except (TypeError, ValueError, AttributeError) as error:
        message = f"{meta}: epoch, owner or seq cannot be read"
        raise CorruptStateError(message, key=meta, position=0) from error


def _json(values: Sequence[object]) -> str:
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
