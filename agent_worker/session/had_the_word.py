"""What an earlier job noted of the agent that had the word in it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from agent_worker.session.context import Brought, Heard
from agent_worker.session.stored_items import to_livekit
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import item_from_dict

logger = logging.getLogger(__name__)

ACTIVE_AGENT = "livekit.active_agent"
"""Who has the word, and what is its own: see `HadTheWord`, whose fields it has."""


@dataclass(frozen=True, slots=True)
class HadTheWord:
    """What an earlier job noted of the agent that had the word."""

    agent_id: str
    class_name: str = ""
    is_first: bool = False
    """Whether it was the agent that the application started its session with."""
    heard: Heard = field(default_factory=Heard)
    brought: tuple[Brought, ...] = ()
    is_whole: bool = True
    """Whether all that was brought is there; else it was too much to be noted."""
    has_entered: bool = False
    """Whether its `on_enter` was over: what that put into the context is there."""
    since: str | None = None
    """The id of the handoff that gave it the word; None where that is not known."""
    instructions: str | None = None
    """None where they are those that the agent is made with."""
    state: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, value: object) -> Self | None:
        """Read the attribute, which anybody may have written; None where it names no agent."""
        agent_id = value.get("agent_id") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(agent_id, str) or not agent_id:
            return None
        name, instructions, state = value.get("class"), value.get("instructions"), value.get("state")
        since = value.get("since")
        return cls(
            agent_id=agent_id,
            class_name=name if isinstance(name, str) else "",
            is_first=value.get("is_first") is True,
            heard=Heard.read(value.get("heard")),
            brought=_read_brought(value.get("brought")),
            is_whole=value.get("is_whole") is not False,
            has_entered=value.get("has_entered") is True,
            since=since if isinstance(since, str) else None,
            instructions=instructions if isinstance(instructions, str) else None,
            state=state if isinstance(state, Mapping) else None,
        )


def _read_brought(value: object) -> tuple[Brought, ...]:
    brought = []
    for one in value if isinstance(value, list | tuple) else ():
        fields, after = (one.get("item"), one.get("after")) if isinstance(one, Mapping) else (None, None)
        try:
            item = to_livekit(item_from_dict(fields if isinstance(fields, Mapping) else {}))
        except InvalidInputError as error:
            logger.warning("an item of the agent's context cannot be restored", extra={"field": error.field})
            continue
        if item is not None:
            brought.append(Brought(after if isinstance(after, str) else None, item))
    return tuple(brought)
