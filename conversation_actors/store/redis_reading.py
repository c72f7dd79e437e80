"""Reading a conversation on Redis without being its owner: nothing is written, no claim is taken."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from redis.exceptions import RedisError

from conversation_actors.errors import (
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.store.base import Stored
from conversation_actors.store.keys import ConversationKeys, Keys
from conversation_actors.store.script_calls import Command, ScriptCalls
from conversation_actors.store.scripts import SCHEMA, script

_FIELDS = ("epoch", "owner", "seq", "base", "snapshot", "schema", "deleted", "first", "life", "active_at")
_NUMBERS = ("epoch", "seq", "base", "schema", "first")
_MOVED_BY_APPENDING = ("seq", "active_at")
_TRIES = 8
"""How often something else than an append may come between before the caller is told to wait."""
_NO_KEY = -2
"""What PTTL says of a key that is not there."""
_EXPIRY_MS = 5
"""The keys of a conversation expire within a millisecond of each other."""
_READONLY: Command = ("READONLY",)
"""Lets a replica of a cluster answer, for the connection it is sent on; any other server knows it too."""
_INFO: Command = ("INFO", "replication")


class _Raw(NamedTuple):
    """What the three keys hold, at one moment."""

    meta: Sequence[bytes | None]
    left_ms: int
    snapshot: bytes | None
    journal: Sequence[bytes]

    @property
    def is_expiring(self) -> bool:
        """Whether a key that is missing may have expired just before, or just after, meta."""
        return self.is_orphaned or 0 <= self.left_ms <= _EXPIRY_MS

    @property
    def is_orphaned(self) -> bool:
        """Whether meta is gone and something else is not."""
        return self.left_ms == _NO_KEY and (self.snapshot is not None or len(self.journal) > 0)


class RedisReading:
    """Reads from the server that may be written to, or from a replica of it."""

    def __init__(self, calls: ScriptCalls, keys: Keys, *, is_replica: bool) -> None:
        """Share the connections of the store; `is_replica` if they lead to servers that lag."""
        self._calls, self._keys, self._is_replica = calls, keys, is_replica
        self._may_run_scripts = True
        """A user whose rights are those of reading (`+@read`) may not."""

    async def read(self, conversation_id: str) -> Stored:
        """See `Store.read`."""
        keys = self._keys.conversation(conversation_id)
        raw, lag = await self._read(keys)
        if raw.is_expiring:
            await asyncio.sleep(2 * _EXPIRY_MS / 1000)
            raw, lag = await self._read(keys)
        return _stored(self._keys.tenant, conversation_id, keys, raw, lag)

    async def _read(self, keys: ConversationKeys) -> tuple[_Raw, timedelta | None]:
        if not self._is_replica:
            return await self._read_at_once(keys), timedelta(0)
        raw, asides = await self._read_plainly(keys, before=(_READONLY, _INFO))
        return raw, _lag(asides[-1])

    async def _read_at_once(self, keys: ConversationKeys) -> _Raw:
        if self._may_run_scripts:
            try:
                _, *parts = await self._calls.reading(script("read"), keys, *_FIELDS)
                return _Raw(*parts)
            except StoreMisconfiguredError as error:
                if not error.lacks_right:
                    raise
        raw, _ = await self._read_plainly(keys)
        self._may_run_scripts = False  # it was that, then: the server logs whatever it refuses
        return raw

    async def _read_plainly(self, keys: ConversationKeys, before: Sequence[Command] = ()) -> tuple[_Raw, list[Any]]:
        """Read until what was read is of one moment; and what the server said to the commands `before`."""
        meta: Command = ("HMGET", keys.meta, *_FIELDS)
        parts: Sequence[Command] = (
            meta,
            ("PTTL", keys.meta),
            ("GET", keys.snapshot),
            ("LRANGE", keys.journal, 0, -1),
            meta,
        )
        for _ in range(_TRIES):
            asides, (first, *rest, last) = await self._calls.reading_plainly(keys, before, parts)
            between = _between(first, last, entries=len(rest[-1]))
            if between is not None:
                return _Raw(between, *rest), asides
        message = f"{keys.meta}: was changed each of the {_TRIES} times that it was read"
        raise StoreUnavailableError(message)


def _between(
    first: Sequence[bytes | None], last: Sequence[bytes | None], *, entries: int
) -> Sequence[bytes | None] | None:
    """Return meta as it was when the journal was read, by what it was before and after; None if that cannot be told.

    If entries were appended and nothing else happened, the number of entries tells it: a conversation that is
    written to all the time is read as well.
    """
    if first == last:
        return last
    before, after = (dict(zip(_FIELDS, fields, strict=True)) for fields in (first, last))
    if any(before[name] != after[name] for name in _FIELDS if name not in _MOVED_BY_APPENDING):
        return None
    try:
        seq = int(before["first"] or b"") + entries
        is_between = int(before["seq"] or b"") <= seq <= int(after["seq"] or b"")
    except ValueError:
        return None
    return [*{**after, "seq": b"%d" % seq}.values()] if is_between else None


def _stored(tenant: str, conversation_id: str, keys: ConversationKeys, raw: _Raw, lag: timedelta | None) -> Stored:
    fields = dict(zip(_FIELDS, raw.meta, strict=True))
    if raw.is_orphaned:
        _damaged(keys.meta, "is gone, and what belongs to it is not")
    if fields["deleted"] == b"1" or raw.left_ms == _NO_KEY:
        message = f"no conversation {conversation_id!r}"
        raise ConversationNotFoundError(message)
    try:
        epoch, seq, base, schema, first = (int(fields[name] or b"") for name in _NUMBERS)
        owner, life = (fields["owner"] or b"").decode(), (fields["life"] or b"").decode()
        active_at = int(fields["active_at"] or 0) / 1000
    except ValueError:
        _damaged(keys.meta, "its fields are missing or contradict each other")
    if schema > SCHEMA:
        message = f"{keys.meta}: written in layout {schema}; this version reads up to {SCHEMA}; upgrade this process"
        raise IncompatibleVersionError(message)
    if not first <= base <= seq:
        _damaged(keys.meta, "its fields are missing or contradict each other")
    if len(raw.journal) != seq - first:
        _damaged(keys.journal, f"holds {len(raw.journal)} entries where meta says {seq - first}")
    if (raw.snapshot is not None) != (fields["snapshot"] == b"1"):
        _damaged(keys.snapshot, "is gone" if raw.snapshot is None else "exists where meta says there is none")
    return Stored(
        conversation_id=conversation_id,
        life=life,
        epoch=epoch,
        owner=owner,
        seq=seq,
        snapshot_seq=base,
        snapshot=raw.snapshot,
        journal=tuple(raw.journal),
        left=timedelta(milliseconds=raw.left_ms),
        active_at=active_at,
        lag=lag,
        tenant=tenant,
    )


def _damaged(key: str, what: str) -> NoReturn:
    message = f"{key}: {what}"
    raise CorruptStateError(message, key=key, position=0) from None


def _lag(info: object) -> timedelta | None:
    """Return how long ago the server last heard from its primary; zero for a primary, None if it does not say.

    A primary that has nothing to say pings its replicas every ten seconds, unless it is configured otherwise.
    """
    if isinstance(info, RedisError) or not isinstance(info, dict):
        return None  # its user may not ask
    if info.get("role") == "master":
        return timedelta(0)
    is_up = info.get("master_link_status") == "up"
    seconds = info.get("master_last_io_seconds_ago" if is_up else "master_link_down_since_seconds", -1)
    return None if int(seconds) < 0 else timedelta(seconds=int(seconds))
