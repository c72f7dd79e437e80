"""Signs of life on Redis: one slot and a few short scripts for each lease."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from conversation_actors.store.heartbeats import (
    ENDED_SECONDS,
    NO_BEAT,
    Beat,
    Damaged,
    Found,
    HeartbeatRecord,
    Page,
    conversation_of,
)
from conversation_actors.store.keys import HeartbeatKeys
from conversation_actors.store.script_calls import Argument, ScriptCalls, milliseconds
from conversation_actors.store.scripts import heartbeat_script
from conversation_actors.values import decode

_PAGE = 500
"""Records that one script looks at when it looks for a group."""
_REMEMBER_MS = int(ENDED_SECONDS * 1000)
_FIELDS = 3
"""What a reply says of one record."""


class RedisHeartbeats:
    """A `HeartbeatStore` on Redis. All of its keys are gone when nothing was written for `ttl`."""

    def __init__(
        self, calls: ScriptCalls, keys: HeartbeatKeys, *, ttl: timedelta, remember_ms: int = _REMEMBER_MS
    ) -> None:
        """Share the connections of the store. `remember_ms`: how long ends, and holders, are remembered."""
        self._calls, self._keys, self._ttl, self._remember_ms = calls, keys, milliseconds(ttl), remember_ms

    async def check(self) -> None:
        """Run every script once; meant for keys that no lease has. What it leaves is gone after `ttl`."""
        hold = timedelta(milliseconds=self._ttl)
        await self.start("check", "check", valid_for=hold, group="check", details=b"{}")
        await self.beat("check", "check", valid_for=hold, group="", details=None)
        seen = await self.find("check")
        page = await self.silent(after=0, until=2, limit=1)
        await self.claim("check", "check", hold=hold, holder=None, seen=seen.beat if seen else NO_BEAT)
        await self.claim_silent([one for one in page.found if isinstance(one, HeartbeatRecord)], "check", hold=hold)
        await self.start("check", "check", valid_for=hold, group="check", details=b"{}")
        for record in await self.claim_group("check", "check", hold=hold):
            if isinstance(record, HeartbeatRecord):
                await self.postpone(record, delay=hold)
                await self._end("check", "check", "check", record.attempt)
        await self.start("dropped", "check", valid_for=hold, group="check", details=b"{}")
        dropped = await self.find("dropped")
        await self.drop([dropped] if dropped else [])
        await self.announce("announced", "check")
        await self.withdraw("announced", "check")
        await self.held_by("check")
        await self.roles_of("check")

    async def start(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes
    ) -> None:
        """See `HeartbeatStore.start`."""
        told = (conversation_id, holder, group, details, milliseconds(valid_for))
        keys = *self._keys.of(conversation_id), self._keys.held(holder)
        await self._run("start", keys, *told, self._ttl, _fresh(), self._remember_ms)

    async def beat(
        self, conversation_id: str, holder: str, *, valid_for: timedelta, group: str, details: bytes | None
    ) -> bool:
        """See `HeartbeatStore.beat`."""
        told = (conversation_id, holder, group, details or b"", milliseconds(valid_for))
        keys = *self._keys.of(conversation_id), self._keys.held(holder)
        return _is_ok(await self._run("beat", keys, *told, self._ttl, _fresh(), self._remember_ms))

    async def end(self, conversation_id: str, holder: str) -> bool:
        """See `HeartbeatStore.end`."""
        return await self._end(conversation_id, holder, "", 0)

    async def silent(self, *, after: int, until: int, limit: int) -> Page:
        """See `HeartbeatStore.silent`."""
        _, incarnation, count, *flat = await self._run("silent", self._keys.shared, after, until, limit)
        return Page(Beat(_name(incarnation), int(count)), tuple(_found(incarnation, flat)))

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None, seen: Beat | None
    ) -> Found | None:
        """See `HeartbeatStore.claim`."""
        beat = (_raw(seen.incarnation), seen.number) if seen else ("", "")
        place = (conversation_id, claimant, holder or "", *beat, milliseconds(hold), self._ttl, _fresh())
        return _one(await self._run("claim", self._keys.shared, *place))

    async def claim_silent(self, records: Sequence[HeartbeatRecord], claimant: str, *, hold: timedelta) -> list[Found]:
        """See `HeartbeatStore.claim_silent`."""
        if not records:
            return []
        place = (claimant, milliseconds(hold), self._ttl, _raw(records[0].beat.incarnation), _fresh())
        _, incarnation, _, *flat = await self._run("claim_silent", self._keys.shared, *place, *_flat(records))
        return _found(incarnation, flat)

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[Found]:
        """See `HeartbeatStore.claim_group`. Pages through all records, so that no script takes long."""
        claimed: list[Found] = []
        cursor = b""
        while cursor != b"0":
            place = (cursor or b"0", _PAGE, group, claimant, milliseconds(hold), self._ttl, _fresh())
            _, incarnation, _, cursor, *flat = await self._run("claim_group", self._keys.shared, *place)
            claimed += _found(incarnation, flat)
        return claimed

    async def drop(self, found: Sequence[Found]) -> None:
        """See `HeartbeatStore.drop`."""
        if found:
            await self._run("drop", self._keys.shared, _raw(found[0].beat.incarnation), *_flat(found))

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """See `HeartbeatStore.postpone`."""
        claim = (record.name, record.holder, record.claimant or "", record.attempt)
        return _is_ok(await self._run("postpone", self._keys.shared, *claim, milliseconds(delay), self._ttl, _fresh()))

    async def settle(self, record: HeartbeatRecord) -> bool:
        """See `HeartbeatStore.settle`."""
        if record.claimant is None:
            return False
        return await self._end(record.name, record.holder, record.claimant, record.attempt)

    async def find(self, conversation_id: str) -> Found | None:
        """See `HeartbeatStore.find`."""
        return _one(await self._run("find", self._keys.shared, conversation_id))

    async def announce(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.announce`."""
        keys = *self._keys.shared, self._keys.held(holder)
        await self._run("announce", keys, conversation_id, self._remember_ms)

    async def withdraw(self, conversation_id: str, holder: str) -> None:
        """See `HeartbeatStore.withdraw`."""
        await self._run("withdraw", (*self._keys.shared, self._keys.held(holder)), conversation_id)

    async def held_by(self, holder: str) -> list[str]:
        """See `HeartbeatStore.held_by`."""
        _, *names = await self._run("held", (*self._keys.shared, self._keys.held(holder)))
        return sorted(_name(name) for name in names)

    async def roles_of(self, conversation_id: str) -> list[str]:
        """See `HeartbeatStore.roles_of`. Pages through all records, so that no script takes long."""
        roles: set[str] = set()
        cursor = b""
        while cursor != b"0":
            place = (cursor or b"0", _PAGE, conversation_id)
            _, cursor, *names = await self._run("names", self._keys.shared, *place)
            found = (conversation_of(_name(name)) for name in names)
            roles |= {role for told_id, role in found if told_id == conversation_id and role}
        return sorted(roles)

    async def _end(self, conversation_id: str, holder: str, claimant: str, attempt: int) -> bool:
        claim = (conversation_id, holder, claimant, attempt)
        return _is_ok(await self._run("end", self._keys.of(conversation_id), *claim, self._remember_ms))

    async def _run(self, name: str, keys: Sequence[str], *arguments: Argument) -> list[Any]:
        return await self._calls.on_index(heartbeat_script(name), keys, *arguments)


