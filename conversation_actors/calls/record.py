"""The record of one call."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from conversation_actors.calls.record_text import text_of
from conversation_actors.errors import InvalidInputError

CLOSED, GIVEN_UP, LOST = "closed", "given_up", "lost"
"""Reasons of an end, besides those that agents note."""
RELEASED, HANDED_OVER, CRASHED = "released", "handed_over", "crashed"
"""Ends of an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParticipant:
    """One person's part in a call. Times are in seconds since the epoch.

    `left_at` is None if the person was there until the call's end. `seconds` are those of all `visits` until then.
    `returned` tells whether the person came again: in this call, or to this one from an earlier one.
    """

    identity: str
    name: str = ""
    joined_at: float
    left_at: float | None = None
    seconds: float = 0.0
    visits: int = 1
    returned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAgent:
    """One agent's part in a call. `holder` is the job's id.

    `end` is ``released`` (it gave its lease back, and nobody had asked for it), ``handed_over`` (to a successor that
    had asked), ``crashed``, or None if the agent was there until the call's end.
    """

    role: str
    holder: str
    joined_at: float
    left_at: float | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTool:
    """What was asked of one tool, and how often it failed."""

    name: str
    calls: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLatency:
    """How long turns waited, by one of LiveKit's measures; seconds.

    `values` are those of the turns in their order. Of a call with more than 512 turns they are an even sample, and
    `median` and `p95` are the sample's.
    """

    turns: int
    median: float
    p95: float
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """What happened in one call, as the conversation's entries tell it. There is one of each call.

    Times are in seconds since the epoch, by the clock of the conversation's owner; what else is measured in time is
    in seconds.
    """

    conversation_id: str
    call_id: str
    number: int
    """Which call of the conversation's life it is; the first is 1."""
    started_at: float
    ended_at: float
    duration: float
    end_reason: str
    """``completed``: the agent ended the call. ``left``: everybody had left, the agent in order; if there was none,
    nothing came any more either. ``closed``: the conversation was closed. ``given_up``: its agents died, and no other
    one comes. ``lost``: nothing came any more, while somebody or an agent was there, as far as anybody said."""
    end_text: str | None = None
    """The application's own words for the end, if it gave some."""
    messages: int = 0
    """Messages of people and of the agent (of role `agent`)."""
    turns: int = 0
    """Times that the agent answered a person."""
    participants: tuple[SessionParticipant, ...] = ()
    spoke: Mapping[str, float] | None = None
    """Seconds of speech: of people by their identities (``user`` if it is not known who spoke), of the agent as
    ``agent``. None if nobody measured."""
    tools: tuple[SessionTool, ...] = ()
    usage: tuple[Mapping[str, Any], ...] = ()
    """What each model was used for, in all jobs together: ``type``, ``provider``, ``model`` and LiveKit's numbers."""
    latency: Mapping[str, SessionLatency] = field(default_factory=dict)
    """By LiveKit's names: ``e2e_latency``, ``llm_node_ttft``, ``tts_node_ttfb``, and so on."""
    interruptions: int = 0
    """Messages of the agent that were interrupted."""
    crashes: int = 0
    """Agents (of role `agent`) that ended in this call and neither gave it over nor ended it."""
    take_overs: int = 0
    """Times that another agent took the call, after a crash or because it was given over."""
    silence: float = 0.0
    """Seconds that take-overs cost: from the entry by which the agent gave its lease back, to the one by which its
    successor took it. If the lease was not given back, they count from the last entry before, other than successors'
    wishes for the call. They are no measure of what was heard: an agent may have been silent before it died, and its
    successor is not heard at once."""
    agents: tuple[SessionAgent, ...] = ()
    errors: int = 0
    """Failures of models that were noted."""
    outcome: Mapping[str, Any] | None = None
    """What the application said last of what came of this call."""
    summary: str | None = None
    """The last summary that was set in this call."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Positions (from, to) that the archive does not have: what was in them is not in this record."""
    left_out: int = 0
    """People and agents who are not listed, because there were too many."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> "SessionRecord":
        """Read what `to_dict` has returned; a newer version's fields are left out. Raises `InvalidInputError`."""
        try:
            return _adapter().validate_python(dict(fields))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "SessionRecord"
            message = f"SessionRecord: {name}: {first['msg']}"
            raise InvalidInputError(message, field=name) from None

    def to_text(self) -> str:
        """Return the record in lines, for people."""
        return text_of(self.to_dict())


@cache
def _adapter() -> TypeAdapter[SessionRecord]:
    return TypeAdapter(SessionRecord)


def _plain(value: Any) -> Any:
    """Return a value with lists for its tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
