"""What was said and done in one call: messages, turns, tools, and what was measured of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from conversation_actors.calls.happenings import TURN_COMPLETED
from conversation_actors.calls.item_fields import (
    CALL,
    OUTPUT,
    STARTED,
    STOPPED,
    fields_of,
    identity_of,
    is_of_tool,
    is_said,
    measures_of,
    seconds_of,
    text_of,
)
from conversation_actors.calls.names import ROLE_FIELD
from conversation_actors.calls.record import SessionLatency, SessionTool
from conversation_actors.calls.samples import Sample
from conversation_actors.calls.told import Told
from conversation_actors.items import StoredItem

MEASURES = (
    "e2e_latency",
    "llm_node_ttft",
    "llm_node_ttfs",
    "tts_node_ttfb",
    "playback_latency",
    "transcription_delay",
    "end_of_turn_delay",
    "on_user_turn_completed_delay",
)
"""LiveKit's names of what is measured in seconds, of a message."""
E2E = MEASURES[0]
SOMEBODY, THE_AGENT = "user", "agent"
"""Speakers: a person of whom no identity was noted, and the agent."""
MOST_TOOLS, MOST_SPEAKERS = 100, 128
OTHERS = "(others)"
"""Whatever is beyond these numbers."""
_NAME_CHARACTERS = 128
_MOST_UNANSWERED, _UNANSWERED_CHARACTERS = 32, 8192
_MOST_RUNNING = 64


@dataclass(slots=True)
class Unanswered:
    """What people said since the agent spoke last."""

    item_ids: list[str] = field(default_factory=list)
    text: str | None = ""
    """None if it was taken out of the history."""
    identity: str | None = None
    """Of whoever spoke last; None if that is not known."""

    def add(self, item_id: str, text: str, identity: str | None) -> None:
        """Take one more message; of very many, the first ones and the beginning of the text are kept."""
        if len(self.item_ids) < _MOST_UNANSWERED:
            self.item_ids.append(item_id)
        joined = f"{self.text}\n{text}" if self.text and text else self.text or text
        self.text, self.identity = joined[:_UNANSWERED_CHARACTERS], identity


@dataclass(slots=True)
class Tool:
    """What was asked of one tool."""

    calls: int = 0
    failures: int = 0


@dataclass(slots=True)
class Talk:
    """What was said and done so far. Messages are those of people and of the agent of the role `agent`."""

    messages: int = 0
    turns: int = 0
    interruptions: int = 0
    unanswered: Unanswered | None = None
    tools: dict[str, Tool] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    """Names of tools by the ids of calls that have no output yet."""
    spoke: dict[str, float] = field(default_factory=dict)
    is_speech_measured: bool = False
    latency: dict[str, Sample] = field(default_factory=dict)

    def take(self, item: StoredItem) -> list[Told]:
        """Take an item that `is_counted`, and was not taken before."""
        fields = fields_of(item)
        if item.type == CALL:
            self._call_tool(item.call_id, fields.get("name"))
        elif item.type == OUTPUT:
            self._end_tool(item.call_id, fields.get("name"), is_error=fields.get("is_error") is True)
        elif not fields.get(ROLE_FIELD):
            return self._say(item.id, fields)
        return []

    def forget(self, identities: Collection[str] | None) -> None:
        """Keep no words of these items, and of what was said with them; None: of no item."""
        asked = self.unanswered
        if asked is not None and (identities is None or not set(asked.item_ids).isdisjoint(identities)):
            asked.text = None

    def latencies(self) -> dict[str, SessionLatency]:
        """Return what the record says of what was measured."""
        return {name: sample.figures() for name, sample in self.latency.items() if sample.values}

    def spoken(self) -> dict[str, float] | None:
        """Return the seconds of speech by speaker; None if nobody measured."""
        return dict(self.spoke) if self.is_speech_measured else None

    def used_tools(self) -> tuple[SessionTool, ...]:
        """Return what was asked of each tool, in the order in which they were called first."""
        return tuple(SessionTool(name=name, calls=t.calls, failures=t.failures) for name, t in self.tools.items())

    def _say(self, item_id: str, fields: Mapping[str, Any]) -> list[Told]:
        self.messages += 1
        is_user = fields.get("role") == "user"
        measured = measures_of(fields)
        identity = identity_of(fields) if is_user else None
        self._measure(measured, THE_AGENT if not is_user else identity or SOMEBODY)
        if is_user:
            self.unanswered = self.unanswered or Unanswered()
            self.unanswered.add(item_id, text_of(fields), identity)
            return []
        is_interrupted = fields.get("interrupted") is True
        self.interruptions += is_interrupted
        if self.unanswered is None:
            return []
        asked, self.unanswered = self.unanswered, None
        self.turns += 1
        data = {
            "turn": self.turns,
            "user": {"item_ids": asked.item_ids, "text": asked.text, "identity": asked.identity},
            "agent": {"item_id": item_id, "text": text_of(fields)},
            "interrupted": is_interrupted,
            "latency": seconds_of(measured, E2E),
        }
        return [Told(TURN_COMPLETED, data)]

    def _call_tool(self, call_id: str, name: object) -> None:
        named = _name_of(name)
        self._tool(named).calls += 1
        self.running[call_id] = named
        if len(self.running) > _MOST_RUNNING:
            del self.running[next(iter(self.running))]

    def _end_tool(self, call_id: str, name: object, *, is_error: bool) -> None:
        called = self.running.pop(call_id, None)
        if is_error:
            self._tool(called or _name_of(name)).failures += 1

    def _measure(self, measured: Mapping[str, Any], speaker: str) -> None:
        for name in MEASURES:
            seconds = seconds_of(measured, name)
            if seconds is not None:
                self.latency.setdefault(name, Sample()).add(seconds)
        started, stopped = seconds_of(measured, STARTED), seconds_of(measured, STOPPED)
        if started is not None and stopped is not None:
            self.is_speech_measured = True
            known = speaker if speaker in self.spoke or len(self.spoke) < MOST_SPEAKERS else OTHERS
            self.spoke[known] = self.spoke.get(known, 0.0) + max(0.0, stopped - started)

    def _tool(self, name: str) -> Tool:
        known = name if name in self.tools or len(self.tools) < MOST_TOOLS else OTHERS
        return self.tools.setdefault(known, Tool())


def is_counted(item: StoredItem) -> bool:
    """Tell whether an item is one of those that `Talk` takes."""
    return is_said(item) or is_of_tool(item)


def _name_of(name: object) -> str:
    return name[:_NAME_CHARACTERS] if isinstance(name, str) and name else OTHERS
