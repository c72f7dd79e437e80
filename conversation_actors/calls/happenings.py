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
"""All types of happenings."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that a business is told of.

    `at` is in seconds since the epoch, by the clock of the conversation's owner. `seq` is the position of the entry
    that it follows from, and `place` its place among all that follows from this position. What only time has led to
    follows from the last entry. `data` has JSON values.
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
