"""What is asked of LiveKit's server about rooms: who is there, who has to go, who shall come."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from livekit import api
from livekit.protocol.models import ParticipantInfo

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.assignment import ID_KEY, Assignment, proven_attribute
from conversation_actors.errors import RetryableError

Value = TypeVar("Value")

AGENT_NAME_ATTRIBUTE = "lk.agent.name"
"""The attribute by which LiveKit's workers say what an agent's participant is."""
_NOT_FOUND = "not_found"
_REFUSALS = frozenset(
    {
        api.TwirpErrorCode.INVALID_ARGUMENT,
        api.TwirpErrorCode.MALFORMED,
        api.TwirpErrorCode.BAD_ROUTE,
        api.TwirpErrorCode.PERMISSION_DENIED,
        api.TwirpErrorCode.UNAUTHENTICATED,
        api.TwirpErrorCode.RESOURCE_EXHAUSTED,
        api.TwirpErrorCode.UNIMPLEMENTED,
    }
)
"""Codes behind which nothing was done. Of the others none excludes that a server went on without being heard."""
_SECONDS = 5.0
_HUMAN = frozenset({ParticipantInfo.Kind.STANDARD, ParticipantInfo.Kind.SIP, ParticipantInfo.Kind.CONNECTOR})


class RoomServiceError(RetryableError):
    """LiveKit's server did not answer in time, or refused what was asked of it."""


class UnansweredError(RoomServiceError):
    """What was asked of LiveKit's server may have been done, or not."""


@dataclass(frozen=True, slots=True)
class AgentInRoom:
    """A participant that is an agent. `joined_at` is in seconds since the epoch, by the server's clock."""

    identity: str
    agent_name: str
    joined_at: float


@dataclass(frozen=True, slots=True)
class Occupants:
    """Who is in a room. A room that does not exist has nobody in it."""

    exists: bool
    people: tuple[str, ...] = ()
    agents: tuple[AgentInRoom, ...] = ()
    conversations: tuple[str, ...] = ()
    """Those that people's attributes name which they cannot have written themselves."""


class Rooms:
    """LiveKit's room service, from ``async with`` to its end. Every method raises `RoomServiceError`."""

    def __init__(self, settings: LiveKitSettings) -> None:
        """Raises `InvalidInputError` where the settings lack something. Connects when first used."""
        self._url, self._key, self._secret = settings.require()
        self._api: api.LiveKitAPI | None = None

    async def __aenter__(self) -> Self:
        """Be ready to ask."""
        self._api = api.LiveKitAPI(self._url, self._key, self._secret, timeout=aiohttp.ClientTimeout(total=_SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close connections."""
        if self._api is not None:
            await self._api.aclose()

    async def occupants(self, room: str) -> Occupants:
        """Who is in a room now, ghosts included."""
        try:
            found = await self._asked(
                self._service.room.list_participants(api.ListParticipantsRequest(room=room)), "list_participants"
            )
        except _NotFoundError:
            return Occupants(exists=False)
        people = [one for one in found.participants if one.kind in _HUMAN]
        return Occupants(
            exists=True,
            people=tuple(one.identity for one in people),
            agents=tuple(
                AgentInRoom(one.identity, one.attributes.get(AGENT_NAME_ATTRIBUTE, ""), float(one.joined_at))
                for one in found.participants
                if one.kind == ParticipantInfo.Kind.AGENT
            ),
            conversations=tuple(named for one in people if (named := _conversation_named_by(one)) is not None),
        )

    async def remove(self, room: str, identity: str) -> bool:
        """Put a participant out of a room; False if it was not there."""
        wanted = api.RoomParticipantIdentity(room=room, identity=identity)
        try:
            await self._asked(self._service.room.remove_participant(wanted), "remove_participant")
        except _NotFoundError:
            return False
        return True

    async def dispatch(self, room: str, agent_name: str, assignment: Assignment) -> None:
        """Ask for an agent. That one comes is not promised: where no worker takes the job, nobody does.

        Raises `UnansweredError` where it may have been asked for all the same.
        """
        wanted = api.CreateAgentDispatchRequest(agent_name=agent_name, room=room, metadata=assignment.write())
        try:
            await self._asked(self._service.agent_dispatch.create_dispatch(wanted), "create_dispatch")
        except _NotFoundError as error:
            message = f"LiveKit refused create_dispatch ({_NOT_FOUND})"
            raise RoomServiceError(message) from error

    async def check(self) -> None:
        """Make sure that the server answers, and accepts the key."""
        await self._asked(self._service.room.list_rooms(api.ListRoomsRequest(names=["-"])), "list_rooms")

    @property
    def _service(self) -> api.LiveKitAPI:
        if self._api is None:
            message = "the room service is used inside of `async with`"
            raise RuntimeError(message)
        return self._api

    async def _asked(self, request: Awaitable[Value], what: str) -> Value:
        try:
            async with asyncio.timeout(_SECONDS):
                return await request
        except api.TwirpError as error:
            if error.code == _NOT_FOUND:
                raise _NotFoundError(error.message) from error
            message = f"LiveKit refused {what} ({error.code}: {error.message})"
            raise (RoomServiceError if error.code in _REFUSALS else UnansweredError)(message) from error
        except aiohttp.ClientConnectorError as error:
            message = f"LiveKit cannot be reached for {what} ({type(error).__name__})"
            raise RoomServiceError(message) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"LiveKit did not answer {what} ({type(error).__name__})"
            raise UnansweredError(message) from error


def _conversation_named_by(person: ParticipantInfo) -> str | None:
    return proven_attribute(person.attributes, ID_KEY, is_own=person.permission.can_update_metadata)


class _NotFoundError(Exception):
    """The room, or the participant, does not exist."""
