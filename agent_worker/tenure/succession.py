"""How a job becomes the agent: as the first, or after one that is dead, that gives the call over, or lets it go."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.tenure.heartbeat_details import HeartbeatDetails
from agent_worker.tenure.role import attribute_name, record_role
from agent_worker.tenure.vigil import Vigil
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, Heartbeats, Lease, LeaseHeldError
from conversation_actors.calls import names
from conversation_actors.errors import ConflictError

logger = logging.getLogger(__name__)

HANDOVER = names.HANDOVER
"""The attribute in which a successor asks the agent to give the call over: ``to``, ``from``, and ``room`` if it
is in another room than the agent; then the agent goes at once, or adds `REFUSED`. It is removed when that is done."""
REFUSED = names.REFUSED
LEASE_DURATION = timedelta(seconds=60)
"""By the owner's clock; whether the holder is alive is told by its heartbeat, far sooner."""
_WISH_TRIES = 5


@dataclass(frozen=True, slots=True)
class Successor:
    """The job that is to be the agent."""

    conversation_id: str
    role: str
    holder: str
    room: str


def wish_of(handle: ConversationHandle, role: str) -> Mapping[str, Any]:
    """Return what a successor asks for; empty if nothing is asked, or not by one of ours."""
    wish = handle.attributes.get(attribute_name(HANDOVER, role))
    return wish if isinstance(wish, Mapping) else {}


