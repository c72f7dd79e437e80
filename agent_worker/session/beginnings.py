"""Make contexts begin so that no tool is called before the caller's first turn.

Gemini refuses a call that does not follow a turn of the user or an output. It therefore refuses every request with a
context that begins in the middle of a reply. The items that are left out here stay in the conversation.
"""

from collections.abc import Iterable, Sequence

from livekit.agents.llm import AudioContent, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput, ImageContent

from agent_worker.session.stored_items import known_as

_TOLD = "told_"
"""The beginning of the ids of messages that tell in words what a tool returned."""


def words_of(call_id: str) -> str:
    """Return the id of the message that tells in words of the call with this id."""
    return _TOLD + known_as(call_id)


def are_words(item: ChatItem) -> bool:
    """Tell whether an item tells of a call in words. Such an item is only in contexts, in no history."""
    return isinstance(item, ChatMessage) and item.id.startswith(_TOLD)


def begun(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Return the items without the tool calls before the caller's first turn and without their outputs."""
    early = _early(items)
    return [item for index, item in enumerate(items) if index not in early]


def newest(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Return the items as `begun` does, but also without everything before the last call or output left out there.

    Only calls and outputs before the caller's first turn count for that.
    So only the beginning is missing, as in a session that forgets its beginning. If an item is missing from the middle
    of a conversation, that means that somebody has taken it out.
    """
    early = _early(items)
    start = max((index for index in early if index < _first_turn(items)), default=-1) + 1
    return [item for index, item in enumerate(items) if index >= start and index not in early]


def told_in_words(context: Sequence[ChatItem]) -> list[ChatItem]:
    """Return a context like that of `begun`, but with the early calls and their outputs told in words.

    Text that is blank is left out. Without these words, an agent that looks its caller up when it enters would know
    nothing of the result, or would look the caller up twice.
    """
    early = _early(context)
    outputs = {one.call_id: one for index in sorted(early) if isinstance(one := context[index], FunctionCallOutput)}
    there = {item.id for item in context}
    told: list[ChatItem] = []
    for index, item in enumerate(context):
        if index not in early:
            told += _without_blanks(item)
        elif isinstance(item, FunctionCall) and item.call_id in outputs:
            message = _in_words(item, outputs[item.call_id])
            told += [] if message.id in there else [message]
    return told


def _early(items: Sequence[ChatItem]) -> frozenset[int]:
    """Return the places of calls before the caller's first turn, of outputs before it, and of these calls' outputs."""
    first = _first_turn(items)
    calls: set[str] = set()
    early: set[int] = set()
    for index, item in enumerate(items):
        if isinstance(item, FunctionCall):
            # a later call may have the same call id
            (calls.add if index < first else calls.discard)(item.call_id)
        if isinstance(item, FunctionCall | FunctionCallOutput) and (index < first or item.call_id in calls):
            early.add(index)
    return frozenset(early)


def _first_turn(items: Sequence[ChatItem]) -> int:
    """Return the place of the caller's first turn, or the number of items if there is none."""
    return next((index for index, item in enumerate(items) if _is_turn_of_caller(item)), len(items))


def _is_turn_of_caller(item: ChatItem) -> bool:
    return isinstance(item, ChatMessage) and item.role == "user" and any(map(_is_seen_by_all, item.content))


def _is_seen_by_all(part: object) -> bool:
    """Tell whether LiveKit writes the part in the format of every provider; it writes no sounds."""
    return isinstance(part, ImageContent) or (isinstance(part, str) and bool(part.strip()))


def _without_blanks(item: ChatItem) -> Iterable[ChatItem]:
    """Return the item without blank text, which some vendors refuse. Return nothing if no content is left."""
    if not isinstance(item, ChatMessage) or all(_is_seen_by_all(part) for part in item.content):
        return [item] if not isinstance(item, ChatMessage) or item.content else []
    kept = [part for part in item.content if not isinstance(part, str) or part.strip()]
    if not any(isinstance(part, AudioContent) or _is_seen_by_all(part) for part in kept):
        return []
    return [item if len(kept) == len(item.content) else item.model_copy(update={"content": kept})]


def _in_words(call: FunctionCall, output: FunctionCallOutput) -> ChatMessage:
    # the role is the assistant's, not an instruction's, because a tool's output may contain anybody's words
    text = f"[Before this, the tool {call.name} was called with {call.arguments}. Its output: {output.output}]"
    return ChatMessage(id=words_of(call.id), role="assistant", content=[text], created_at=call.created_at)
