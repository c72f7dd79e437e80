"""The end of a job is not the end of its room: whoever has the call now is still in it.

An application ends a call by deleting the room or by putting the caller out of it, in a shutdown callback, at the
session's close, or with an API client of its own. All of these meet in two methods of LiveKit's `RoomService`, so
both ask here first, in a job's process.
"""

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from weakref import WeakValueDictionary

from livekit.api.room_service import RoomService
from livekit.protocol.room import DeleteRoomResponse, RemoveParticipantResponse

logger = logging.getLogger(__name__)

_GUARDED = "conversation_keepers"
"""Attribute of a method that was wrapped, with those who are asked, by room."""


class Keeper(Protocol):
    """Whoever knows what becomes of the call in one room."""

    async def goes_on(self) -> bool:
        """Whether the call goes on without this job; never raises."""

    def is_others(self, identity: str) -> bool:
        """Whether a participant of the room is not the job's own."""

    def deleted(self) -> None:
        """The room was deleted by this job."""


_Method = Callable[[RoomService, Any], Awaitable[Any]]


def guard(room: str, keeper: Keeper) -> None:
    """Leave a room, and the people in it, alone where `keeper` says that the call goes on.

    What was asked for is not done then, and answered as if it was; one line is logged. The keeper is asked for as
    long as it lives.
    """
    keepers = getattr(RoomService.delete_room, _GUARDED, None)
    if keepers is None:
        keepers = WeakValueDictionary[str, Keeper]()
        _wrap("delete_room", keepers, DeleteRoomResponse)
        _wrap("remove_participant", keepers, RemoveParticipantResponse)
    keepers[room] = keeper


def _wrap(name: str, keepers: WeakValueDictionary[str, Keeper], answer: Callable[[], Any]) -> None:
    method: _Method = getattr(RoomService, name)

    @functools.wraps(method)
    async def guarded(service: RoomService, request: Any, *arguments: Any, **named: Any) -> Any:
        keeper = keepers.get(request.room)
        identity = getattr(request, "identity", None)
        is_concerned = keeper is not None and (identity is None or keeper.is_others(identity))
        if keeper is not None and is_concerned and await keeper.goes_on():
            logger.info("the call goes on without this job: not done", extra={"room": request.room, "asked": name})
            return answer()
        response = await method(service, request, *arguments, **named)
        if keeper is not None and identity is None:
            keeper.deleted()
        return response

    setattr(guarded, _GUARDED, keepers)
    setattr(RoomService, name, guarded)
