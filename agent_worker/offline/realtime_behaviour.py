"""What a realtime session asks a script for, and what tests may choose about the server."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from agent_worker.offline.realtime_items import Event
from agent_worker.offline.script import Reply

SESSION_LIMIT = timedelta(minutes=60)
"""OpenAI's own: "The maximum duration of a Realtime session is 60 minutes"."""


@dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """What a response is made of."""

    messages: Sequence[Event]
    """The instructions, and the conversation, as the messages of a chat."""
    tools: Mapping[str, Event]
    tools_allowed: bool
    instructions: str = ""
    """Those of this one response; empty: the session's."""


Answer = Callable[[RealtimeRequest], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class RealtimeBehaviour:
    """What tests may choose about the server."""

    session_limit: timedelta = SESSION_LIMIT
    transcripts: Literal["early", "late"] = "early"
    """When the client is told what was heard: before the response to it, or behind."""
    transcript_delay: timedelta = timedelta(0)
    """How long behind."""
    refused_words: frozenset[str] = frozenset()
    """Items with any of these words are refused, as a provider may refuse one for reasons of its own."""
    heard: Callable[[str], None] = field(default=lambda _text: None)
    """Gets all that was heard."""
    spoken: Callable[[str], None] = field(default=lambda _text: None)
    """Gets all that is said."""
