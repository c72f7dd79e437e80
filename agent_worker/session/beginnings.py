"""Where what LiveKit is given may begin: after a turn of the caller a tool may be called, before it never.

Gemini refuses a call that does not stand after a turn of the user or an output, and so each request of a context that
begins in the middle of a reply. What is left out here stays in the conversation.
"""

from collections.abc import Iterable, Sequence

from livekit.agents.llm import AudioContent, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput, ImageContent

from agent_worker.session.stored_items import known_as

_TOLD = "told_"
"""Begins the ids of messages that tell in words what a tool gave."""


def words_of(call_id: str) -> str:
    """Return the id of the message that tells of a call, by the id of the call, in words."""
    return _TOLD + known_as(call_id)


def are_words(item: ChatItem) -> bool:
    """Whether an item tells of a call in words: it is in no history, only in contexts."""
    return isinstance(item, ChatMessage) and item.id.startswith(_TOLD)


def begun(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Return the items without calls of tools before the caller's first turn, and their outputs."""
    early = _early(items)
    return [item for index, item in enumerate(items) if index not in early]


def newest(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Return the end of the items that begins so: what stands before the last of these calls is left out too.

    What a session forgets is its beginning. Whatever goes from the middle of a talk, somebody has taken out.
    """
    early = _early(items)
    start = max((index for index in early if index < _first_turn(items)), default=-1) + 1
    return [item for index, item in enumerate(items) if index >= start and index not in early]


def told_in_words(context: Sequence[ChatItem]) -> list[ChatItem]:
    """Return a context that begins so, in which what tools gave before is told in words, and nothing blank is said.

    An agent that looks its caller up when it enters would else know nothing of it, or do it twice.
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
    """Which items are calls before the caller's first turn, or outputs of these; by their places."""
    first = _first_turn(items)
    calls: set[str] = set()
    early: set[int] = set()
    for index, item in enumerate(items):
        if isinstance(item, FunctionCall):
            # a call id may come again
            (calls.add if index < first else calls.discard)(item.call_id)
        if isinstance(item, FunctionCall | FunctionCallOutput) and (index < first or item.call_id in calls):
            early.add(index)
    return frozenset(early)


def _first_turn(items: Sequence[ChatItem]) -> int:
    """Return the place of the caller's first turn."""
    return next((index for index, item in enumerate(items) if _is_turn_of_caller(item)), len(items))


def _is_turn_of_caller(item: ChatItem) -> bool:
    return isinstance(item, ChatMessage) and item.role == "user" and any(map(_is_seen_by_all, item.content))


def _is_seen_by_all(part: object) -> bool:
    """Whether every format has it: LiveKit writes no sounds."""
    return isinstance(part, ImageContent) or (isinstance(part, str) and bool(part.strip()))


def _without_blanks(item: ChatItem) -> Iterable[ChatItem]:
    """Return the item without text that says nothing, which some vendors refuse; nothing, if nothing is left."""
    if not isinstance(item, ChatMessage) or all(_is_seen_by_all(part) for part in item.content):
        return [item] if not isinstance(item, ChatMessage) or item.content else []
    kept = [part for part in item.content if not isinstance(part, str) or part.strip()]
    if not any(isinstance(part, AudioContent) or _is_seen_by_all(part) for part in kept):
        return []
    return [item if len(kept) == len(item.content) else item.model_copy(update={"content": kept})]


def _in_words(call: FunctionCall, output: FunctionCallOutput) -> ChatMessage:
    # the assistant's, and no instruction: what a tool gives may be anybody's words
    text = f"[Before this, the tool {call.name} was called with {call.arguments}. Its output: {output.output}]"
    return ChatMessage(id=words_of(call.id), role="assistant", content=[text], created_at=call.created_at)
