"""What a job is there for: which conversation, and whom it follows.

A job learns the conversation from the metadata of its dispatch, else from the room. Metadata is written by people and
programs that are not ours: whatever it holds, the call goes on.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from agent_worker.tenure.role import AGENT_ROLE
from conversation_actors.errors import InvalidInputError, RefusedError
from conversation_actors.values import check_id

logger = logging.getLogger(__name__)

ID_KEY = "conversation_id"
USER_KEY = "user_id"
MAX_METADATA_BYTES = 64 << 10
"""Metadata larger than this is not looked at."""


class RestartReason(StrEnum):
    """Why an agent follows another one."""

    CRASH = "crash"
    """Its process ended in the middle of the call."""
    SILENCE = "silence"
    """Nothing was heard of it any more: it hung, or its node is gone."""
    WORKER = "worker"
    """The worker died with all of its jobs."""
    DEPLOY = "deploy"
    """Its worker was told to end, and the call was given over."""
    MIGRATE = "migrate"
    """Somebody moved the call on purpose."""
    REDIAL = "redial"
    """The caller came in another room, and the agent in the old one had nobody there."""
    UNKNOWN = "unknown"


class MetadataRefusedError(InvalidInputError):
    """Something that metadata asked for was not done. The call goes on without it."""


class CallDeclinedError(RefusedError):
    """This job does not take the call that it was called to, and ends; whoever called it calls another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which conversation a job is there for, and whom it follows there.

    The metadata of a job is the application's, every successor's too. So it names a conversation at most; the rest is
    told in Redis by whoever calls a successor: see `agent_worker.tenure.expected`.
    """

    conversation_id: str | None = None
    role: str = AGENT_ROLE
    replaces: str | None = None
    """The holder of the agent's lease whose place this job takes."""
    is_planned: bool = False
    """The holder is alive: it gives the call over when it has finished its sentence."""
    attempt: int = 0
    """Successors dispatched before without progress, this one included."""
    avoid: str = ""
    """The worker, by LiveKit's id, that shall not take this job."""
    reason: RestartReason | None = None
    """Why there is somebody to be followed."""

    @classmethod
    def read(cls, metadata: str, *, where: str = "job metadata") -> Self:
        """Read metadata; what is not as it should be is logged and left out, never raised."""
        return cls(conversation_id=_identifier(metadata_fields(metadata, where), ID_KEY, where))

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Read what was told by `told`, of another version perhaps; never raises."""
        where = "expectation"
        attempt, reason = told.get("attempt"), told.get("reason")
        return cls(
            conversation_id=_identifier(told, ID_KEY, where),
            role=_identifier(told, "role", where) or AGENT_ROLE,
            replaces=_identifier(told, "replaces", where),
            is_planned=told.get("is_planned") is True,
            attempt=attempt if type(attempt) is int and 0 <= attempt <= 1000 else 0,  # noqa: PLR2004  # far above any limit
            avoid=_identifier(told, "avoid", where) or "",
            reason=_reason(reason),
        )

    def told(self) -> dict[str, Any]:
        """What is told in Redis, as JSON has it."""
        fields: dict[str, Any] = {
            ID_KEY: self.conversation_id,
            "role": None if self.role == AGENT_ROLE else self.role,
            "replaces": self.replaces,
            "is_planned": self.is_planned or None,
            "attempt": self.attempt or None,
            "avoid": self.avoid or None,
            "reason": None if self.reason is None else self.reason.value,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _reason(value: Any) -> RestartReason | None:
    try:
        return None if value is None else RestartReason(value)
    except ValueError:
        return RestartReason.UNKNOWN


def metadata_fields(metadata: str, where: str) -> Mapping[str, Any]:
    """Return metadata as an object; empty if it is none. Plain text is common and no mistake; half an object is one.

    It is the one parser of what jobs, rooms and participants are told. `where` is named in the log.
    """
    text = metadata.strip()
    if not text.startswith("{"):
        return {}
    if len(text.encode("utf-8", "replace")) > MAX_METADATA_BYTES:
        _refuse(where, f"more than {MAX_METADATA_BYTES} bytes")
        return {}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"not JSON ({type(error).__name__})")
        return {}
    return fields if isinstance(fields, dict) else {}


def _identifier(fields: Mapping[str, Any], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    try:
        return check_id(value, name)
    except InvalidInputError as error:
        _refuse(where, str(error))
        return None


def _refuse(where: str, reason: str) -> None:
    """A typed refusal, told to the operator: there is nobody to raise it to."""
    error = MetadataRefusedError(f"{where}: {reason}; it was not used", field=where)
    logger.warning("metadata refused", extra={"where": where, "reason": str(error)})


def named_by_room(metadata: str) -> str | None:
    """Return the conversation that a room's metadata names; the job's own comes first, and the room's name last."""
    return Assignment.read(metadata, where="room metadata").conversation_id


def named_by_dispatch(job_metadata: str, room_metadata: str) -> str | None:
    """Return the conversation that a job's metadata names, else the one that its room's names."""
    return Assignment.read(job_metadata).conversation_id or named_by_room(room_metadata)


def user_named_by_room(metadata: str) -> str | None:
    """Whose call it is, where the room's metadata say so: only servers may write them. A number is a name too."""
    where = "room metadata"
    fields = metadata_fields(metadata, where)
    user = fields.get(USER_KEY)
    return _identifier({USER_KEY: str(user) if type(user) is int else user}, USER_KEY, where)


class Speaker(Protocol):
    """The part of a LiveKit participant that is looked at here."""

    @property
    def identity(self) -> str:
        """Unique in its room."""

    @property
    def attributes(self) -> dict[str, str]:
        """What its token or its program said of it."""

    @property
    def permissions(self) -> Any:
        """What it may do; ``can_update_metadata``: change its own metadata and attributes."""


def trusted_attribute(participant: Speaker, name: str) -> str | None:
    """An attribute that the participant's token gave it; None where it could have written it itself.

    Else anybody could name somebody else's conversation, and be told what is in it.
    """
    value = participant.attributes.get(name)
    if not value:
        return None
    if participant.permissions.can_update_metadata:
        _refuse(f"attribute {name}", "the participant may change its own attributes, so this one proves nothing")
        return None
    return _identifier({name: value}, name, f"attribute {name}")