def _one(reply: list[Any]) -> Found | None:
    return _found(reply[1], reply[3:])[0] if _is_ok(reply) else None


def _found(incarnation: bytes, flat: Sequence[Any]) -> list[Found]:
    return [_record(incarnation, *flat[at : at + _FIELDS]) for at in range(0, len(flat), _FIELDS)]


def _record(incarnation: bytes, conversation_id: bytes, text: bytes, number: bytes) -> Found:
    beat = Beat(_name(incarnation), _number(number))
    try:
        fields = decode(text)
        told_id, role = conversation_of(conversation_id.decode())
        return HeartbeatRecord(
            conversation_id=told_id,
            role=role,
            holder=_text(fields["holder"]),
            group=_text(fields["group"]),
            details=_object(decode(fields["details"].encode())),
            attempt=_count(fields["attempt"]),
            claimant=_text(fields["claimant"]) if "claimant" in fields else None,
            valid_for=timedelta(milliseconds=_count(fields["valid_for"], least=1)),
            beat=beat,
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return Damaged(_name(conversation_id), beat)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _count(value: object, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TypeError
    return value


def _number(score: bytes) -> int:
    """Return the number of a beat; -1, which is none, for what no beat has written."""
    return int(score) if score.isdigit() else -1


def _flat(found: Sequence[Found]) -> list[Argument]:
    return [part for one in found for part in (_raw(one.name), one.beat.number)]


def _name(raw: bytes) -> str:
    """Read what is stored as a name; what is damaged may be no text, and reads back all the same."""
    return raw.decode(errors="surrogateescape")


def _raw(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _fresh() -> str:
    """Return a name for the beats from now on, should those before be lost. No two calls give the same one."""
    return secrets.token_hex(8)


def _is_ok(reply: list[Any]) -> bool:
    return bool(reply[0] == b"OK")
