"""Read what a caller has told so far from the messages of one request: words, a name, an order's number.

Pure, like everything that a script decides from: the same messages always give the same result.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from agent_worker.offline.script import ChatRequest, RequestMessage, exchanges_of, is_spoken, text_of

_KEYWORDS = frozenset(
    {
        *("what", "whats", "where", "wheres", "when", "which", "order", "number", "name", "remember", "robot", "human"),
        *("person", "hello", "please", "repeat", "weather", "deliver", "delivery", "arrive", "supervisor", "goodbye"),
        *("refund", "thanks", "thank", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
        *("today", "time", "help", "parcel", "speak", "talk"),
    }
)
_NO_SLIPS = frozenset({"here"})
"""Words that must not be taken for a keyword, although one more letter would make them one."""
_SHORT = 4
_ORDER = re.compile(r"(?<![\w-])(?:[A-Za-z]-?|[A-Z] )?\d{3,6}(?![\w-])")
_ABOUT_NUMBERS = re.compile(r"\b(order|number|parcel|package|meant|track)\b")
_NO_ORDERS = re.compile(r"\b(code|pin|euros?|dollars?|pounds?|years?|times|minutes?|days)\b")
_FEW_WORDS = 5
_NAME = r"([^\W\d_][\w'\u2019-]*(?: [A-Z][\w'\u2019-]+){0,2})"
_NAMES = (
    re.compile(rf"\b(?i:my name is|my name's|my name\u2019s|call me|the name is|name:)\s+{_NAME}"),
    re.compile(
        rf"\b(?i:I am|I'm|I\u2019m|Im|this is|it's|it\u2019s)\s+(?=[A-Z]){_NAME}"
        r"(?:\s+(?:speaking|here))?\s*(?:[.,!]|and\b|$)"
    ),
)
_ALONE = re.compile(r"^\s*([A-Z][\w'\u2019-]+(?: [A-Z][\w'\u2019-]+){0,2})\s*(?:[.,!]|$)")
_NO_NAMES = frozenset(
    {
        *(
            "not",
            "back",
            "here",
            "sorry",
            "fine",
            "good",
            "ok",
            "okay",
            "yes",
            "no",
            "hello",
            "hi",
            "thanks",
            "what",
            "my",
        ),
        *("the", "a", "an", "in", "on", "at", "just", "so", "still", "looking", "calling"),
    }
)


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A tool call that has an output, and that output."""

    tool: str
    output: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a request tells. `said` is what the caller said last, unchanged; `words` are the plain words of it."""

    said: str
    words: str
    earlier: tuple[str, ...]
    """What the caller said before, oldest first."""
    name: str | None
    is_name_new: bool
    order: str | None
    """The number of the order that was named last in the call."""
    named_order: str | None
    """The number of an order that the caller's last words name."""
    last_answer: str
    outcomes: tuple[ToolOutcome, ...]
    outputs: tuple[str, ...]
    """The outputs of tools in the whole call."""
    is_answered: bool
    tools: frozenset[str]
    next_call: int

    @classmethod
    def of(cls, request: ChatRequest) -> "Heard | None":
        """Read a request. Return None if the caller has said nothing yet."""
        exchanges = exchanges_of(request.messages)
        if not exchanges:
            return None
        said, earlier = exchanges[-1].text, tuple(one.text for one in exchanges[:-1])
        answers = exchanges[-1].answers
        name, is_name_new = _name(request.messages)
        named = order_in(said)
        return cls(
            said=said,
            words=plain(said),
            earlier=earlier,
            name=name,
            is_name_new=is_name_new,
            order=next((found for text in reversed([*earlier, said]) if (found := order_in(text))), None),
            named_order=named,
            last_answer=_last_answer(request.messages),
            outcomes=tuple(_outcomes(answers)),
            outputs=tuple(outcome.output for one in exchanges for outcome in _outcomes(one.answers)),
            is_answered=bool(answers) and is_spoken(answers[-1]),
            tools=request.tools if request.tools_allowed else frozenset(),
            next_call=_next_call(request.messages),
        )


def plain(text: str) -> str:
    """Return the words of a text in lower case and without punctuation.

    A word with a missing, an extra or two swapped letters becomes the keyword that was meant.
    """
    words = re.findall(r"[^\W_]+", re.sub(r"['\u2019]", "", text.casefold()))
    return " ".join(_meant(word) for word in words)


def _meant(word: str) -> str:
    if len(word) < _SHORT or word in _KEYWORDS or word in _NO_SLIPS:
        return word
    return next((key for key in sorted(_KEYWORDS) if _is_slip(word, key)), word)


def _is_slip(word: str, key: str) -> bool:
    """Tell whether `word` is `key` with one letter too few or too many, or with two neighbours swapped.

    A letter that is replaced by another one is no slip.
    """
    if len(word) == len(key):
        return any(
            word == key[:place] + second + first + key[place + 2 :]
            for place, (first, second) in enumerate(pairwise(key))
        )
    longer, shorter = (word, key) if len(word) > len(key) else (key, word)
    return any(longer[:place] + longer[place + 1 :] == shorter for place in range(len(longer)))


def order_in(text: str) -> str | None:
    """Return the last order number in a sentence, as ``A-1042``, or as digits only if it has no letter.

    Return None if there is none, or if the sentence is more likely about another number.
    """
    words = plain(text)
    numbers = [match.group() for match in _ORDER.finditer(text)]
    if not numbers or _NO_ORDERS.search(words):
        return None
    number = numbers[-1]
    if number.isdigit() and not _ABOUT_NUMBERS.search(words) and len(words.split()) > _FEW_WORDS:
        return None
    return number if number.isdigit() else f"{number[0].upper()}-{number.lstrip(number[0]).lstrip('- ')}"


def _name(messages: Sequence[RequestMessage]) -> tuple[str | None, bool]:
    """Return the caller's name, and whether the last words told it."""
    name, is_new, asked = None, False, False
    for message in messages:
        if message.get("role") == "user":
            text = text_of(message)
            found = _told_name(text, asked=asked)
            name, is_new = (found or name), found is not None
        elif is_spoken(message):
            asked = "your name" in text_of(message).casefold()
    return name, is_new


def _told_name(text: str, *, asked: bool) -> str | None:
    patterns = (*_NAMES, _ALONE) if asked else _NAMES
    for found in (match.group(1) for pattern in patterns if (match := pattern.search(text))):
        if found.split()[0].casefold() not in _NO_NAMES:
            return found if found != found.lower() else found.title()
    return None


def _last_answer(messages: Sequence[RequestMessage]) -> str:
    return next((text_of(message) for message in reversed(messages) if is_spoken(message)), "")


def _calls(messages: Sequence[RequestMessage]) -> Iterator[dict[str, Any]]:
    return (call for message in messages for call in message.get("tool_calls") or [])


def _outcomes(answers: Sequence[RequestMessage]) -> Iterator[ToolOutcome]:
    names = {call["id"]: call["function"]["name"] for call in _calls(answers)}
    for message in answers:
        if message.get("role") == "tool":
            yield ToolOutcome(names.get(str(message.get("tool_call_id")), ""), text_of(message))


def _next_call(messages: Sequence[RequestMessage]) -> int:
    """Return a number higher than that of any call in the request, so also if older calls have left the window."""
    numbers = (re.fullmatch(r"call_talk_(\d+)", str(call.get("id"))) for call in _calls(messages))
    return max((int(match.group(1)) for match in numbers if match), default=0) + 1
