"""Entries of calls, as agents, workers and people cause them, and what a fold of them tells."""

from collections.abc import Iterable, Mapping
from typing import Any

from conversation_actors.calls import CallFold, Happening, SessionRecord
from conversation_actors.calls.happenings import SESSION_RECORDED
from conversation_actors.calls.names import AGENT, AGENT_LEASE, CALL, COMPLETED, HANDOVER, attribute_of_role
from conversation_actors.items import StoredItem, item_from_dict
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    ClearHistory,
    CloseConversation,
    Command,
    ConversationState,
    Entry,
    JoinParticipant,
    LeaveParticipant,
    ReleaseLease,
    RemoveItems,
    SetAttributes,
    decide,
)

START = 1_700_000_000.0
CONVERSATION, LIFE, IDLE = "support-42", "life", 600.0
LONG = 1e9
"""Seconds after which every call is over."""


class Conversation:
    """A conversation whose commands come at given seconds after `START`, and the entries that they led to."""

    def __init__(self) -> None:
        """Empty."""
        self.state = ConversationState()
        self.entries: list[Entry] = []

    def ask(self, at: float, command: Command) -> None:
        """Decide, and apply."""
        for event in decide(self.state, command, now=START + at):
            entry = Entry(self.state.seq + 1, 1, START + at, event)
            self.state.apply(entry)
            self.entries.append(entry)

    def come(self, at: float, who: str = "ada", device: str = "phone", *, name: str | None = None) -> None:
        """Somebody joins."""
        self.ask(at, JoinParticipant(identity=who, device_id=device, name=name))

    def go(self, at: float, who: str = "ada", device: str | None = None) -> None:
        """Somebody leaves."""
        self.ask(at, LeaveParticipant(who, device))

    def take(self, at: float, holder: str, *, replacing: str | None = None, role: str = AGENT_LEASE) -> None:
        """An agent takes its lease, or renews it."""
        self.ask(at, AcquireLease(role, holder, 60.0, replacing))
        self.note(at, AGENT, {"holder": holder, "since": START + at}, role=role)

    def renew(self, at: float, holder: str) -> None:
        """An agent renews its lease."""
        self.ask(at, AcquireLease(AGENT_LEASE, holder, 60.0))

    def let_go(self, at: float, role: str = AGENT_LEASE) -> None:
        """The agent gives its lease back, after one change that says so."""
        self.ask(at, SetAttributes({attribute_of_role(name, role): None for name in (AGENT, HANDOVER)}))
        lease = self.state.leases[role]
        self.ask(at, ReleaseLease(role, lease.holder, lease.token))

    def wish(self, at: float, to: str, **fields: Any) -> None:
        """A successor asks for the call."""
        self.note(at, HANDOVER, {"to": to, "from": self.state.leases[AGENT_LEASE].holder, **fields})

    def end(self, at: float, ended: str = COMPLETED, reason: str | None = None) -> None:
        """The agent notes that the call is over."""
        self.note(at, CALL, {"ended": ended, "at": START + at, **({"reason": reason} if reason else {})})

    def note(self, at: float, name: str, value: Any, *, role: str = AGENT_LEASE) -> None:
        """Somebody sets an attribute."""
        self.ask(at, SetAttributes({attribute_of_role(name, role): value}))

    def say(self, at: float, item_id: str, text: str = "Hello", *, role: str = "user", **fields: Any) -> None:
        """Somebody says something."""
        self.append(at, {"type": "message", "id": item_id, "role": role, "content": [text], **fields})

    def append(self, at: float, *items: Mapping[str, Any]) -> None:
        """Items come."""
        self.ask(at, AppendItems(tuple(stored(one) for one in items)))

    def remove(self, at: float, *item_ids: str) -> None:
        """Somebody takes items out of the history."""
        self.ask(at, RemoveItems(item_ids))

    def clear(self, at: float) -> None:
        """Somebody takes everything out of the history."""
        self.ask(at, ClearHistory())

    def close(self, at: float, reason: str = "done") -> None:
        """The conversation is closed."""
        self.ask(at, CloseConversation(reason))

    def told(self, *, until: float = LONG, reports: bool = False) -> list[Happening]:
        """Return what a fold tells of all this."""
        return fold_all(self.entries, until=until, reports=reports)

    def reports(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the data of what a back end is told, of one type."""
        return [one.data for one in self.told(reports=True) if one.type == kind]

    def records(self, *, until: float = LONG) -> list[SessionRecord]:
        """Return the records of the calls that are over then."""
        return records_of(self.told(until=until))

    def record(self) -> SessionRecord:
        """Return the record of the one call."""
        (only,) = self.records()
        return only


def stored(fields: Mapping[str, Any]) -> StoredItem:
    """Return an item as it is stored."""
    return item_from_dict({"created_at": START, **fields}).to_stored()


def a_fold(*, reports: bool = False) -> CallFold:
    """Return a fold that has taken nothing."""
    return CallFold(CONVERSATION, LIFE, idle=IDLE, reports=reports)


def fold_all(entries: Iterable[Entry], *, until: float = LONG, reports: bool = False) -> list[Happening]:
    """Return what a fold tells of entries, and of the time after them."""
    fold = a_fold(reports=reports)
    told = [happening for entry in entries for happening in fold.take(entry)]
    return told + fold.pass_time(START + until)


def records_of(told: Iterable[Happening]) -> list[SessionRecord]:
    """Return the records among happenings."""
    return [SessionRecord.from_dict(one.data) for one in told if one.type == SESSION_RECORDED]


def types_of(told: Iterable[Happening]) -> list[str]:
    """Return what kinds of happenings there were."""
    return [one.type for one in told]
