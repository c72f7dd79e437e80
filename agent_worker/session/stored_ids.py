"""The ids that items of a session have in its conversation, which may be other ones."""

from collections.abc import Collection, Iterable

from agent_worker.session.beginnings import words_of
from agent_worker.session.stored_items import known_as
from conversation_actors.items import Item

_OF_CALLS = frozenset({"function_call", "function_call_output"})


def stored_as(item_ids: Collection[str], stored: Iterable[Item], *, said: Collection[str]) -> set[str]:
    """Return the ids of stored items that got another id when they were restored; `said` are the session's own."""
    other = ((item.id, known_as(item.id)) for item in stored)
    return {one for one, name in other if one != name and name in item_ids and one not in said}


def told_by(words: Collection[str], stored: Iterable[Item]) -> set[str]:
    """Return the ids of stored calls that are told of in these words, by the words' ids, and of the calls' outputs."""
    of_calls = [item for item in stored if item.type in _OF_CALLS]
    told = [item for item in of_calls if item.type == "function_call" and words_of(item.id) in words]
    calls = {item.to_dict()["call_id"] for item in told}
    return {item.id for item in of_calls if item.to_dict()["call_id"] in calls}
