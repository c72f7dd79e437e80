"""Signs of life on Redis: one slot and a few short scripts for each lease."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from conversation_actors.errors import CorruptStateError
from conversation_actors.store.heartbeats import ENDED_SECONDS, HeartbeatRecord
from conversation_actors.store.keys import HeartbeatKeys
from conversation_actors.store.script_calls import Argument, ScriptCalls
from conversation_actors.store.scripts import heartbeat_script
from conversation_actors.values import decode

_PAGE = 500
"""Records that one script looks at when it looks for a group."""
_FIELDS = 3
"""What a reply says of one record."""


class RedisHeartbeats:
    """A `HeartbeatStore` on Redis. Both of its keys are gone when nothing was written for `ttl`."""

    def __init__(self, calls: ScriptCalls, keys: HeartbeatKeys, *, ttl: timedelta) -> None:
        """Share the connections of the store."""
        self._calls, self._keys, self._ttl = calls, keys, _milliseconds(ttl)

    async def check(self) -> None:
        """Run every script once; meant for keys that no lease has. What it leaves is gone after `ttl`."""
        hold = timedelta(milliseconds=self._ttl)
        await self.start("check", "check", valid_for=hold, group="check", details=b"{}")
        await self.beat("check", "check", valid_for=hold, group="", details=None)
        await self.claim_expired("check", hold=hold, limit=1, forget=hold)
        await self.claim("check", "check", hold=hold, holder=None)
        for record in await self.claim_group("check", "check", hold=hold):
            await self.postpone(record, delay=hold)
            await self._end("check", "check", "check", record.attempt, remember_ms=self._ttl)
        await self.find("check")

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """See `HeartbeatStore.start`."""
        keys = self._keys.of(conversation_id)
        await self._run("start", keys, conversation_id, holder, group, details, _milliseconds(valid_for), self._ttl)

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """See `HeartbeatStore.beat`."""
        keys = self._keys.of(conversation_id)
        known = details or b""
        reply = await self._run(
            "beat", keys, conversation_id, holder, group, known, _milliseconds(valid_for), self._ttl
        )
        return _is_ok(reply)

    async def end(self, conversation_id: str, holder: str) -> bool:
        """See `HeartbeatStore.end`."""
        return await self._end(conversation_id, holder, "", 0)

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None
    ) -> HeartbeatRecord | None:
        """See `HeartbeatStore.claim`."""
        place = (conversation_id, claimant, holder or "", _milliseconds(hold), self._ttl)
        return self._one(await self._run("claim", self._keys.shared, *place))

    async def claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int, forget: timedelta
    ) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_expired`."""
        bounds = (_milliseconds(hold), limit, _milliseconds(forget), self._ttl)
        return self._records((await self._run("claim_expired", self._keys.shared, claimant, *bounds))[1:])

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """See `HeartbeatStore.claim_group`. Pages through all records, so that no script takes long."""
        claimed: list[HeartbeatRecord] = []
        cursor = b""
        while cursor != b"0":
            place = (cursor or b"0", _PAGE, group, claimant, _milliseconds(hold), self._ttl)
            _, cursor, *found = await self._run("claim_group", self._keys.shared, *place)
            claimed += self._records(found)
        return claimed

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """See `HeartbeatStore.postpone`."""
        claim = (record.conversation_id, record.holder, record.claimant or "", record.attempt)
        return _is_ok(await self._run("postpone", self._keys.shared, *claim, _milliseconds(delay), self._ttl))

    async def settle(self, record: HeartbeatRecord) -> bool:
        """See `HeartbeatStore.settle`."""
        if record.claimant is None:
            return False
        return await self._end(record.conversation_id, record.holder, record.claimant, record.attempt)

    async def find(self, conversation_id: str) -> HeartbeatRecord | None:
        """See `HeartbeatStore.find`."""
        return self._one(await self._run("find", self._keys.shared, conversation_id))

    async def _end(
        self,
        conversation_id: str,
        holder: str,
        claimant: str,
        attempt: int,
        *,
        remember_ms: int = int(ENDED_SECONDS * 1000),
    ) -> bool:
        claim = (conversation_id, holder, claimant, attempt)
        return _is_ok(await self._run("end", self._keys.of(conversation_id), *claim, remember_ms))

    async def _run(self, name: str, keys: Sequence[str], *arguments: Argument) -> list[Any]:
        return await self._calls.on_index(heartbeat_script(name), keys, *arguments)

    def _one(self, reply: list[Any]) -> HeartbeatRecord | None:
        return self._records(reply[1:])[0] if _is_ok(reply) else None

    def _records(self, flat: Sequence[Any]) -> list[HeartbeatRecord]:
        return [self._record(*flat[at : at + _FIELDS]) for at in range(0, len(flat), _FIELDS)]

    def _record(self, conversation_id: bytes, text: bytes, expired_ms: bytes) -> HeartbeatRecord:
        try:
            fields = decode(text)
            details = decode(fields["details"].encode())
            return HeartbeatRecord(
                conversation_id=conversation_id.decode(),
                holder=fields["holder"],
                group=fields["group"],
                details=details,
                attempt=int(fields["attempt"]),
                claimant=fields.get("claimant"),
                expired_for=timedelta(milliseconds=int(expired_ms)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            key = self._keys.holders
            message = f"{key}: the record of {conversation_id!r} cannot be read"
            raise CorruptStateError(message, key=key, position=0) from error


def _is_ok(reply: list[Any]) -> bool:
    return bool(reply[0] == b"OK")


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))
