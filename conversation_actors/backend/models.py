"""What a back end is sent, asked and answers with: the contract, of which the OpenAPI document is made.

Types are meant as they are: a number in a text is no number. Fields that a model does not name are let through, so that
a newer version may add some.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from conversation_actors.calls.record import SessionAgent, SessionLatency, SessionParticipant, SessionTool

JsonObject = dict[str, Any]
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
"""How a time is written: UTC, ISO 8601, milliseconds. Such times are in order as texts are."""


class WireModel(BaseModel):
    """Base of all that goes over the wire."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="allow", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Message(WireModel):
    """One item of a conversation's history. The same `id` again means that the item has changed."""

    id: str = Field(min_length=1)
    """Unique in its conversation."""
    item_type: str
    """`message`, `function_call` or `function_call_output`; more may come."""
    role: str | None = None
    """`user`, `assistant`, `system` or `developer`; null unless it is a message."""
    text: str | None = None
    """What is said in it, or the call or output of a tool; null if it has been taken out of the history since."""
    created_at: float | None = None
    """Seconds since the epoch."""
    interrupted: bool = False
    """Whether the agent was interrupted: `text` is what was heard."""
    identity: str | None = None
    """The participant who said it."""
    agent_role: str | None = None
    """The role of the agent that said it."""
    item: JsonObject | None = None
    """The item as it is stored, with LiveKit's field names. Give it back as it was: tools' calls and their outputs are
    in it. A message of which it is missing is made of `id`, `role`, `text` and `created_at`."""


class Delivery(WireModel):
    """What everything that is sent has."""

    type: str
    """What happened."""
    at: str = Field(pattern=MOMENT)
    """When it happened: UTC, milliseconds."""
    conversation_id: str
    life: str
    """Which conversation of this id it is: after a deletion, one that begins anew has another life."""
    call_id: str | None
    """The call in which it happened; null between calls, and while a transcription is not final."""
    tenant: str
    seq: int | None
    """The position in the conversation's journal that it follows from; null while a transcription is not final."""
    truncated: bool = False
    """Whether an item was left out and texts were cut, because it was larger than `CONVERSATION_BACKEND_BYTES`."""


class MessageStored(Delivery):
    """An item came into the history, or was changed: store it under its id."""

    type: Literal["message.stored"]
    message: Message


class MessagesRemoved(Delivery):
    """Items were taken out of the history. What they said is to be forgotten."""

    type: Literal["messages.removed"]
    ids: list[str] | None
    """Which; null: all that came before."""


class TurnUser(WireModel):
    """What a person said in a turn."""

    item_ids: list[str]
    text: str | None
    """Null if it was taken out of the history."""
    identity: str | None = None


class TurnAgent(WireModel):
    """What the agent answered."""

    item_id: str
    text: str | None
    """Null if it was taken out of the history."""


class TurnCompleted(Delivery):
    """The agent said something after a person did."""

    type: Literal["turn.completed"]
    turn: int
    """Which turn of the call it is; the first is 1."""
    user: TurnUser
    agent: TurnAgent
    interrupted: bool
    latency: float | None = None
    """Seconds; null if nobody measured."""


class Transcription(Delivery):
    """What a person was heard to say. Those that are not final are best effort: some are left out."""

    type: Literal["transcription.final", "transcription.interim"]
    item_id: str | None
    """The message's id; null while it is not final."""
    text: str | None
    """Null if it was taken out of the history since."""
    identity: str | None
    language: str | None
    """As the recogniser tells it, such as `en`."""
    final: bool


class SpeechFinished(Delivery):
    """Somebody has finished speaking."""

    type: Literal["speech.finished"]
    item_id: str
    """The message in which it is written."""
    role: str
    """`user` or `assistant`."""
    speaker: str | None
    """The participant's identity, `user` if that is not known, or `agent`."""
    started_at: float | None
    """Seconds since the epoch, as `stopped_at`; null if nobody measured."""
    stopped_at: float | None
    duration: float | None
    """Seconds; null if nobody measured."""
    interrupted: bool


class ParticipantConnected(Delivery):
    """Somebody came, for the first time or again."""

    type: Literal["participant.joined", "participant.returned"]
    identity: str
    name: str
    visits: int
    """Visits in this call, this one counted."""


class ParticipantLeft(Delivery):
    """Somebody left with the last device."""

    type: Literal["participant.left"]
    identity: str
    name: str
    seconds: float
    """How long this visit was."""


class AgentJoined(Delivery):
    """An agent came: where none was, or in the place of another one."""

    type: Literal["agent.joined", "agent.replaced"]
    role: str
    holder: str
    """The job's id."""
    replaced: str | None = None
    """The job that was there before."""
    crashed: bool | None = None
    """Whether that one did not give the call over."""
    silence: float | None = None
    """Seconds that it cost."""


class ErrorNoted(Delivery):
    """A model failed, or something else that was noted did."""

    type: Literal["error.noted"]
    error_type: str | None
    source: str | None
    """What failed: the class of the model."""
    recoverable: bool | None
    stack: str | None
    """Where it failed; null unless `CONVERSATION_BACKEND_STACKS` is set."""


class SessionRecorded(Delivery):
    """The record of a call is final. docs/calls.md says what each field means."""

    type: Literal["session.recorded"]
    number: int
    started_at: float
    ended_at: float
    duration: float
    end_reason: str
    end_text: str | None
    messages: int
    turns: int
    participants: list[SessionParticipant]
    spoke: dict[str, float] | None
    tools: list[SessionTool]
    usage: list[JsonObject]
    latency: dict[str, SessionLatency]
    interruptions: int
    crashes: int
    take_overs: int
    silence: float
    agents: list[SessionAgent]
    errors: int
    outcome: JsonObject | None
    summary: str | None
    gaps: list[list[int]]
    left_out: int


class Messages(WireModel):
    """The newest messages of a conversation, the oldest of them first; none if it is not known."""

    messages: list[Message]
    """As many as were asked for; fewer if the answer would be larger than 4 MiB: then the newest that fit."""


class ContextAsked(WireModel):
    """What a person has just said, to which the agent is about to answer.

    The message may be stored under another id than `item_id` if nothing is added to the turn.
    """

    conversation_id: str
    tenant: str
    identity: str | None
    text: str
    item_id: str | None


class Context(WireModel):
    """What the agent is to know for this answer, and only for this one."""

    context: list[str]


DELIVERIES: Mapping[str, type[Delivery]] = {
    "/v1/messages": MessageStored,
    "/v1/messages/removed": MessagesRemoved,
    "/v1/turns": TurnCompleted,
    "/v1/transcriptions": Transcription,
    "/v1/speeches": SpeechFinished,
    "/v1/participants/connected": ParticipantConnected,
    "/v1/participants/left": ParticipantLeft,
    "/v1/agents/joined": AgentJoined,
    "/v1/errors": ErrorNoted,
    "/v1/sessions": SessionRecorded,
}
"""What is sent by POST, by its path after the base URL."""
MESSAGES_PATH = "/v1/messages"
"""GET, with `conversation_id`, `tenant` and `limit`: answered with `Messages`."""
MOST_ANSWER_BYTES = 4 << 20
"""Bytes of `Messages` that are read."""
CONTEXT_PATH = "/v1/context"
"""POST of `ContextAsked`: answered with `Context`."""
CONVERSATIONS_PATH = "/v1/conversations"
"""DELETE, with `conversation_id`, `tenant`, `before` and any number of `life`: what is of one of these lives, or
happened at `before` or earlier, is to be forgotten, also if it comes later."""
