"""Decide what the offline model answers, from the messages of one request and from nothing else.

Nothing is remembered between requests. Therefore a second agent with a complete history gets exactly the continuation,
and an agent with a hole in its history gets an answer that says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent_worker.offline.transcript import Step, ToolUse, Transcript, Turn, spoken

RequestMessage = Mapping[str, Any]
"""A message of a chat-completions request: ``role``, and depending on that ``content``, ``tool_calls`` and
``tool_call_id``."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The parts of a chat-completions request that an answer can depend on."""

    messages: Sequence[RequestMessage]
    tools: frozenset[str] = frozenset()
    tools_allowed: bool = True


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A call of a tool that the model asks for. `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says, and the calls of tools that it asks for."""

    text: str = ""
    calls: tuple[RequestedCall, ...] = ()


class Script(Protocol):
    """A model's behaviour: a function of the request."""

    def reply(self, request: ChatRequest) -> Reply:
        """Decide the answer. Must not depend on earlier requests."""


@dataclass(slots=True)
class Exchange:
    """A user message, and the messages between it and the next one."""

    text: str
    answers: list[RequestMessage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TranscriptScript:
    """A script that follows a transcript.

    It continues with whatever comes after the last user message. In three cases it leaves the transcript and says why:
    when something of the call so far is missing from the request, out of order or there twice, when it is asked again
    for what it has already said, and when the outcome of a tool call is not the transcript's.
    """

    transcript: Transcript

    def is_on_its_way(self, request: ChatRequest) -> bool:
        """Tell whether the call so far agrees with the transcript, and its last user message is in the transcript.

        Other user messages in between are allowed.
        """
        exchanges = exchanges_of(request.messages)
        position = self.transcript.position(exchanges[-1].text) if exchanges else None
        return position is not None and not self._flaws(exchanges, position)

    def reply(self, request: ChatRequest) -> Reply:
        """Return the next line of the transcript, or a sentence about the request if there is none."""
        exchanges = exchanges_of(request.messages)
        if not exchanges:
            return Reply(self.transcript.greeting)
        position = self.transcript.position(exchanges[-1].text)
        if position is None:
            said = sum(1 for message in request.messages if message.get("role") == "user")
            return Reply(f"I have no line for that. I was sent {len(request.messages)} messages, {said} from you.")
        flaws = self._flaws(exchanges, position)
        if flaws:
            return Reply(f"I have lost the thread: in the {len(request.messages)} messages I was sent, {flaws[0]}.")
        return self._continue(position, exchanges[-1].answers, request)

    def _continue(self, position: int, answers: list[RequestMessage], request: ChatRequest) -> Reply:
        turn = self.transcript.turns[position]
        if _is_answered(answers):
            return Reply("I have answered that already.")
        missing = _missing_step(turn, answers)
        if missing is None:
            name = _surprise(turn, answers)
            return Reply(turn.reply if name is None else unclear(name))
        number, step, uses = missing
        if not request.tools_allowed:
            return Reply(turn.reply)
        unknown = [use.name for use in uses if use.name not in request.tools]
        if unknown:
            return Reply(f"I would need the tool {unknown[0]} now, and was not given it.")
        calls = tuple(_call(f"call_{position + 1}_{number + 1}_{step.calls.index(use) + 1}", use) for use in uses)
        return Reply(step.say if len(uses) == len(step.calls) else "", calls)

    def _flaws(self, exchanges: list[Exchange], position: int) -> list[str]:
        """Return what in the call up to `position` differs from the transcript, including the order of the turns."""
        by_words: dict[str, list[Exchange]] = {}
        for exchange in exchanges:
            by_words.setdefault(spoken(exchange.text), []).append(exchange)
        flaws = []
        for number, turn in enumerate(self.transcript.turns[: position + 1]):
            found = by_words.get(spoken(turn.user), [])
            if len(found) != 1:
                flaws.append(f"your turn {number + 1} is there {len(found)} times")
            elif number < position and not _is_complete(turn, found[0].answers):
                flaws.append(f"what was done about your turn {number + 1} is not complete")
        order = [
            place for place in (self.transcript.position(exchange.text) for exchange in exchanges) if place is not None
        ]
        return flaws or (["your turns are out of order"] if order != sorted(order) else [])


def unclear(name: str) -> str:
    """Return what is said about a tool whose outcome is not known."""
    return f"I was cut off while I used {name}, and don't know whether it went through. I'll check before I try again."


def _call(call_id: str, use: ToolUse) -> RequestedCall:
    return RequestedCall(call_id, use.name, json.dumps(use.arguments))


def exchanges_of(messages: Sequence[RequestMessage]) -> list[Exchange]:
    """Return what the caller said, each with what followed it. Messages before the caller's first are left out."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.get("role") == "user":
            exchanges.append(Exchange(text_of(message)))
        elif exchanges and message.get("role") in {"assistant", "tool"}:
            exchanges[-1].answers.append(message)
    return exchanges


def text_of(message: RequestMessage) -> str:
    """Return the text of a message, whose content may be text, parts, or nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) for part in parts if isinstance(part, Mapping) and part.get("type") == "text"
    )


def _is_answered(answers: list[RequestMessage]) -> bool:
    """Tell whether the last message is the agent's words, without tool calls."""
    return bool(answers) and is_spoken(answers[-1])


def is_spoken(message: RequestMessage) -> bool:
    """Tell whether a message is words of the agent that do not come with tool calls."""
    return message.get("role") == "assistant" and not message.get("tool_calls") and bool(text_of(message))


def _is_complete(turn: Turn, answers: list[RequestMessage]) -> bool:
    """Tell whether a turn was answered and none of its tool calls is missing.

    After an outcome that is not the transcript's, later steps may be missing.
    """
    if not any(is_spoken(message) for message in answers):
        return False
    return _missing_step(turn, answers) is None


def _missing_step(turn: Turn, answers: list[RequestMessage]) -> tuple[int, Step, list[ToolUse]] | None:
    """Return the first step with calls that have no output yet: its number, the step, and these calls.

    Return None if there is none, or if an earlier step had an outcome that is not the transcript's.
    """
    outcomes = _outcomes(answers)
    for number, step in enumerate(turn.steps):
        missing = [use for use in step.calls if _key(use.name, use.arguments) not in outcomes]
        if missing:
            return number, step, missing
        if any(outcomes[_key(use.name, use.arguments)] != use.output for use in step.calls):
            return None
    return None


def _surprise(turn: Turn, answers: list[RequestMessage]) -> str | None:
    """Return the name of a tool whose outcome is not the transcript's, or None if there is none."""
    outcomes = _outcomes(answers)
    uses = [use for step in turn.steps for use in step.calls]
    return next(
        (use.name for use in uses if outcomes.get(_key(use.name, use.arguments), use.output) != use.output), None
    )


def _outcomes(answers: list[RequestMessage]) -> dict[str, str]:
    """Return the outputs of the calls that have one, by tool name and arguments."""
    outputs = {
        str(message.get("tool_call_id")): text_of(message) for message in answers if message.get("role") == "tool"
    }
    calls = [call for message in answers for call in message.get("tool_calls") or []]
    return {
        _key(call["function"]["name"], _arguments(call["function"]["arguments"])): outputs[call["id"]]
        for call in calls
        if call["id"] in outputs
    }


def _arguments(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _key(name: str, arguments: object) -> str:
    return name + json.dumps(arguments, sort_keys=True)
