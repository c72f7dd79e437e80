"""What a business is told of a call."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

CALL_STARTED = "call.started"
"""A call began: ``number``, and ``by`` (``participant``, ``agent`` or ``message``)."""
CALL_ENDED = "call.ended"
"""A call ended: ``number``, ``started_at``, ``duration``, ``end_reason``, ``end_text``. Stragglers may follow."""
TURN_COMPLETED = "turn.completed"
"""The agent said something after a person did: ``turn`` (a number), ``user`` (``item_ids``, ``text``, ``identity``),
``agent`` (``item_id``, ``text``), ``interrupted``, ``latency`` (seconds, or null if nobody measured). A text is null
if it was taken out of the history."""
PARTICIPANT_JOINED = "participant.joined"
"""Somebody came for the first time: ``identity``, ``name``, ``visits`` (in this call, this one counted)."""
PARTICIPANT_RETURNED = "participant.returned"
"""Somebody came again, in this call or from an earlier one; the same fields."""
PARTICIPANT_LEFT = "participant.left"
"""Somebody left with the last device: ``identity``, ``name``, ``seconds`` (of this visit)."""
AGENT_JOINED = "agent.joined"
"""An agent came where none was: ``role``, ``holder``."""
AGENT_REPLACED = "agent.replaced"
"""An agent followed another one: ``role``, ``holder``, ``replaced`` (whom), ``crashed`` (whether that one did not give
the call over), ``silence`` (seconds, see `SessionRecord.silence`)."""
SESSION_RECORDED = "session.recorded"
"""The record of a call is final: the fields of `SessionRecord.to_dict`. It comes once, as the call's last happening."""

HAPPENINGS: tuple[str, ...] = (
    CALL_STARTED,
    CALL_ENDED,
    TURN_COMPLETED,
    PARTICIPANT_JOINED,
    PARTICIPANT_RETURNED,
    PARTICIPANT_LEFT,
    AGENT_JOINED,
    AGENT_REPLACED,
    SESSION_RECORDED,
)
"""All types of happenings that a business is told of, and that webhooks send."""

MESSAGE_STORED = "message.stored"
"""A message, a tool's call or a tool's output was stored, or stored again with another content: ``message`` with
``id``, ``item_type``, ``role`` (or null), ``text``, ``created_at`` (or null), ``interrupted``, ``identity`` (of the
speaker, or null), ``agent_role`` (of an agent with another role than `agent`, or null) and ``item`` (as it is stored).
``text`` and ``item`` are null if the item was taken out of the history."""
MESSAGES_REMOVED = "messages.removed"
"""Items were taken out of the history: ``ids``; null stands for all of them."""
TRANSCRIPTION_FINAL = "transcription.final"
"""What a person said is known: ``item_id``, ``text`` (null if it was taken out of the history), ``identity`` (or null),
``language`` (or null), ``final`` (true)."""
SPEECH_FINISHED = "speech.finished"
"""A person or the agent has spoken: ``item_id``, ``role`` (``user`` or ``assistant``), ``speaker`` (an identity,
``user`` if that is not known, or ``agent``), ``started_at`` and ``stopped_at`` (seconds since the epoch, or null),
``duration`` (seconds, or null if nobody measured), ``interrupted``."""
ERROR_NOTED = "error.noted"
"""A model failed: ``error_type``, ``source``, ``recoverable``, ``stack`` (text, or null)."""

REPORTS: tuple[str, ...] = (
    MESSAGE_STORED,
    MESSAGES_REMOVED,
    TRANSCRIPTION_FINAL,
    SPEECH_FINISHED,
    ERROR_NOTED,
)
"""Types of happenings that only a back end is told of, besides `HAPPENINGS`. They may also come between calls."""
BETWEEN_CALLS = 0
"""In the place of a call's number, if there is no call."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that a business is told of.

    `at` is in seconds since the epoch, by the clock of the conversation's owner. `seq` is the position of the entry
    that it follows from, and `place` its place among all that follows from this position. What only time has led to
    follows from the last entry. `data` has JSON values. `call_id` is what `call_id_of` has made.
    """

    type: str
    at: float
    call_id: str
    seq: int
    place: int
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The same for the same happening, however often it is folded; another one for any other."""
        told = f"{self.call_id}\0{self.seq}\0{self.place}\0{self.type}"
        return f"evt_{sha256(told.encode()).hexdigest()[:32]}"


def call_id_of(life: str, number: int) -> str:
    """Return the id of a call of this number; no call has the one of `BETWEEN_CALLS`."""
    return f"{life}.{number}"


def life_of(call_id: str) -> str:
    """Return the life in which something happened, of its happening's `call_id`."""
    return call_id.rpartition(".")[0]


def named_call(call_id: str) -> str | None:
    """Return the id of a happening's call; None if it happened between calls."""
    return None if call_id.rpartition(".")[2] == str(BETWEEN_CALLS) else call_id
