"""What a realtime session sends to a script, and what tests may choose about the server."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from agent_worker.offline.realtime_items import Event
from agent_worker.offline.script import Reply

SESSION_LIMIT = timedelta(minutes=60)
"""OpenAI's own limit: "The maximum duration of a Realtime session is 60 minutes"."""


@dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """The input of a response."""

    messages: Sequence[Event]
    """The instructions and the conversation, as the messages of a chat."""
    tools: Mapping[str, Event]
    tools_allowed: bool
    instructions: str = ""
    """The instructions of this one response. Empty if those of the session apply."""


Answer = Callable[[RealtimeRequest], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class RealtimeBehaviour:
    """What tests may choose about the server."""

    session_limit: timedelta = SESSION_LIMIT
    transcripts: Literal["early", "late"] = "early"
    """Whether the client is told what was heard before the response to it or after that."""
    transcript_delay: timedelta = timedelta(0)
    """How long after the response a late transcript is sent."""
    refused_words: frozenset[str] = frozenset()
    """Words that make the server refuse an item, as a provider may refuse one for reasons of its own."""
    heard: Callable[[str], None] = field(default=lambda _text: None)
    """A function that gets everything that was heard."""
    spoken: Callable[[str], None] = field(default=lambda _text: None)
    """A function that gets everything that is said."""
