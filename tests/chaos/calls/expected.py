"""What a business is to be told of one conversation, as whoever played its calls knows it: no fold, and no archive.

The rules of docs/calls.md, written down a second time and only for what is played here.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from conversation_actors import Item
from conversation_actors.calls import happenings as told

Key = tuple[Any, ...]
"""What tells one happening from others of the same conversation: its type, and the fields that matter."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One happening. `is_optional`: it came so late after the call's end that it may count for nothing."""

    key: Key
    is_optional: bool = False


@dataclass(slots=True)
class Facts:
    """What the record of one call is to say."""

    number: int
    end_reason: str = ""
    messages: int = 0
    turns: int = 0
    crashes: int = 0
    take_overs: int = 0
    errors: int = 0
    tools: Counter[str] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    agents: list[str] = field(default_factory=list)
    outcome: Any = None

    def as_key(self) -> Key:
        """Return it in a form that compares with what is read from a record."""
        tools = tuple(sorted(self.tools.items()))
        return (
            self.number, self.end_reason, self.messages, self.turns, self.crashes, self.take_overs, self.errors, tools,
            tuple(sorted(self.people)), tuple(self.agents), self.outcome,
        )  # fmt: skip


class Ledger:
    """Takes down what happens in one conversation, in order, and what is to be told of it."""

    def __init__(self, conversation_id: str) -> None:
        """No call yet."""
        self.conversation_id = conversation_id
        self.expected: list[Expected] = []
        self.calls: list[Facts] = []
        self.items: list[Item] = []
        self._visits: Counter[str] = Counter()
        self._known: set[str] = set()
        self._unanswered: list[str] = []
        self._is_open = False

    @property
    def call(self) -> Facts:
        """The last call."""
        return self.calls[-1]

    def begin(self, by: str) -> None:
        """Note that a call begins; the one before is final by that."""
        self.finish()
        self._visits.clear()
        self._unanswered.clear()
        self.calls.append(Facts(len(self.calls) + 1))
        self._is_open = True
        self._tell(told.CALL_STARTED, self.call.number, by)

    def agent(self, holder: str, *, crashed: bool = False) -> None:
        """Note that an agent comes; `crashed`: the one before did not give the call over."""
        before = self.call.agents[-1] if self.call.agents else None
        self.call.agents.append(holder)
        if before is None:
            self._tell(told.AGENT_JOINED, holder)
            return
        self.call.take_overs += 1
        self.call.crashes += crashed
        self._tell(told.AGENT_REPLACED, holder, before, crashed)

    def join(self, identity: str) -> None:
        """Note that somebody comes."""
        kind = told.PARTICIPANT_RETURNED if identity in self._known else told.PARTICIPANT_JOINED
        self._known.add(identity)
        self.call.people.add(identity)
        self._visits[identity] += 1
        self._tell(kind, identity, self._visits[identity])

    def leave(self, identity: str, *, is_late: bool = False) -> None:
        """Note that somebody goes; `is_late`: so long after the end that it may count for nothing."""
        self.expected.append(Expected((told.PARTICIPANT_LEFT, identity), is_late))

    def item(self, item: Item) -> None:
        """Note that something was said or done."""
        self.items.append(item)
        fields = item.to_dict()
        if item.type == "function_call":
            self.call.tools[fields["name"]] += 1
        if item.type != "message":
            return
        self.call.messages += 1
        if fields["role"] == "user":
            self._unanswered.append(item.id)
        elif self._unanswered:
            self.call.turns += 1
            self._tell(told.TURN_COMPLETED, self.call.turns, tuple(self._unanswered), item.id)
            self._unanswered.clear()

    def end(self, reason: str, *, crashed: bool = False) -> None:
        """Note that the call ends; `crashed`: its agent has died, and no other one comes."""
        self.call.end_reason = reason
        self.call.crashes += crashed
        self._tell(told.CALL_ENDED, self.call.number, reason)

    def finish(self) -> None:
        """Note that the record of the last call is final, if there is one."""
        if self._is_open:
            self._is_open = False
            self.expected.append(Expected((told.SESSION_RECORDED, *self.call.as_key())))

    def _tell(self, *key: Any) -> None:
        self.expected.append(Expected(key))
