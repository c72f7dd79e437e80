"""What an agent says of itself beside its heartbeat: the one record of it, for whoever writes and whoever reads it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

MAX_COPIED_CHARACTERS = 1 << 10
"""Of a job's metadata, as JSON: longer metadata is not copied into the details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatDetails:
    """Who an agent is, and what its successor has to know.

    Another program, or another version, may have written what is read: a field is None if it says nothing of use.
    """

    room: str | None = None
    agent_name: str | None = None
    agent_identity: str | None = None
    attempt: int | None = 0
    """Successors dispatched before without progress, this agent included."""
    worker_id: str = ""
    """The agent's worker, as LiveKit's server names it."""
    dispatch_id: str = ""
    """The dispatch that the agent's job came by."""
    metadata: str | None = None
    """What that dispatch has told the job, if that is short: see `copied_metadata`."""
    host: str | None = None
    pid: int | None = None
    failures: Mapping[str, int] | None = None
    """What went wrong in the background of the call, by task."""
    was_open: bool = True
    """Whether the agent ever held the conversation's lease."""

    def to_dict(self) -> dict[str, Any]:
        """Return the details as they are stored, without what is not known."""
        told = {name: value for name, value in asdict(self).items() if value is not None}
        if self.was_open:
            del told["was_open"]
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Read stored details; never raises."""
        return cls(
            room=_text(told, "room"),
            agent_name=_text(told, "agent_name"),
            agent_identity=_text(told, "agent_identity"),
            attempt=_number(told, "attempt", 0),
            worker_id=str(told.get("worker_id") or ""),
            dispatch_id=str(told.get("dispatch_id") or ""),
            metadata=_text(told, "metadata"),
            host=_text(told, "host"),
            pid=_number(told, "pid", None),
            failures=_counts(told.get("failures")),
            was_open=told.get("was_open") is not False,
        )


def copied_metadata(metadata: str) -> str | None:
    """Return a job's metadata if it takes at most `MAX_COPIED_CHARACTERS` as JSON; None if it is empty or longer.

    Quotes and escapes count: "ü" takes six characters.

    It is copied because LiveKit's server may not know the job's dispatch any more when the job dies.
    """
    return metadata if metadata and len(json.dumps(metadata)) <= MAX_COPIED_CHARACTERS else None


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) else None


def _number(told: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = told.get(name, default)
    return value if isinstance(value, int) and value >= 0 else None


def _counts(value: Any) -> Mapping[str, int] | None:
    if not isinstance(value, Mapping):
        return None
    return {name: number for name, number in value.items() if isinstance(number, int)}
