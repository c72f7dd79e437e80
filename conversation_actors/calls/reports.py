"""What a back end is told besides a business: each item as it is stored, speech, removals, and failures of models."""

from collections.abc import Iterator, Mapping
from typing import Any

from conversation_actors.calls.happenings import (
    ERROR_NOTED,
    MESSAGE_STORED,
    MESSAGES_REMOVED,
    SPEECH_FINISHED,
    TRANSCRIPTION_FINAL,
)
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
from conversation_actors.calls.names import ERROR, ROLE_FIELD, name_of_role
from conversation_actors.calls.talk import SOMEBODY, THE_AGENT
from conversation_actors.calls.told import Told
from conversation_actors.items import LANGUAGE, StoredItem
from conversation_actors.state import AttributesChanged, Event, HistoryCleared, ItemsRemoved

_MESSAGE = "message"
_NAME_CHARACTERS, _STACK_CHARACTERS = 128, 8 << 10


def of_item(item: StoredItem, *, is_news: bool) -> Iterator[Told]:
    """Yield what an item leads to that came, or came again with another content.

    `is_news`: it came for the first time in this call. Only then is what was said in it told as speech.
    """
    if item.type != _MESSAGE and not is_of_tool(item):
        return
    fields = fields_of(item)
    yield Told(MESSAGE_STORED, {"message": _message(item, fields)})
    if is_news and is_said(item) and not fields.get(ROLE_FIELD):
        yield from _speech(item, fields)


def of_event(event: Event) -> Iterator[Told]:
    """Yield what an event leads to that brings no item."""
    match event:
        case ItemsRemoved(identities) if identities:  # without any, only older texts were forgotten
            yield Told(MESSAGES_REMOVED, {"ids": list(identities)})
        case HistoryCleared():
            yield Told(MESSAGES_REMOVED, {"ids": None})
        case AttributesChanged(changes):
            for stored, value in changes.items():
                if name_of_role(stored)[0] == ERROR and isinstance(value, Mapping):
                    yield Told(ERROR_NOTED, _failure(value))
        case _:
            pass


def _message(item: StoredItem, fields: Mapping[str, Any]) -> dict[str, Any]:
    created_at = fields.get("created_at")
    role = fields.get(ROLE_FIELD)
    return {
        "id": item.id,
        "item_type": item.type,
        "role": item.role or None,
        "text": _words(item, fields),
        "created_at": created_at if type(created_at) in {int, float} else None,
        "interrupted": fields.get("interrupted") is True,
        "identity": identity_of(fields),
        "agent_role": role if isinstance(role, str) and role else None,
        "item": dict(fields) or None,
    }


def _words(item: StoredItem, fields: Mapping[str, Any]) -> str:
    if item.type == CALL:
        return f"{_text(fields, 'name') or ''}({_text(fields, 'arguments') or ''})"
    return (_text(fields, "output") or "") if item.type == OUTPUT else text_of(fields)


def _speech(item: StoredItem, fields: Mapping[str, Any]) -> Iterator[Told]:
    """Yield what a person said, and that somebody spoke: a message of which nobody says so may have been written."""
    is_user = item.role == "user"
    identity = identity_of(fields)
    if is_user:
        extra = fields.get("extra")
        language = _text(extra, LANGUAGE) if isinstance(extra, Mapping) else None
        said = {"item_id": item.id, "text": text_of(fields), "identity": identity}
        yield Told(TRANSCRIPTION_FINAL, {**said, "language": language, "final": True})
    measured = measures_of(fields)
    started, stopped = seconds_of(measured, STARTED), seconds_of(measured, STOPPED)
    is_interrupted = fields.get("interrupted") is True
    if started is None and stopped is None and not is_interrupted:
        return
    data = {
        "item_id": item.id,
        "role": item.role,
        "speaker": (identity or SOMEBODY) if is_user else THE_AGENT,
        "started_at": started,
        "stopped_at": stopped,
        "duration": None if started is None or stopped is None else max(0.0, stopped - started),
        "interrupted": is_interrupted,
    }
    yield Told(SPEECH_FINISHED, data)


def _failure(noted: Mapping[str, Any]) -> dict[str, Any]:
    stack = _text(noted, "stack")
    return {
        "error_type": (_text(noted, "type") or "")[:_NAME_CHARACTERS],
        "source": (_text(noted, "source") or "")[:_NAME_CHARACTERS],
        "recoverable": noted.get("recoverable") is True,
        "stack": None if stack is None else stack[-_STACK_CHARACTERS:],
    }


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None
