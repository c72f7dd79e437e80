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

logger = logging.getLogger(__name__)

_GUARDED = "conversation_keepers"
"""Attribute of a method that was wrapped, with those who are asked."""
_ANSWER_SECONDS = 5.0
"""How long is waited for a job in another thread; where it cannot be known, the call goes on."""


class Keeper(Protocol):
    """Whoever knows what becomes of the call in one room."""

    async def goes_on(self) -> bool:
        """Whether the call goes on without this job; never raises."""

    def is_others(self, identity: str) -> bool:
        """Whether a participant of the room is not the job's own."""

    async def ends(self, identity: str | None) -> bool:
        """The room is about to be deleted, or somebody put out of it, and the call does not go on.

        Whether something was done first that took its time; never raises.
        """

    def deleted(self) -> None:
        """The room was deleted by this job."""


_Method = Callable[[RoomService, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One who is asked, and the loop in which that can be done."""

    room: str
    keeper: ReferenceType[Keeper]
    loop: asyncio.AbstractEventLoop


class _Keepers:
    """Those who are asked: several of one room, where a process has several jobs, or a job several parts, in it."""

    def __init__(self) -> None:
        """Nobody is."""
        self._entries: tuple[_Entry, ...] = ()

    def add(self, room: str, keeper: Keeper) -> None:
        """Ask somebody from now on, in the loop that runs; as long as both are there."""
        new = _Entry(room, ref(keeper), asyncio.get_running_loop())
        self._entries = (*(one for one in self._entries if one.keeper() is not None), new)

    def of(self, room: str) -> list[tuple[Keeper, asyncio.AbstractEventLoop]]:
        """Who decides about a room: the job that asks, or where none of the jobs does, all of them."""
        of_room = [(one.keeper(), one.loop) for one in self._entries if one.room == room]
        here = [(keeper, loop) for keeper, loop in of_room if keeper is not None and loop.is_running()]
        running = asyncio.get_running_loop()
        return [one for one in here if one[1] is running] or here


_changing = threading.Lock()


def guard(room: str, keeper: Keeper) -> None:
    """Leave a room, and the people in it, alone where `keeper` says that the call goes on.

    What was asked for is not done then, and answered as if it was; one line is logged. The keeper is asked for as
    long as it lives, in the loop that runs now.
    """
    with _changing:
        keepers: _Keepers | None = getattr(RoomService.delete_room, _GUARDED, None)
        if keepers is None:
            keepers = _Keepers()
            _wrap("delete_room", keepers, DeleteRoomResponse)
            _wrap("remove_participant", keepers, RemoveParticipantResponse)
        keepers.add(room, keeper)


def _wrap(name: str, keepers: _Keepers, answer: Callable[[], Any]) -> None:
    method: _Method = getattr(RoomService, name)

    @functools.wraps(method)
    async def guarded(service: RoomService, request: Any, *arguments: Any, **named: Any) -> Any:
        asked = keepers.of(request.room)
        identity = getattr(request, "identity", None)
        is_own = identity is not None and not all(keeper.is_others(identity) for keeper, _ in asked)
        if not is_own and (await _goes_on(asked) or (await _ends(asked, identity) and await _goes_on(asked))):
            logger.info("the call goes on without this job: not done", extra={"room": request.room, "asked": name})
            return answer()
        response = await method(service, request, *arguments, **named)
        if identity is None:
            for keeper, loop in asked:
                loop.call_soon_threadsafe(keeper.deleted)
        return response

    setattr(guarded, _GUARDED, keepers)
    setattr(RoomService, name, guarded)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    return loop is asyncio.get_running_loop()


async def _goes_on(asked: list[tuple[Keeper, asyncio.AbstractEventLoop]]) -> bool:
    """Whether any of them says that the call goes on."""
    for keeper, loop in asked:
        if await (keeper.goes_on() if _runs_here(loop) else _asked_elsewhere(keeper, loop)):
            return True
    return False


async def _ends(asked: list[tuple[Keeper, asyncio.AbstractEventLoop]], identity: str | None) -> bool:
    """Tell those who are here that the call ends; whether that took its time, so that it may have gone on meanwhile."""
    return any(await asyncio.gather(*(keeper.ends(identity) for keeper, loop in asked if _runs_here(loop))))


async def _asked_elsewhere(keeper: Keeper, loop: asyncio.AbstractEventLoop) -> bool:
    """Ask somebody in the loop of its own; who does not answer may be waiting for what is asked for."""
    answer = asyncio.run_coroutine_threadsafe(keeper.goes_on(), loop)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await asyncio.wrap_future(answer)
    except TimeoutError:
        return True
