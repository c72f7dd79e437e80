"""The items of a realtime conversation, by the rules of OpenAI's Realtime API. Pure: no I/O, no clock.

OpenAI publishes the rules in its API reference, "Realtime: Client events", and in the texts of its errors. The tests
name the place of each rule.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_worker.offline.tones import START_SECONDS, SYMBOL_SECONDS, seconds

MAX_ID_LENGTH = 32
"""The most characters that the id of an item or of a call may have."""
_CONTENT_TYPES = {
    "user": frozenset({"input_text", "input_audio", "input_image"}),
    "assistant": frozenset({"output_text", "output_audio"}),
    "system": frozenset({"input_text"}),
}
Event = dict[str, Any]


class EventRefusedError(Exception):
    """A client event that OpenAI would answer with an `error` event. The event has changed nothing."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        """Keep OpenAI's `code` and `param`, if they are known."""
        super().__init__(message)
        self.code, self.param = code, param


@dataclass(slots=True)
class Held:
    """An item in the conversation. `words` is what a message says, as far as the model knows it."""

    item: Event
    words: str = ""
    audio_ms: int = 0
    call: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id that the client or the server gave the item."""
        return str(self.item["id"])


class Items:
    """A conversation's items, in their order."""

    def __init__(self) -> None:
        """Begin without items."""
        self._held: list[Held] = []

    def __iter__(self) -> Iterator[Held]:
        """Iterate over the items in their order."""
        return iter(self._held)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._held)

    def find(self, item_id: object) -> Held | None:
        """Return the item with this id, or None if there is none."""
        return next((one for one in self._held if one.id == item_id), None)

    def before(self, item_id: str) -> str | None:
        """Return the id of the item before this one, or None for the first. Raises `ValueError` for an unknown id."""
        ids = [one.id for one in self._held]
        place = ids.index(item_id)
        return ids[place - 1] if place else None

    def append(self, held: Held) -> None:
        """Put an item of the server's own at the end."""
        self._held.append(held)

    def create(self, item: object, previous: object, fresh_id: str) -> Held:
        """Put a client's item at the place that the client wants. Raises `EventRefusedError` if it breaks a rule."""
        if not isinstance(item, Mapping):
            message = "Missing required parameter: 'item'."
            raise EventRefusedError(message, code="missing_required_parameter", param="item")
        created = _checked({"id": fresh_id, **{name: value for name, value in item.items() if value is not None}})
        if self.find(created.id) is not None:
            message = f"Error adding item: an item with ID '{created.id}' already exists."
            raise EventRefusedError(message, code="item_create_duplicate_item_id", param="item.id")
        self._require_call(created.item)
        self._held.insert(self._place(previous), created)
        return created

    def _require_call(self, item: Event) -> None:
        if item["type"] != "function_call_output":
            return
        if not any(one.call.get("call_id") == item["call_id"] for one in self._held):
            message = f"Tool call ID '{item['call_id']}' not found in conversation."
            raise EventRefusedError(message, code="invalid_tool_call_id", param="item.call_id")

    def _place(self, previous: object) -> int:
        if previous is None:
            return len(self._held)
        if previous == "root":
            return 0
        place = next((index for index, one in enumerate(self._held, start=1) if one.id == previous), None)
        if place is None:
            message = f"Error adding item: the previous item with ID '{previous}' does not exist."
            raise EventRefusedError(message, code="invalid_value", param="previous_item_id")
        return place

    def delete(self, item_id: object) -> None:
        """Take an item out. Raises `EventRefusedError` if there is none with this id."""
        held = self.find(item_id)
        if held is None:
            message = f"Error deleting item: the item with ID '{item_id}' does not exist."
            raise EventRefusedError(message, code="item_delete_invalid_item_id", param="item_id")
        self._held.remove(held)

    def truncate(self, item_id: object, audio_end_ms: object) -> Held:
        """Forget the sound of an assistant's message after a moment, the words of that sound, and the transcript.

        Raises `EventRefusedError` if the item is no message of the assistant, or its sound is shorter than that.
        """
        held = self.find(item_id)
        if held is None or held.item.get("role") != "assistant":
            message = f"Only model output audio messages can be truncated; '{item_id}' is none."
            raise EventRefusedError(message, code="invalid_value", param="item_id")
        if not isinstance(audio_end_ms, int) or audio_end_ms > held.audio_ms:
            message = f"Audio content of {held.audio_ms}ms is already shorter than {audio_end_ms}ms"
            raise EventRefusedError(message, code="invalid_value", param="audio_end_ms")
        held.words, held.audio_ms = heard_until(held.words, audio_end_ms / 1000), audio_end_ms
        for part in held.item["content"]:
            part.pop("transcript", None)
        return held

    def messages(self) -> list[Event]:
        """Return the conversation as the messages of a chat. The words of a reply and its calls are one message."""
        messages: list[Event] = []
        for held in self._held:
            kind = held.item["type"]
            if kind == "function_call_output":
                output = {"role": "tool", "tool_call_id": held.item["call_id"], "content": held.item["output"]}
                messages.append(output)
            elif kind == "message":
                messages.append({"role": held.item["role"], "content": held.words})
            else:
                last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
                if last is None:
                    messages.append(last := {"role": "assistant"})
                last.setdefault("tool_calls", []).append(_chat_call(held.call))
        return messages


