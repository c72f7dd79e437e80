"""What is asked of LiveKit's server about rooms: who is there, who has to go, who shall come."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from livekit import api
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from agent_worker.people import PEOPLE
from agent_worker.settings import LiveKitSettings
from agent_worker.timing import TIMING, Timing
from conversation_actors.errors import RetryableError

logger = logging.getLogger(__name__)

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
_OWN_FIELDS = frozenset({"room", "agent_name"})
_HUMAN = frozenset(ParticipantInfo.Kind.Value(name) for name in PEOPLE)


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


@dataclass(frozen=True, slots=True)
class Original:
    """What a successor's dispatch is to be like."""

    dispatch_id: str
    metadata: str | None = None
    """A copy of what the dispatch told, for the case that the server does not list it; None: there is none."""


class Rooms:
    """LiveKit's room service, from ``async with`` to its end. Every method raises `RoomServiceError`."""

    def __init__(self, settings: LiveKitSettings, *, timing: Timing = TIMING) -> None:
        """Connect when first used. Raises `InvalidInputError` if the settings lack something."""
        self._seconds = timing.rooms_answer
        self._url, self._key, self._secret = settings.require()
        self._api: api.LiveKitAPI | None = None

    async def __aenter__(self) -> Self:
        """Be ready to ask."""
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        self._api = api.LiveKitAPI(self._url, self._key, self._secret, timeout=timeout)
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
        )

    async def remove(self, room: str, identity: str) -> bool:
        """Put a participant out of a room; False if it was not there."""
        wanted = api.RoomParticipantIdentity(room=room, identity=identity)
        try:
            await self._asked(self._service.room.remove_participant(wanted), "remove_participant")
        except _NotFoundError:
            return False
        return True

    async def dispatch(self, room: str, agent_name: str, original: Original | None = None) -> str:
        """Ask for an agent, told what the `original` one was told; returns the dispatch's id.

        An empty name asks for one of those without a name, which come by themselves to new rooms. That one comes is not
        promised: where no worker takes the job, nobody does. Raises `UnansweredError` where it may have been asked for
        all the same.
        """
        wanted = api.CreateAgentDispatchRequest(agent_name=agent_name, room=room)
        if original is not None:
            await self._copy(original, wanted)
        try:
            made = await self._asked(self._service.agent_dispatch.create_dispatch(wanted), "create_dispatch")
        except _NotFoundError as error:
            message = f"LiveKit refused create_dispatch ({_NOT_FOUND})"
            raise RoomServiceError(message) from error
        return str(made.id)

    async def _copy(self, original: Original, wanted: api.CreateAgentDispatchRequest) -> None:
        """Have the new dispatch say what the original says, in whatever words both messages have."""
        listed = await self._listed(original.dispatch_id, wanted.room)
        if listed is None:
            if original.metadata is None:
                fields = {"room": wanted.room, "dispatch_id": original.dispatch_id}
                logger.warning("nobody knows what the agent was told: its successor is told nothing", extra=fields)
            wanted.metadata = original.metadata or ""
            return
        _copy_fields(listed, wanted)

    async def _listed(self, dispatch_id: str, room: str) -> AgentDispatch | None:
        if not dispatch_id:
            return None
        try:
            found = await self._asked(self._service.agent_dispatch.list_dispatch(room), "list_dispatch")
        except _NotFoundError:
            return None
        except UnansweredError as error:
            raise RoomServiceError(str(error)) from error  # a question: no agent was asked for
        return next((one for one in found if one.id == dispatch_id), None)

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
            async with asyncio.timeout(self._seconds):
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


def _copy_fields(listed: AgentDispatch, wanted: api.CreateAgentDispatchRequest) -> None:
    """Whatever both messages have in this version of LiveKit's protocol, but for whom it asks, and where."""
    there = wanted.DESCRIPTOR.fields_by_name
    for field, value in listed.ListFields():
        if field.name in _OWN_FIELDS or field.name not in there:
            continue
        if isinstance(value, Mapping):
            getattr(wanted, field.name).update(value)
        else:
            setattr(wanted, field.name, value)


class _NotFoundError(Exception):
    """The room, or the participant, does not exist."""
