"""Describe an agent's context: the part of the history that the agent has heard, and what was brought into it.

A context is noted so that it can be made again. Items of the history are noted by reference, other items in full.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from livekit.agents.llm import ChatItem, FunctionCallOutput

from agent_worker.session.recorder import RESERVED_PREFIX
from agent_worker.session.serialise import to_fields
from agent_worker.session.turn_context import is_turn_context

INTERRUPTED_SUFFIX = "/outcome_unknown"
"""The end of the ids of outputs that were made up for calls which had none."""


def is_kept_apart(item: ChatItem) -> bool:
    """Tell whether an item is LiveKit's own (instructions, configuration, a handoff), or of one turn only."""
    is_livekits = item.id.startswith(RESERVED_PREFIX) or item.type in {"agent_config_update", "agent_handoff"}
    return is_livekits or is_turn_context(item)


@dataclass(frozen=True, slots=True)
class Heard:
    """The part of a history that a context has: only `heard` up to the item `after`, all but `unheard` later."""

    after: str | None = None
    """The id of an item, or None if `unheard` applies to the whole history."""
    at: float = 0.0
    """When the item `after` was made, for a history that no longer has that item."""
    heard: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()

    @classmethod
    def of(cls, history: Sequence[ChatItem], known: Collection[str], *, is_cut: bool = False) -> Self:
        """Return the shortest description of a context that has the items `known`.

        `is_cut` says that the history once had older items.
        """
        heard, unheard = 0, sum(1 for item in history if _counts(item) and item.id not in known)
        best, place = (len(history) + 1 if is_cut and history else unheard), 0
        for index, item in enumerate(history, start=1):
            if _counts(item):
                heard, unheard = (heard + 1, unheard) if item.id in known else (heard, unheard - 1)
            if heard + unheard <= best:
                best, place = heard + unheard, index
        before, behind = history[:place], history[place:]
        return cls(
            after=before[-1].id if before else None,
            at=before[-1].created_at if before else 0.0,
            heard=frozenset(item.id for item in before if item.id in known and _counts(item)),
            unheard=frozenset(item.id for item in behind if item.id not in known and _counts(item)),
        )

    @classmethod
    def read(cls, noted: object) -> Self:
        """Read what `to_dict`, or somebody else, wrote.

        If it is not a mapping, everything was heard. If `after` or `at` makes no sense, only `unheard` counts.
        """
        if not isinstance(noted, Mapping):
            return cls()
        after, at = noted.get("after"), noted.get("at")
        if not (isinstance(after, str) and isinstance(at, int | float)):
            after, at = None, 0.0
        return cls(after, float(at), _texts(noted.get("heard")), _texts(noted.get("unheard")))

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which it is noted."""
        return {"after": self.after, "at": self.at, "heard": sorted(self.heard), "unheard": sorted(self.unheard)}

    def choose(self, history: Sequence[ChatItem], running: Collection[str] = ()) -> list[ChatItem]:
        """Return the items of a history that were heard, and the calls whose call ids are in `running`.

        The agent that has the word has to know about running calls. An output that was made up for a call is chosen if
        the call is.
        """
        place = self._place(history)
        chosen: list[ChatItem] = []
        calls: set[str] = set()
        for index, item in enumerate(history):
            is_heard = item.id not in self.unheard if index >= place else item.id in self.heard
            if isinstance(item, FunctionCallOutput) and item.id.endswith(INTERRUPTED_SUFFIX):
                is_heard = item.call_id in calls
            if is_heard or (item.type == "function_call" and item.call_id in running):
                chosen.append(item)
                if item.type == "function_call":
                    calls.add(item.call_id)
        return chosen

    def _place(self, history: Sequence[ChatItem]) -> int:
        """Return the index of the first item after `after`; by time if the history no longer has that item."""
        if self.after is None:
            return 0
        found = next((index for index, item in enumerate(history) if item.id == self.after), None)
        if found is not None:
            return found + 1
        return next((index for index, item in enumerate(history) if item.created_at > self.at), len(history))


@dataclass(frozen=True, slots=True)
class Brought:
    """An item of a context that is not in the history. It follows the item `after`, or comes first if that is None."""

    after: str | None
    item: ChatItem

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which it is noted."""
        return {"after": self.after, "item": to_fields(self.item)}


def brought_into(context: Iterable[ChatItem], history: Collection[str]) -> tuple[Brought, ...]:
    """Return the items of a context that are not in `history`, which holds ids, and are not LiveKit's own."""
    last: str | None = None
    brought = []
    for item in context:
        if is_kept_apart(item) or (item.type == "message" and not any(item.content)):
            continue  # a realtime model's message is empty until its transcript comes
        if item.id in history:
            last = item.id
        else:
            brought.append(Brought(last, item))
    return tuple(brought)


def composed(history: Iterable[ChatItem], brought: Iterable[Brought], now: float) -> list[ChatItem]:
    """Return both as one context, each item once.

    Items that were brought get no time later than `now`, because LiveKit sorts by time.
    """
    items = [item for item in history if not is_kept_apart(item)]
    known = {item.id for item in items}
    behind: dict[str | None, list[ChatItem]] = {}
    for one in brought:
        if one.item.id in known:
            continue
        after = one.after if one.after in known else None
        item = one.item if one.item.created_at <= now else one.item.model_copy(update={"created_at": now})
        behind.setdefault(after, []).append(item)
    context = behind.get(None, [])
    for item in items:
        context += [item, *behind.get(item.id, [])]
    return context


def _counts(item: ChatItem) -> bool:
    return not is_kept_apart(item)


def _texts(value: object) -> frozenset[str]:
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else frozenset()