def heard_until(words: str, heard_seconds: float) -> str:
    """Return the part of a text that the code of `agent_worker.offline.tones` has said after so many seconds."""
    if heard_seconds >= seconds(words):
        return words
    said = words.encode()[: max(0, int((heard_seconds - START_SECONDS) / SYMBOL_SECONDS))]
    return said.decode(errors="ignore")


def _chat_call(call: Mapping[str, str]) -> Event:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["call_id"], "type": "function", "function": function}


def _checked(item: Event) -> Held:
    """Check a client's item, and return it as the conversation holds it. Raises `EventRefusedError`."""
    _check_id(item["id"], "item.id")
    match item.get("type"):
        case "message":
            return Held(item, words=_words(item))
        case "function_call":
            _check_id(item.get("call_id"), "item.call_id")
            call = {name: str(_required(item, name)) for name in ("call_id", "name", "arguments")}
            return Held(item, call=call)
        case "function_call_output":
            _check_id(item.get("call_id"), "item.call_id")
            _required(item, "output")
            return Held(item)
    message = f"Invalid value: '{item.get('type')}'. Supported values are: 'message', 'function_call'…"
    raise EventRefusedError(message, code="invalid_value", param="item.type")


def _check_id(value: object, param: str) -> None:
    """Raise `EventRefusedError` if a value is no id. The messages for a missing or long id are OpenAI's own."""
    if not isinstance(value, str) or not value:
        message = f"Missing required parameter: '{param}'."
        raise EventRefusedError(message, code="missing_required_parameter", param=param)
    if len(value) > MAX_ID_LENGTH:
        message = (
            f"Invalid '{param}': string too long. Expected a string with maximum length {MAX_ID_LENGTH}, "
            f"but got a string with length {len(value)} instead."
        )
        raise EventRefusedError(message, code="string_above_max_length", param=param)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        message = (
            f"Invalid '{param}': '{value}'. Expected an ID that contains letters, numbers, underscores, or dashes, "
            "but this value contained additional characters."
        )
        raise EventRefusedError(message, code="invalid_value", param=param)


def _required(item: Event, name: str) -> object:
    if item.get(name) is None:
        message = f"Missing required parameter: 'item.{name}'."
        raise EventRefusedError(message, code="missing_required_parameter", param=f"item.{name}")
    return item[name]


def _words(item: Event) -> str:
    known = _CONTENT_TYPES.get(str(item.get("role")))
    if known is None:
        message = f"Invalid value: '{item.get('role')}'. Supported values are: 'user', 'assistant', and 'system'."
        raise EventRefusedError(message, code="invalid_value", param="item.role")
    content = _required(item, "content")
    if not isinstance(content, list):
        message = "Missing required parameter: 'item.content'."
        raise EventRefusedError(message, code="missing_required_parameter", param="item.content")
    for index, part in enumerate(content):
        if part.get("type") not in known:
            message = f"Invalid value: '{part.get('type')}'. Value must be one of {sorted(known)}."
            raise EventRefusedError(message, code="invalid_value", param=f"item.content[{index}].type")
        if part["type"] == "output_audio":
            message = "Assistant audio messages cannot be populated by a client."
            raise EventRefusedError(message, code="invalid_value", param=f"item.content[{index}].type")
    return "\n".join(str(part.get("text") or part.get("transcript") or "") for part in content)