class Succession:
    """One job's way to the lease of one conversation."""

    def __init__(
        self,
        me: Successor,
        handle: ConversationHandle,
        heartbeats: Heartbeats,
        assignment: Assignment,
        *,
        settings: TakeoverSettings,
        is_ready: asyncio.Event,
        on_restart: Callable[[RestartReason | None], None],
        timing: Timing = TIMING,
    ) -> None:
        """`is_ready` is set when this job could go on with the call. `on_restart` hears that it follows, and why."""
        self._me, self._handle, self._heartbeats, self._assignment = me, handle, heartbeats, assignment
        self._settings, self._is_ready, self._on_restart, self._timing = settings, is_ready, on_restart, timing

    async def acquire(self) -> Lease:
        """Become the agent: the first, the follower of a dead one, or the follower of one that gives the call over.

        A planned successor waits `handover` for the agent that it was called to follow, and then takes the lease even
        from a living holder. Any other job takes the lease from the agent that its assignment `replaces`, from one that
        is found dead, or from one in another room that lets go. Raises `LeaseHeldError` if somebody else is alive and
        keeps the lease.
        """
        held = self._handle.leases.get(self._me.role)
        # at a second try the lease may be this job's own, which took it from an agent before
        if (held is not None and held.holder != self._me.holder) or self._assignment.replaces is not None:
            self._on_restart(self._assignment.reason)
        if self._assignment.is_planned:
            await self._is_ready.wait()
        try:
            lease = await self._acquire()
        except LeaseHeldError:
            await self._withdraw()
            raise
        await self._clear_wish(lease)
        return lease

    async def _acquire(self) -> Lease:
        is_planned = self._assignment.is_planned
        replacing = None if is_planned else self._assignment.replaces
        patience = self._settings.handover if is_planned else self._settings.valid_for
        deadline = time.monotonic() + patience.total_seconds()
        asked = False
        while True:
            try:
                return await self._handle.acquire_lease(
                    self._me.role, holder=self._me.holder, duration=LEASE_DURATION, replacing=replacing
                )
            except LeaseHeldError as held:
                holder = held.holder
                if is_planned and not asked and self._may_follow(holder, replacing):
                    asked = True
                    await self._wish_for({"to": self._me.holder, "from": holder})
                if await self._is_dead(holder):
                    replacing = holder
                    await self._find_reason(holder)
                    continue
                if not self._may_follow(holder, replacing):
                    if await self._has_yielded(holder):
                        continue
                    raise
                if time.monotonic() > deadline:
                    if not is_planned:
                        raise
                    replacing = holder
                    continue
            await self._until_released(holder, deadline)

    def _may_follow(self, holder: str, replacing: str | None) -> bool:
        """Whether to wait for a living holder to go; a second successor must not take the first one's place."""
        if self._assignment.is_planned:
            return self._assignment.replaces in {None, holder}
        return replacing is not None

    async def _has_yielded(self, holder: str) -> bool:
        """Ask a living agent in another room for the call; it goes at once if nobody is left there.

        False if it is in this room, says no, or is silent for as long as a heartbeat lasts, and alive then.
        """
        room = None if self._assignment.is_planned or self._assignment.replaces else await self._room_of(holder)
        if room in {None, self._me.room}:
            return False
        await self._wish_for({"to": self._me.holder, "from": holder, "room": self._me.room})
        if await self._until_released(holder, time.monotonic() + self._settings.valid_for.total_seconds()):
            self._on_restart(RestartReason.REDIAL)
            return True
        wish = wish_of(self._handle, self._me.role)
        is_refused = wish.get("to") == self._me.holder and REFUSED in wish
        if not is_refused and await self._is_dead(holder):
            return True
        fields = {
            "conversation_id": self._me.conversation_id,
            "holder": holder,
            "room": room,
            "has_answered": is_refused,
        }
        logger.warning("an agent in another room keeps the conversation", extra=fields)
        return False

    async def _find_reason(self, dead: str) -> None:
        """Tell silence from a death that somebody has seen, if nobody has told why there is one to follow."""
        if self._assignment.reason is not None:
            return
        record = await self._heartbeats.find(self._me.conversation_id, role=record_role(self._me.role))
        is_claimed = record is not None and record.holder == dead and record.claimant is not None
        self._on_restart(RestartReason.UNKNOWN if is_claimed else RestartReason.SILENCE)

    async def _wish_for(self, wish: Mapping[str, Any] | None) -> None:
        await self._handle.set_attributes({attribute_name(HANDOVER, self._me.role): wish})

    async def _withdraw(self) -> None:
        """Ask for nothing any more: else the agent would go, when it gets to it, for one that is here no more."""
        if wish_of(self._handle, self._me.role).get("to") == self._me.holder:
            await self._wish_for(None)

    async def _clear_wish(self, lease: Lease) -> None:
        """Remove what was asked of an agent before: the lease is here. What is asked of this one meanwhile stays."""
        for _ in range(_WISH_TRIES):
            seen = self._handle.seq
            if wish_of(self._handle, self._me.role).get("from") in {None, self._me.holder}:
                return
            with suppress(ConflictError):
                name = attribute_name(HANDOVER, self._me.role)
                await self._handle.set_attributes({name: None}, expected_seq=seen, lease=lease)

    async def _room_of(self, holder: str) -> str | None:
        """Return the room in which a lease's holder says that it is."""
        record = await self._heartbeats.find(self._me.conversation_id, role=record_role(self._me.role))
        if record is None or record.holder != holder:
            return None
        return HeartbeatDetails.from_dict(record.details).room or None

    async def _until_released(self, holder: str, deadline: float) -> bool:
        """Whether the local copy shows the lease in other hands, or in none, before it is refused; no I/O."""
        while time.monotonic() < deadline:
            lease = self._handle.leases.get(self._me.role)
            if lease is None or lease.holder != holder:
                return True
            wish = wish_of(self._handle, self._me.role)
            if wish.get("to") == self._me.holder and REFUSED in wish:
                return False
            await asyncio.sleep(self._timing.handover_look)
        return False

    async def _is_dead(self, holder: str) -> bool:
        """Whether nothing is heard of a lease's holder for as long as a heartbeat lasts; False once it lets go."""
        vigil = Vigil(
            self._heartbeats, self._me.conversation_id, holder, valid_for=self._settings.valid_for, role=self._me.role
        )

        async def pause() -> bool:
            until = time.monotonic() + self._settings.poll_interval.total_seconds()
            is_released = await self._until_released(holder, until)
            await asyncio.sleep(0 if is_released else until - time.monotonic())
            return is_released

        return await vigil.is_dead(pause)
