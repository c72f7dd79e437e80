"""Signs of life of those who hold a conversation's lease, and the claims on what they leave behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from conversation_actors.client.heartbeat_reader import HeartbeatReader
from conversation_actors.client.opening import open_checked_store
from conversation_actors.clock import uptime
from conversation_actors.settings import Settings
from conversation_actors.state.facts import LONGEST_LEASE
from conversation_actors.store import (
    ExpectationStore,
    HeartbeatRecord,
    HeartbeatStore,
    Place,
    Store,
    conversation_of,
    record_name,
)
from conversation_actors.values import check_id, decode, encode, refuse

DETAILS_BYTES = 8 << 10
"""Bytes of one record's details, in their stored form."""
MOST_CLAIMS = 1000
"""Records that one call claims at most: one script of the server's."""
FORGET = timedelta(hours=1)
"""After so long nobody waits any more for what a death interrupted."""

EXPECTATION_BYTES = 8 << 10
"""Bytes of one expectation, in its stored form."""

_LONGEST = timedelta(seconds=LONGEST_LEASE)
_LONGEST_MEMORY = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Somebody was called to a room, by the name that agents are called by there; `told` is what it is there for.

    `call` is the id of that very call, once it is known: in LiveKit, of the dispatch.
    """

    room: str
    agent_name: str
    told: Mapping[str, Any]
    call: str = ""
    is_declined: bool = False
    """Who came could not take it, and has gone again."""
    token: str = field(default_factory=lambda: uuid4().hex, repr=False)


class Heartbeats:
    """Signs of life of one lease's holders, in Redis beside the conversations; needs no Ray.

    A holder starts when it has acquired the lease, beats while it is alive and stops when it is done. Of one
    that falls silent, or is known to be dead, exactly one claimant gets the record, for as long as it says;
    when that dies too, the next one does. This says *when* to take over and *who* should. That the old holder
    can write no more is the lease's business (`ConversationHandle.acquire_lease`, `lease=`), which this
    changes nothing about: records are a hint, kept as durable as Redis keeps them, never more.

    Where several leases of one conversation are watched together, each holder gives its `role`, and has a record of its
    own. Beside the records stands who was called to a room to take a lease, and why (`expect`): a hint too.

    No two machines' clocks are compared. Every beat has a number; silent is a record that this object sees stand
    at the same one, by its own clock and counting only time in which Redis has answered it. So while Redis is away,
    hangs, steps its clock or has lost the records nobody falls silent; who looks must look often: at least six
    times while a beat is valid. A record that cannot be read is passed over, logged, counted, and dropped in time.

    Every method may be repeated, and raises `StoreUnavailableError` when Redis does not answer in time. An async
    context manager; belongs to one event loop.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        lease: str = "agent",
        clock: Callable[[], float] = uptime,
    ) -> None:
        """Without `settings`, read them from the environment. Connects when entered. `clock` gives seconds."""
        if settings is not None and not isinstance(settings, Settings):
            refuse("settings", f"expected Settings, got {type(settings).__name__}")
        self._settings = settings or Settings()
        self._lease = check_id(lease, "lease")
        self._clock = clock
        self._store: Store | None = None
        self._reader: HeartbeatReader | None = None

    async def __aenter__(self) -> Self:
        """Ask Redis whether it can do what this needs (`StoreMisconfiguredError`); it may be away for now."""
        self._store = await open_checked_store(self._settings)
        self._reader = HeartbeatReader(self._records, self._clock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. What was started is believed for as long as it said. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            await store.aclose()

    @property
    def damaged(self) -> int:
        """How many records this object could not read so far, each counted once as it stood."""
        return 0 if self._reader is None else self._reader.damaged

    @property
    def gaps(self) -> int:
        """How many times so far the count of a silence began anew, as there was too long between two answers.

        That is longer than a third of what the record is valid for, from when one question was sent to when the next
        one's answer was there. While this rises nobody who is silent is found: Redis is slow, or is asked seldom.
        """
        return 0 if self._reader is None else self._reader.gaps

    async def start(
        self,
        conversation_id: str,
        holder: str,
        *,
        valid_for: timedelta,
        role: str = "",
        group: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """The holder that has just acquired the lease begins: it is believed to live for `valid_for`.

        Takes the place of whatever record there was, claimed or not. `group` is what dies together.
        """
        await self._records.start(
            _name(conversation_id, role),
            check_id(holder, "holder"),
            valid_for=_duration(valid_for, "valid_for"),
            group=_group(group),
            details=_details({} if details is None else details),
        )

    async def beat(
        self,
        conversation_id: str,
        holder: str,
        *,
        valid_for: timedelta,
        role: str = "",
        group: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> bool:
        """Stay alive for `valid_for` from now. An empty `group`, and no `details`, leave those that were given before.

        False: the caller is deposed. Somebody has claimed this conversation, even if that claim was settled
        since, or another holder has started. A record that Redis lost is written anew (True).
        """
        return await self._records.beat(
            _name(conversation_id, role),
            check_id(holder, "holder"),
            valid_for=_duration(valid_for, "valid_for"),
            group=_group(group),
            details=None if details is None else _details(details),
        )

    async def stop(self, conversation_id: str, holder: str, *, role: str = "") -> bool:
        """The holder is done: nothing is to be taken over, not by a claimant either. False if it has no record."""
        return await self._records.end(_name(conversation_id, role), check_id(holder, "holder"))

    async def claim_expired(
        self, claimant: str, *, hold: timedelta, limit: int = 16, forget: timedelta = FORGET
    ) -> list[HeartbeatRecord]:
        """Claim the records, holders' and claimants', that this object has seen silent for as long as they are valid.

        To be called at a fixed rate, at least six times while a beat or a claim is valid: from the beginning of one
        call to that of the next is a sixth of that at most; where Redis takes longer, one follows the other at once.
        More than a third from a question to the next one's answer (`gaps`), or a call that failed, begins the count
        anew, and silence of less than a second is not looked at. The oldest come first.
        Each is given to exactly one caller, `attempt` one higher, and to the next one who has seen it silent for
        `hold`, where it was neither settled, postponed nor started anew. Those that this object has seen silent for
        longer than `forget` are dropped.
        """
        return await self._reading.claim_expired(
            check_id(claimant, "claimant"),
            hold=_duration(hold, "hold"),
            limit=_count(limit, "limit"),
            forget=_duration(forget, "forget", longest=_LONGEST_MEMORY),
        )

    async def claim(
        self, conversation_id: str, claimant: str, *, hold: timedelta, holder: str | None = None, role: str = ""
    ) -> HeartbeatRecord | None:
        """Claim one record: of a `holder` known to be dead, now; or (None) one that this object has seen silent.

        None if it is another holder's, if somebody else's claim holds (as long as this object has not seen it
        silent for its time), or if there is none. A repeat with `holder` holds a claim of one's own longer, and is
        no further attempt.
        """
        return await self._reading.claim(
            _name(conversation_id, role),
            check_id(claimant, "claimant"),
            hold=_duration(hold, "hold"),
            holder=None if holder is None else check_id(holder, "holder"),
        )

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """Claim, now, all records of one group that nobody has claimed: what it consisted of is known to be dead.

        Looks at every record of the lease: not for every beat. Cut short by an error, what it has claimed
        until then is claimed, for `hold`.
        """
        return await self._reading.claim_group(
            check_id(group, "group"), check_id(claimant, "claimant"), hold=_duration(hold, "hold")
        )

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """Keep a claim for `delay` from now; then it is anybody's who sees it silent for as long. False if it is lost.

        It is lost when somebody else has claimed the record after its time, or a new holder has started.
        """
        return await self._records.postpone(_record(record), delay=_duration(delay, "delay"))

    async def settle(self, record: HeartbeatRecord) -> bool:
        """Drop a claimed record: nothing more is to be done. False as of `postpone`."""
        return await self._records.settle(_record(record))

    async def keep(self, conversation_id: str) -> timedelta | None:
        """Count as use of the conversation itself: it is kept from now on for as long as its retention says.

        Returns that time, so that the next call can come well before it is over; None where there is no such
        conversation any more. Needs no owner: while a job lives its conversation does, whatever happens to Ray.
        """
        store = self._connected()
        return await store.keep(check_id(conversation_id, "conversation_id"), ttl=self._settings.ttl)

    async def find(self, conversation_id: str, *, role: str = "") -> HeartbeatRecord | None:
        """The record of one conversation, if there is one that can be read.

        `silent_for` is zero at the first look; who asks at least six times while a beat is valid sees it rise.
        """
        return await self._reading.find(_name(conversation_id, role))

    async def announce(self, conversation_id: str, holder: str, *, role: str = "") -> None:
        """Note that a holder is on its way to a conversation, before it has the lease: `held_by` names it.

        Remembered for ten minutes, and longer where it begins. It is no sign of life, and says nothing of who has the
        conversation: whoever sees the holder die knows by it what it was there for.
        """
        await self._records.announce(_name(conversation_id, role), check_id(holder, "holder"))

    async def withdraw(self, conversation_id: str, holder: str, *, role: str = "") -> None:
        """Take an announcement back: the holder does not go there, or goes in order."""
        await self._records.withdraw(_name(conversation_id, role), check_id(holder, "holder"))

    async def held_by(self, holder: str) -> list[tuple[str, str]]:
        """Conversations, and roles, that a holder has begun with, or has announced, whoever has them now.

        Remembered as long as the holder beats, and for ten minutes behind that. Empty: it has begun with none.
        """
        return [conversation_of(name) for name in await self._records.held_by(check_id(holder, "holder"))]

    async def roles_of(self, conversation_id: str) -> list[str]:
        """Roles that have a record of a conversation, beside that of the holder without one.

        Looks at every record of the lease: not for every beat.
        """
        return list(await self._records.roles_of(check_id(conversation_id, "conversation_id")))

    async def expect(self, room: str, agent_name: str, told: Mapping[str, Any], *, keep: timedelta) -> Expectation:
        """Note, for `keep` from now, that somebody is about to be called to a room, and what for.

        To be written before the call, so that whoever comes finds it. `agent_name` may be empty.
        """
        expectation = Expectation(room, agent_name, dict(told))
        await self._put(expectation, keep=keep, is_new=True)
        return expectation

    async def amend(self, expectation: Expectation, *, keep: timedelta) -> bool:
        """Put `expectation` in the place of the one it was made of, for `keep` from now; False if that is gone."""
        return await self._put(_expectation(expectation), keep=keep, is_new=False)

    async def expected(self, room: str, agent_name: str) -> list[Expectation]:
        """Those that stand for a room and a name. Of them whoever comes takes the one that has its call."""
        found = await self._expectations.all(_place(room, agent_name))
        read = [_read_expectation(room, agent_name, token, told) for token, told in found]
        return [one for one in read if one is not None]

    async def met(self, expectation: Expectation) -> bool:
        """Who was expected is there, or is not to come: forget it. False if it is forgotten already."""
        kept = _expectation(expectation)
        return await self._expectations.drop(_place(kept.room, kept.agent_name), kept.token)

    async def _put(self, expectation: Expectation, *, keep: timedelta, is_new: bool) -> bool:
        fields = {"told": expectation.told, "call": expectation.call, "is_declined": expectation.is_declined}
        return await self._expectations.put(
            _place(expectation.room, expectation.agent_name),
            expectation.token,
            encode(fields, "told", limit=EXPECTATION_BYTES),
            keep=_duration(keep, "keep"),
            is_new=is_new,
        )

    @property
    def _expectations(self) -> ExpectationStore:
        return self._connected().expectations(self._lease)

    @property
    def _records(self) -> HeartbeatStore:
        return self._connected().heartbeats(self._lease, ttl=self._settings.ttl)

    def _connected(self) -> Store:
        if self._store is None:
            refuse("heartbeats", "not connected; use `async with Heartbeats() as heartbeats`")
        return self._store

    @property
    def _reading(self) -> HeartbeatReader:
        if self._store is None or self._reader is None:
            refuse("heartbeats", "not connected; use `async with Heartbeats() as heartbeats`")
        return self._reader


def _name(conversation_id: object, role: object) -> str:
    return record_name(check_id(conversation_id, "conversation_id"), "" if role == "" else check_id(role, "role"))


def _place(room: object, agent_name: object) -> Place:
    return Place(check_id(room, "room"), "" if agent_name == "" else check_id(agent_name, "agent_name"))


def _expectation(value: object) -> Expectation:
    if not isinstance(value, Expectation):
        refuse("expectation", f"expected the Expectation that was made, got {type(value).__name__}")
    return value


def _read_expectation(room: str, agent_name: str, token: str, data: bytes) -> Expectation | None:
    """None for what another program, or a newer version, has written in another form."""
    try:
        fields = decode(data)
        told, call = fields["told"], fields["call"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (isinstance(told, dict) and isinstance(call, str)):
        return None
    return Expectation(room, agent_name, told, call, fields.get("is_declined") is True, token)


def _duration(value: object, field: str, *, longest: timedelta = _LONGEST) -> timedelta:
    if not isinstance(value, timedelta):
        refuse(field, f"expected a timedelta, got {type(value).__name__}")
    if not timedelta(0) < value <= longest:
        refuse(field, f"{value} is not between 0 and {longest}")
    return value


def _count(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_CLAIMS:
        refuse(field, f"expected a whole number from 1 to {MOST_CLAIMS}, got {value!r}")
    return value


def _group(value: object) -> str:
    return "" if value == "" else check_id(value, "group")


def _details(value: object) -> bytes:
    if not isinstance(value, Mapping):
        refuse("details", f"expected a mapping, got {type(value).__name__}")
    return encode(dict(value), "details", limit=DETAILS_BYTES)


def _record(value: object) -> HeartbeatRecord:
    if not isinstance(value, HeartbeatRecord):
        refuse("record", f"expected the HeartbeatRecord that was claimed, got {type(value).__name__}")
    return value
