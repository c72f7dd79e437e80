"""The course of a life's calls: what each event, and silence, does to them, and what a business is told of that."""

from collections.abc import Iterable, Mapping
from typing import Any

from conversation_actors.calls import reports
from conversation_actors.calls.call import Call, End, Gaps
from conversation_actors.calls.fold_state import FoldState, Hold, Wish
from conversation_actors.calls.happenings import (
    BETWEEN_CALLS,
    CALL_ENDED,
    CALL_STARTED,
    SESSION_RECORDED,
    Happening,
    call_id_of,
)
from conversation_actors.calls.item_fields import is_said
from conversation_actors.calls.names import (
    AGENT,
    AGENT_LEASE,
    CALL,
    COMPLETED,
    ERROR,
    HANDOVER,
    LEFT,
    NO_AGENT_COMES,
    NOBODY_THERE,
    OUTCOME,
    REFUSED,
    USAGE,
    name_of_role,
)
from conversation_actors.calls.outcome import outcome_of
from conversation_actors.calls.record import CLOSED, CRASHED, GIVEN_UP, HANDED_OVER, LOST, RELEASED
from conversation_actors.calls.talk import is_counted
from conversation_actors.calls.told import Told
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AttributesChanged,
    ConversationClosed,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsRemoved,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    SummaryChanged,
)

GRACE = 10.0
"""Seconds after a call's end in which what comes late still belongs to the call."""
_TEXT_CHARACTERS = 1024
_MOST_ROLES = 32
_ENDS = {NO_AGENT_COMES: GIVEN_UP, NOBODY_THERE: LEFT}
"""How a call ends, by the ``state`` that is noted of its agent."""
_ORDER = (AGENT, HANDOVER, USAGE, ERROR, OUTCOME, CALL)
"""In which the changes of one entry are taken, whatever their order is there.

An agent that gives the call over says in one change that it goes (`AGENT`) and that the wish is done (`HANDOVER`)."""


