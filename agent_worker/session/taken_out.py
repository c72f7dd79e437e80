"""What an edit of a context takes out of the conversation, and what it only leaves out of sight."""

from collections.abc import Collection, Sequence
from typing import Any

from livekit.agents.llm import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.session.context import is_kept_apart
from conversation_actors.items import PINNED_ROLES

Wording = tuple[Any, ...]
"""What an item says, and nothing that is measured of it."""


def taken_out(
    before: Sequence[ChatItem],
    left: Collection[str],
    said: Collection[str] | None = None,
    *,
    has_something_new: bool = False,
) -> list[ChatItem]:
    """Return the items that somebody took out of a context: those that were there `before`, less those `left`, by id.

    Not what LiveKit's own ways of shortening a context can leave out, for that is no wish that nobody may read it:
    what stands before the first item that is left (`truncate`, a summary, `SessionBounds`), all calls of a tool
    (``copy(exclude_function_call=True)``, ``copy(tools=…)``), empty messages, instructions and configuration.

    `said`: the ids of what is a part of the talk, if not all is. What the application has brought, a summary or
    examples, stays in front of a shorter talk, and is not the first item of the talk that is left.

    If a beginning has gone, and what is left has `has_something_new`, it was summarised, which takes a while: what
    stands after the last item that is left was said meanwhile.
    """
    items = [item for item in before if _counts(item)]
    places = [index for index, item in enumerate(items) if item.id in left and (said is None or item.id in said)]
    first, last = (places[0], places[-1]) if places else (len(items), len(items) - 1)
    behind = items[first : last + 1] if has_something_new and first else items[first:]
    cut = {call_id for item in items[:first] if (call_id := _call_id(item))}
    names = {item.call_id: item.name for item in behind if isinstance(item, FunctionCall)}
    calls_left = {item.call_id: item.name for item in behind if isinstance(item, FunctionCall) and item.id in left}
    there = set(calls_left.values())
    return [
        item
        for item in behind
        if item.id not in left
        and ((call_id := _call_id(item)) is None or (call_id not in cut and names.get(call_id) in there))
        # LiveKit 1.6 sorts outputs by their own names, also when they have none
        and not (isinstance(item, FunctionCallOutput) and not item.name and item.call_id in calls_left)
    ]


def wording(item: ChatItem) -> Wording:
    """Return what two versions of an item differ in when somebody has changed what it says; pictures by their ids."""
    match item.type:
        case "message":
            return tuple([part if isinstance(part, str) else _media(part) for part in item.content])
        case "function_call":
            return (item.name, item.arguments)
        case "function_call_output":
            return (item.output,)
        case _:
            return ()


def is_only_longer(before: Wording, now: Wording) -> bool:
    """Whether all that was said is said still, as when a transcript has grown."""
    said = "\n".join(part for part in now if isinstance(part, str))
    return all(part in now or (isinstance(part, str) and part in said) for part in before)


def _media(part: Any) -> tuple[str, Any]:
    return part.type, getattr(part, "id", getattr(part, "transcript", None))


def _counts(item: ChatItem) -> bool:
    """Whether an item is a part of the talk that may be taken out."""
    if is_kept_apart(item):
        return False
    if isinstance(item, ChatMessage):
        return item.role not in PINNED_ROLES and any(item.content)
    return isinstance(item, FunctionCall | FunctionCallOutput)


def _call_id(item: ChatItem) -> str | None:
    return item.call_id if isinstance(item, FunctionCall | FunctionCallOutput) else None
