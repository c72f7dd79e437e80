"""What an earlier job noted of an agent, read when this job's agent is at work already: what is newer stays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from livekit.agents import Agent

from agent_worker.session.saved_state import StateError, saved_state


@dataclass(frozen=True, slots=True)
class AtStart:
    """What an agent was when its session started."""

    instructions: object
    state: Mapping[str, Any] | None

    @classmethod
    def of(cls, agent: Agent) -> Self:
        """Look now. Never raises."""
        return cls(agent.instructions, _state_of(agent))


def late_note(agent: Agent, noted: object, at_start: AtStart | None) -> dict[str, Any]:
    """Return the note without what this agent has changed since its session started; empty if there is none.

    An agent's state and its instructions come back where they are as they were at the start. Never raises.
    """
    fields = dict(noted) if isinstance(noted, Mapping) else {}
    now = AtStart.of(agent)
    if at_start is not None and now.state != at_start.state:
        fields.pop("state", None)
    if at_start is not None and now.instructions != at_start.instructions:
        fields.pop("instructions", None)
    return fields


def _state_of(agent: Agent) -> Mapping[str, Any] | None:
    try:
        return saved_state(agent)
    except StateError:
        return None
    except Exception:  # noqa: BLE001  # the application's own; it is counted where the state is noted
        return None