class Course:
    """The calls of one life, at a state that is changed here and nowhere else, but for its position."""

    def __init__(self, conversation_id: str, life: str, state: FoldState, *, reports: bool = False) -> None:
        self.state = state
        self._conversation_id, self._life, self._reports = conversation_id, life, reports
        self._told: list[Happening] = []

    def told(self) -> list[Happening]:
        """Return what has happened since this was asked last."""
        told, self._told = self._told, []
        return told

    def apply(self, event: Event, at: float) -> None:
        """Let an event happen at the state's position."""
        if self._reports:
            self._tell(at, reports.of_event(event))
        self._apply(event, at)
        self.state.at = at
        if not _is_wish(event):
            self.state.told_at = at

    def end_for_silence(self, at: float) -> None:
        """End the call, or the grace after its end, as nothing has come until now: after silence there is no grace."""
        call = self.state.call
        if call is None:
            return
        if call.end is not None:
            self._record(call, at)
            return
        last = call.agents.last(AGENT_LEASE)
        is_nobody_due = last is None or last.end == RELEASED
        is_left = is_nobody_due and not call.people.is_anybody_here()
        self._end(LEFT if is_left else LOST, self.state.at, until=at)

    def _apply(self, event: Event, at: float) -> None:
        match event:
            case ItemsAppended(items):
                for item in items:
                    self._take_item(item, at)
            case AttributesChanged(changes):
                self._take_attributes(changes, at)
            case LeaseAcquired(lease, renewed):
                self._acquire(lease, at, is_renewed=renewed)
            case LeaseReleased(role, holder):
                self._release(role, holder, at)
            case ParticipantJoined(participant):
                self._join(participant, at)
            case ConversationClosed(reason):
                self._end(CLOSED, at, text=reason)
            case _ if self.state.call is not None:
                self._apply_to(self.state.call, event, at)
            case _:
                pass

    def _apply_to(self, call: Call, event: Event, at: float) -> None:
        """Apply what matters only if there is a call."""
        match event:
            case ParticipantLeft(participant):
                ended_at = None if call.end is None else call.end.at
                self._tell(at, call.people.leave(participant, at, call_ended_at=ended_at))
                self._end_if_left(call, at)
            case ParticipantUpdated(participant):
                call.people.update(participant)
            case SummaryChanged(text):
                call.summary = text
            case ItemsRemoved(identities):
                call.talk.forget(identities)
            case HistoryCleared():
                call.talk.forget(None)
                call.summary = None
            case _:
                pass

    def _take_item(self, item: StoredItem, at: float) -> None:
        call = self.state.call
        may_count = is_counted(item) and (call is not None or is_said(item))
        is_news = may_count and self.state.is_news(item.id)
        if is_news and call is None:
            call = self._begin("message", at)
        if self._reports:
            self._tell(at, reports.of_item(item, is_news=is_news))
        if is_news and call is not None:
            self._tell(at, call.talk.take(item))

    def _join(self, participant: Participant, at: float) -> None:
        call = self.state.call
        if call is None or (call.end is not None and not call.people.is_here(participant)):
            call = self._begin("participant", at)
        self._tell(at, call.people.join(participant, at))

    # Agents.

    def _acquire(self, lease: Lease, at: float, *, is_renewed: bool) -> None:
        if lease.name != AGENT_LEASE:
            return
        call = self.state.call
        if not is_renewed and (call is None or call.end is not None):
            self._begin("agent", at)
        self.state.hold = Hold(lease.holder, lease.expires_at)
        self._take_role(AGENT_LEASE, lease.holder, at)

    def _take_role(self, role: str, holder: str, at: float) -> None:
        """Have the holder be the agent of a role in the call that goes on, if there is one."""
        call = self.state.call
        if call is None or call.end is not None:
            return
        wish = self.state.wishes.get(role)
        is_planned = wish is not None and wish.to == holder
        self._tell(at, call.agents.take(role, holder, at, told_at=self.state.told_at, is_planned=is_planned))
        if wish is not None and (is_planned or wish.is_agreed):
            del self.state.wishes[role]
        if role == AGENT_LEASE:
            call.is_released = False

    def _release(self, role: str, holder: str, at: float) -> None:
        state, call = self.state, self.state.call
        if role == AGENT_LEASE and state.hold is not None and state.hold.holder == holder:
            state.hold = None
        if call is None or role != AGENT_LEASE:
            return
        wish = state.wishes.get(role)
        is_agreed = wish is not None and wish.is_agreed
        call.agents.leave(role, at, HANDED_OVER if is_agreed else RELEASED, holder=holder)
        last = call.agents.last(role)
        call.is_released = last is not None and last.end == RELEASED
        self._end_if_left(call, at)

    # Attributes.

    def _take_attributes(self, changes: Mapping[str, Any], at: float) -> None:
        told = [(*name_of_role(stored), value) for stored, value in changes.items()]
        for wanted in _ORDER:
            for name, role, value in told:
                if name == wanted:
                    self._take_attribute(name, role, value, at)

    def _take_attribute(self, name: str, role: str, value: Any, at: float) -> None:
        fields: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        call = self.state.call
        if name == HANDOVER:
            self._take_wish(role, fields)
        elif name == AGENT:
            self._take_agent(role, fields, at)
        elif call is None:
            pass
        elif name == USAGE:
            holder = fields.get("holder") or (self.state.hold.holder if self.state.hold is not None else "")
            call.usage.take(f"{role}/{holder}", fields)
        elif name == ERROR:
            call.errors += value is not None
        elif name == OUTCOME:
            call.outcome = outcome_of(value)
        elif role == AGENT_LEASE and "ended" in fields:
            self._end_as_told(fields["ended"], fields.get("reason"), at)

    def _take_wish(self, role: str, fields: Mapping[str, Any]) -> None:
        wishes = self.state.wishes
        to = fields.get("to")
        if isinstance(to, str) and REFUSED not in fields:
            if role in wishes or len(wishes) < _MOST_ROLES:
                wishes[role] = Wish(to)
        elif role in wishes and not wishes[role].is_agreed:  # else whoever has agreed takes it back, and goes
            del wishes[role]

    def _take_agent(self, role: str, fields: Mapping[str, Any], at: float) -> None:
        state, call = self.state, self.state.call
        wish = state.wishes.get(role)
        holder = fields.get("holder")
        end = _ENDS.get(str(fields.get("state")))
        if not fields and wish is not None:
            wish.is_agreed = True
        if role == AGENT_LEASE:
            if end is not None and not self._is_another_alive(fields.get("of"), at):
                self._end(end, at, is_crash=True)
        elif isinstance(holder, str):
            if role in state.roles or len(state.roles) < _MOST_ROLES:
                state.roles[role] = holder
                self._take_role(role, holder, at)
        else:
            state.roles.pop(role, None)
            if call is not None:
                call.agents.leave(role, at, CRASHED if end is not None else HANDED_OVER if wish else RELEASED)

    def _is_another_alive(self, dead: object, at: float) -> bool:
        """Tell whether another agent than the `dead` one has the call; older workers do not tell who died."""
        hold = self.state.hold
        return isinstance(dead, str) and hold is not None and hold.holder != dead and hold.expires_at > at

    # Beginnings and ends.

    def _begin(self, by: str, at: float) -> Call:
        state = self.state
        if state.call is not None:
            self._record(state.call, at)
        state.number += 1
        state.call = call = Call(state.number, at, gaps=state.gaps)
        state.gaps = Gaps()
        self._tell(at, [Told(CALL_STARTED, {"number": call.number, "by": by})])
        if by != "agent" and state.hold is not None and state.hold.expires_at > at:
            self._take_role(AGENT_LEASE, state.hold.holder, at)
        for role, holder in state.roles.items():
            self._take_role(role, holder, at)
        return call

    def _end_if_left(self, call: Call, at: float) -> None:
        if call.is_released and not call.people.is_anybody_here():
            self._end(LEFT, at)

    def _end_as_told(self, ended: object, reason: object, at: float) -> None:
        text = next((one for one in (reason, ended) if isinstance(one, str) and one not in {COMPLETED, LEFT}), None)
        self._end(LEFT if ended == LEFT else COMPLETED, at, text=text)

    def _end(
        self, reason: str, at: float, *, text: str | None = None, until: float | None = None, is_crash: bool = False
    ) -> None:
        """End the call that goes on, if there is one."""
        state, call = self.state, self.state.call
        if call is None or call.end is not None:
            return
        told = text[:_TEXT_CHARACTERS] if text else None
        call.end = End(at, reason, told, at + GRACE if until is None else until)
        if is_crash or reason == LOST:
            call.agents.leave(AGENT_LEASE, state.told_at, CRASHED)
        if reason != CLOSED:  # a conversation that is closed by mistake is reopened, and its agent goes on
            state.hold = None
        state.wishes, state.roles = {}, {}
        data = {
            "number": call.number,
            "started_at": call.started_at,
            "duration": call.duration,
            "end_reason": reason,
            "end_text": told,
        }
        self._tell(at, [Told(CALL_ENDED, data)])

    def _record(self, call: Call, at: float) -> None:
        record = call.record(self._conversation_id, call_id_of(self._life, call.number))
        self._tell(at, [Told(SESSION_RECORDED, record.to_dict())])
        self.state.forget_call()

    def _tell(self, at: float, told: Iterable[Told]) -> None:
        state = self.state
        number = BETWEEN_CALLS if state.call is None else state.call.number
        for kind, data in told:
            happening = Happening(kind, at, call_id_of(self._life, number), state.seq, state.place, data)
            self._told.append(happening)
            state.place += 1


def _is_wish(event: Event) -> bool:
    """Tell whether an event is no more than a successor's wish for the call, or that one was taken back."""
    if not isinstance(event, AttributesChanged):
        return False
    return all(name_of_role(stored)[0] == HANDOVER for stored in event.changes)
