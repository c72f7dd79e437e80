"""One call, from its beginning until its record is final."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conversation_actors.calls.agents import Agents
from conversation_actors.calls.people import People
from conversation_actors.calls.record import SessionRecord
from conversation_actors.calls.talk import Talk
from conversation_actors.calls.usage import Usage

_MOST_GAPS = 64


@dataclass(slots=True)
class End:
    """How a call ended, and until when what comes late still belongs to it."""

    at: float
    reason: str
    text: str | None
    until: float


@dataclass(slots=True)
class Gaps:
    """Positions that are missing, in order. Of very many gaps, the last one spans what is between them."""

    ranges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, first: int, last: int) -> None:
        """Note positions after those that were noted before."""
        if self.ranges and (first <= self.ranges[-1][1] + 1 or len(self.ranges) >= _MOST_GAPS):
            first, _ = self.ranges.pop()
        self.ranges.append((first, last))

    def cut(self, seq: int) -> None:
        """Forget what was noted after a position."""
        self.ranges = [(first, min(last, seq)) for first, last in self.ranges if first <= seq]


@dataclass(slots=True)
class Call:
    """What is known of a call so far."""

    number: int
    started_at: float
    end: End | None = None
    is_released: bool = False
    """Whether the agent has given its lease back in order, and for no successor, and no other agent has come."""
    people: People = field(default_factory=People)
    agents: Agents = field(default_factory=Agents)
    talk: Talk = field(default_factory=Talk)
    usage: Usage = field(default_factory=Usage)
    errors: int = 0
    outcome: Mapping[str, Any] | None = None
    summary: str | None = None
    gaps: Gaps = field(default_factory=Gaps)

    @property
    def duration(self) -> float:
        """Seconds from the beginning to the end."""
        return 0.0 if self.end is None else max(0.0, self.end.at - self.started_at)

    def record(self, conversation_id: str, call_id: str) -> SessionRecord:
        """Return the record of a call that has ended."""
        assert self.end is not None
        return SessionRecord(
            conversation_id=conversation_id,
            call_id=call_id,
            number=self.number,
            started_at=self.started_at,
            ended_at=self.end.at,
            duration=self.duration,
            end_reason=self.end.reason,
            end_text=self.end.text,
            messages=self.talk.messages,
            turns=self.talk.turns,
            participants=self.people.record(self.end.at),
            spoke=self.talk.spoken(),
            tools=self.talk.used_tools(),
            usage=self.usage.record(),
            latency=self.talk.latencies(),
            interruptions=self.talk.interruptions,
            crashes=self.agents.crashes,
            take_overs=self.agents.take_overs,
            silence=self.agents.silence,
            agents=self.agents.record(),
            errors=self.errors,
            outcome=self.outcome,
            summary=self.summary,
            gaps=tuple(self.gaps.ranges),
            left_out=self.people.left_out + self.agents.left_out,
        )
