"""Signs of life of those who hold a conversation's lease, and the claims on what they leave behind."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from conversation_actors.client.expectations import Expectation, check_expectation, place_of, read_expectation, written
from conversation_actors.client.heartbeat_arguments import (
    check_count,
    check_duration,
    check_group,
    check_record,
    encode_details,
    name_of,
)
from conversation_actors.client.heartbeat_reader import HeartbeatReader
from conversation_actors.client.opening import open_checked_store
from conversation_actors.clock import uptime
from conversation_actors.settings import Settings
from conversation_actors.store import (
    ExpectationStore,
    HeartbeatRecord,
    HeartbeatStore,
    Store,
    conversation_of,
)
from conversation_actors.values import check_id, refuse

FORGET = timedelta(hours=1)
"""After so long nobody waits any more for what a death interrupted."""

_LONGEST_MEMORY = timedelta(days=366)


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

    Example:
        async with Heartbeats() as heartbeats:  # CONVERSATION_REDIS_URL
            await heartbeats.start("support-42", "job-1", valid_for=timedelta(seconds=3))
            record = await heartbeats.find("support-42")
            assert record is not None
            assert record.holder == "job-1"
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
        """Begin, as the holder that has just acquired the lease: it is believed to live for `valid_for`.

        Takes the place of whatever record there was, claimed or not. `group` is what dies together.
        """
        await self._records.start(
            name_of(conversation_id, role),
            check_id(holder, "holder"),
            valid_for=check_duration(valid_for, "valid_for"),
            group=check_group(group),
            details=encode_details({} if details is None else details),
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
            name_of(conversation_id, role),
            check_id(holder, "holder"),
            valid_for=check_duration(valid_for, "valid_for"),
            group=check_group(group),
            details=None if details is None else encode_details(details),
        )

    async def stop(self, conversation_id: str, holder: str, *, role: str = "") -> bool:
        """Note that the holder is done: nobody is to take over, no claimant either. False if it has no record."""
        return await self._records.end(name_of(conversation_id, role), check_id(holder, "holder"))

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
            hold=check_duration(hold, "hold"),
            limit=check_count(limit, "limit"),
            forget=check_duration(forget, "forget", longest=_LONGEST_MEMORY),
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
            name_of(conversation_id, role),
            check_id(claimant, "claimant"),
            hold=check_duration(hold, "hold"),
            holder=None if holder is None else check_id(holder, "holder"),
        )

    async def claim_group(self, group: str, claimant: str, *, hold: timedelta) -> list[HeartbeatRecord]:
        """Claim, now, all records of one group that nobody has claimed: what it consisted of is known to be dead.

        Looks at every record of the lease: not for every beat. Cut short by an error, what it has claimed
        until then is claimed, for `hold`.
        """
        return await self._reading.claim_group(
            check_id(group, "group"), check_id(claimant, "claimant"), hold=check_duration(hold, "hold")
        )

    async def postpone(self, record: HeartbeatRecord, *, delay: timedelta) -> bool:
        """Keep a claim for `delay` from now; then it is anybody's who sees it silent for as long. False if it is lost.

        It is lost when somebody else has claimed the record after its time, or a new holder has started.
        """
        return await self._records.postpone(check_record(record), delay=check_duration(delay, "delay"))

    async def settle(self, record: HeartbeatRecord) -> bool:
        """Drop a claimed record: nothing more is to be done. False as of `postpone`."""
        return await self._records.settle(check_record(record))

    async def keep(self, conversation_id: str) -> timedelta | None:
        """Count as use of the conversation itself: it is kept from now on for as long as its retention says.

        Returns that time, so that the next call can come well before it is over; None if there is no such
        conversation any more. Needs no owner: while a job lives its conversation does, whatever happens to Ray.
        """
        store = self._connected()
        return await store.keep(check_id(conversation_id, "conversation_id"), ttl=self._settings.ttl)

    async def find(self, conversation_id: str, *, role: str = "") -> HeartbeatRecord | None:
        """Return the record of one conversation, if there is one that can be read.

        `silent_for` is zero at the first look; who asks at least six times while a beat is valid sees it rise.
        """
        return await self._reading.find(name_of(conversation_id, role))

    async def announce(self, conversation_id: str, holder: str, *, role: str = "") -> None:
        """Note that a holder is on its way to a conversation, before it has the lease: `held_by` names it.

        Remembered for ten minutes, and longer where it begins. It is no sign of life, and says nothing of who has the
        conversation: whoever sees the holder die knows by it what it was there for.
        """
        await self._records.announce(name_of(conversation_id, role), check_id(holder, "holder"))

    async def withdraw(self, conversation_id: str, holder: str, *, role: str = "") -> None:
        """Take an announcement back: the holder does not go there, or goes in order."""
        await self._records.withdraw(name_of(conversation_id, role), check_id(holder, "holder"))

    async def held_by(self, holder: str) -> list[tuple[str, str]]:
        """Conversations, and roles, that a holder has begun with, or has announced, whoever has them now.

        Remembered as long as the holder beats, and for ten minutes after that. Empty: it has begun with none.
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
        return await self._put(check_expectation(expectation), keep=keep, is_new=False)

    async def expected(self, room: str, agent_name: str) -> list[Expectation]:
        """Those that stand for a room and a name. Of them whoever comes takes the one that has its call."""
        found = await self._expectations.all(place_of(room, agent_name))
        read = [read_expectation(room, agent_name, token, told) for token, told in found]
        return [one for one in read if one is not None]

    async def met(self, expectation: Expectation) -> bool:
        """Who was expected is there, or is not to come: forget it. False if it is forgotten already."""
        kept = check_expectation(expectation)
        return await self._expectations.drop(place_of(kept.room, kept.agent_name), kept.token)

    async def _put(self, expectation: Expectation, *, keep: timedelta, is_new: bool) -> bool:
        return await self._expectations.put(
            place_of(expectation.room, expectation.agent_name),
            expectation.token,
            written(expectation),
            keep=check_duration(keep, "keep"),
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
