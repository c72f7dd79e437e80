"""The end of a job is not the end of its room: whoever has the call now is still in it.

An application ends a call by deleting the room or by putting the caller out of it, in a shutdown callback, at the
session's close, or with an API client of its own. All of these meet in two methods of LiveKit's `RoomService`, so
both ask here first, in a job's process.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import ReferenceType, ref

from livekit.api.room_service import RoomService
from livekit.protocol.room import DeleteRoomResponse, RemoveParticipantResponse

from agent_worker.timing import TIMING, Timing

logger = logging.getLogger(__name__)

_GUARDED = "conversation_keepers"
"""Attribute of a method that was wrapped, with those who are asked."""


class Keeper(Protocol):
    """Whoever knows what becomes of the call in one room."""

    async def goes_on(self) -> bool:
        """Whether the call goes on without this job; never raises."""

    def is_others(self, identity: str) -> bool:
        """Whether a participant of the room is not the job's own."""

    async def ends(self, identity: str | None) -> bool:
        """Do what comes before a room is deleted, or somebody put out of it, in a call that does not go on.

        Return whether that took time. Never raises.
        """

    def deleted(self) -> None:
        """Note that this job has deleted the room."""


_Method = Callable[[RoomService, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One who is asked, and the loop in which that can be done."""

    room: str
    keeper: ReferenceType[Keeper]
    loop: asyncio.AbstractEventLoop
    patience: float
    """Seconds that a job in another thread waits for an answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A keeper that is still there."""

    keeper: Keeper
    loop: asyncio.AbstractEventLoop
    patience: float

    @property
    def runs_here(self) -> bool:
        """Whether the keeper belongs to the loop that runs."""
        return self.loop is asyncio.get_running_loop()

    async def goes_on(self) -> bool:
        """Return whether this keeper says that the call goes on."""
        return await (self.keeper.goes_on() if self.runs_here else self._asked_elsewhere())

    async def _asked_elsewhere(self) -> bool:
        """Ask in the keeper's own loop; a keeper that does not answer may be waiting for what is asked for."""
        answer = asyncio.run_coroutine_threadsafe(self.keeper.goes_on(), self.loop)
        try:
            async with asyncio.timeout(self.patience):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            return True


class _Keepers:
    """Those who are asked: several of one room, if a process has several jobs, or a job several parts, in it."""

    def __init__(self) -> None:
        """Nobody is."""
        self._entries: tuple[_Entry, ...] = ()

    def add(self, room: str, keeper: Keeper, *, patience: float) -> None:
        """Ask a keeper from now on, in the loop that runs, while both are there."""
        new = _Entry(room, ref(keeper), asyncio.get_running_loop(), patience)
        self._entries = (*(one for one in self._entries if one.keeper() is not None), new)

    def of(self, room: str) -> list[_Asked]:
        """Return who decides about a room: the job that asks, or all jobs if none of them asks."""
        of_room = [(one, one.keeper()) for one in self._entries if one.room == room and one.loop.is_running()]
        there = [_Asked(keeper, one.loop, one.patience) for one, keeper in of_room if keeper is not None]
        return [one for one in there if one.runs_here] or there


_changing = threading.Lock()


def guard(room: str, keeper: Keeper, *, timing: Timing = TIMING) -> None:
    """Leave a room, and the people in it, alone if `keeper` says that the call goes on.

    What was asked for is not done then, and answered as if it was done; one line is logged. The keeper is asked for as
    long as it lives, in the loop that runs now.
    """
    with _changing:
        keepers: _Keepers | None = getattr(RoomService.delete_room, _GUARDED, None)
        if keepers is None:
            keepers = _Keepers()
            _wrap("delete_room", keepers, DeleteRoomResponse)
            _wrap("remove_participant", keepers, RemoveParticipantResponse)
        keepers.add(room, keeper, patience=timing.guard_answer)


def _wrap(name: str, keepers: _Keepers, answer: Callable[[], Any]) -> None:
    method: _Method = getattr(RoomService, name)

    @functools.wraps(method)
    async def guarded(service: RoomService, request: Any, *arguments: Any, **named: Any) -> Any:
        asked = keepers.of(request.room)
        identity = getattr(request, "identity", None)
        is_own = identity is not None and not all(one.keeper.is_others(identity) for one in asked)
        if not is_own and (await _goes_on(asked) or (await _ends(asked, identity) and await _goes_on(asked))):
            logger.info("the call goes on without this job: not done", extra={"room": request.room, "asked": name})
            return answer()
        response = await method(service, request, *arguments, **named)
        if identity is None:
            for one in asked:
                one.loop.call_soon_threadsafe(one.keeper.deleted)
        return response

    setattr(guarded, _GUARDED, keepers)
    setattr(RoomService, name, guarded)


async def _goes_on(asked: list[_Asked]) -> bool:
    """Return whether any keeper says that the call goes on."""
    for one in asked:
        if await one.goes_on():
            return True
    return False


async def _ends(asked: list[_Asked], identity: str | None) -> bool:
    """Tell the keepers that are here that the call ends; return whether that took time."""
    return any(await asyncio.gather(*(one.keeper.ends(identity) for one in asked if one.runs_here)))
