"""What a command leads to. Pure: the same state, command and time give the same events.

A refusal is a `RefusedError` and leaves no trace. An empty result means that the command asks for what is
the case already.
"""

from collections.abc import Sequence
from dataclasses import replace

from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    ItemTooLargeError,
    LeaseHeldError,
    LeaseLostError,
)
from conversation_actors.items import StoredItem, bytes_of
from conversation_actors.state.commands import (
    AcquireLease,
    AppendItems,
    ClearHistory,
    CloseConversation,
    Command,
    Guard,
    JoinParticipant,
    LeaveParticipant,
    ReleaseLease,
    RemoveItems,
    ReopenConversation,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.state.conversation import ConversationState
from conversation_actors.state.events import (
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    LeaseAcquired,
    LeaseReleased,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    RetentionChanged,
    SummaryChanged,
)
from conversation_actors.state.facts import (
    LONGEST_LEASE,
    LONGEST_RETENTION,
    MAX_DEVICES,
    MAX_ITEMS,
    SHORTEST_RETENTION,
    Lease,
    Participant,
)
from conversation_actors.values import encode, refuse

Events = tuple[Event, ...]
_ALLOWED_WHEN_CLOSED = (
    LeaveParticipant,
    ReleaseLease,
    RemoveItems,
    SetRetention,
    CloseConversation,
    ReopenConversation,
)


def decide(state: ConversationState, command: Command, *, now: float, lease: Guard | None = None) -> Events:  # noqa: C901, PLR0911, PLR0912  # one line for each command
    """Return the events that `command` leads to at time `now`, or raise a `RefusedError`.

    A command in the name of a `lease` is refused unless that lease is the present one, with the same holder, token and
    life. An expired lease that nobody else has taken is good: the clock only says when others may take over.
    """
    if lease is not None:
        _check_lease(state, lease)
    if state.closing is not None and not isinstance(command, _ALLOWED_WHEN_CLOSED):
        message = f"the conversation is closed ({state.closing.reason}); reopen_conversation() to write"
        raise ConversationClosedError(message)
    match command:
        case AppendItems():
            return _append(state, command)
        case RemoveItems(identities):
            # also those that are not here: journal and archive may hold items that have left the window
            present = [item.id for item in state.window.together_with(identities)]
            return (ItemsRemoved(tuple(dict.fromkeys([*present, *identities]))),)
        case ClearHistory():
            return (HistoryCleared(),) if state.total_items or len(state.window) or state.summary else ()
        case SetSummary():
            return _summarise(state, command)
        case JoinParticipant():
            return _join(state, command, now)
        case LeaveParticipant():
            return _leave(state, command, now)
        case UpdateParticipant():
            return _update(state, command, now)
        case SetAttributes():
            return _set_attributes(state, command)
        case AcquireLease():
            return _acquire(state, command, now)
        case ReleaseLease():
            return _release(state, command)
        case SetRetention():
            return _retain(state, command)
        case CloseConversation():
            return () if state.closing else (ConversationClosed(command.reason),)
        case ReopenConversation():
            return (ConversationReopened(),) if state.closing else ()


def _check_lease(state: ConversationState, guard: Guard) -> None:
    current = state.leases.get(guard.name)
    if current is not None and (current.token, current.holder, current.life) == guard[1:]:
        return
    whose = f"{current.holder!r} has it with token {current.token}" if current else "nobody has it"
    present = current.life if current else state.life
    earlier = "" if guard.life == present else ", of an earlier life of the conversation,"
    message = f"lease {guard.name!r} of {guard.holder!r} with token {guard.token}{earlier} is lost: {whose}"
    raise LeaseLostError(message, name=guard.name, token=guard.token)


def _append(state: ConversationState, command: AppendItems) -> Events:
    limits, window = state.limits, state.window
    changed = command.items if _is_news(state, command.items) else _changed(state, command.items)
    if not changed:
        return ()
    evicted = window.evictions(changed, limits)
    appended = ItemsAppended(changed)
    return (appended, ItemsEvicted(evicted)) if evicted else (appended,)


def _is_news(state: ConversationState, items: Sequence[StoredItem]) -> bool:
    """Tell whether these are new items to which no check of `_changed` could object, as in nearly all appends."""
    limits, window = state.limits, state.window
    ids: set[str] = set()
    size = 0
    for item in items:
        length = len(item.data)
        if not item.is_readable or length > limits.item_bytes or item.pinned or item.id in window:
            return False
        ids.add(item.id)
        size += length
    return len(ids) == len(items) <= MAX_ITEMS and size <= limits.bytes


def _changed(state: ConversationState, items: Sequence[StoredItem]) -> tuple[StoredItem, ...]:
    """Return those of `items` that the window does not have in this form, or refuse them all."""
    limits, window = state.limits, state.window
    _check_items(state, items)
    # The last of several with one id counts, even if an earlier one is news and the last is not.
    latest = {item.id: item for item in items}
    changed = tuple(item for item in latest.values() if window.get(item.id) != item)
    pinned_count, pinned_size = window.pinned_after(changed)
    # Not below what is there already: after the limits were lowered, appending has to go on.
    if pinned_count > max(limits.pinned_items, window.pinned_count):
        refuse("items", f"{pinned_count} system messages; the limit is {limits.pinned_items}, half of the window")
    if pinned_size > max(limits.pinned_bytes, window.pinned_size):
        refuse(
            "items", f"{pinned_size} bytes of system messages; the limit is {limits.pinned_bytes}, half of the window"
        )
    return changed


def _check_items(state: ConversationState, items: Sequence[StoredItem]) -> None:
    """Refuse too many, too large or unreadable items, and an id that would turn into another kind of item."""
    if len(items) > MAX_ITEMS:
        refuse("items", f"{len(items)} of them; the limit is {MAX_ITEMS}")
    size = bytes_of(items)
    if size > state.limits.bytes:
        message = f"items: {size} bytes together; the limit is {state.limits.bytes}"
        raise ItemTooLargeError(message, field="items", size=size, limit=state.limits.bytes)
    seen: dict[str, StoredItem] = {}
    limit = state.limits.item_bytes
    for item in items:
        if not item.is_readable:
            refuse("items", "one without the id, type, role or call_id that it would be read back by")
        if item.size > limit:
            message = f"item {item.id}: {item.size} bytes; the limit is {limit}"
            raise ItemTooLargeError(message, field="items", size=item.size, limit=limit)
        old = seen.get(item.id) or state.window.get(item.id)
        if old and (old.type, old.role, old.call_id) != (item.type, item.role, item.call_id):
            message = f"item {item.id} exists as another type, role or call; only its content can be replaced"
            raise ConflictError(message)
        seen[item.id] = item


def _summarise(state: ConversationState, command: SetSummary) -> Events:
    if not 0 <= command.through_seq <= state.seq:
        refuse("through_seq", f"{command.through_seq} is not between 0 and {state.seq}, the present seq")
    if state.summary and command.through_seq < state.summary.through_seq:
        message = f"the summary reaches to {state.summary.through_seq} already, further than {command.through_seq}"
        raise ConflictError(message)
    return (SummaryChanged(command.text, command.through_seq),)


def _join(state: ConversationState, command: JoinParticipant, now: float) -> Events:
    old = state.participants.get(command.identity)
    known = old or Participant(identity=command.identity, joined_at=now)
    devices = known.devices if command.device_id in known.devices else (*known.devices, command.device_id)
    if len(devices) > MAX_DEVICES:
        refuse("device_id", f"{len(devices)} devices of one participant; the limit is {MAX_DEVICES}")
    participant = replace(
        known,
        name=known.name if command.name is None else command.name,
        metadata=known.metadata if command.metadata is None else command.metadata,
        language=known.language if command.language is None else command.language,
        connected=True,
        last_seen=now,
        devices=devices,
        reconnect_count=known.reconnect_count + (1 if old and not old.connected else 0),
    )
    _check_participant(state, participant)
    forgotten = () if old else _make_room(state)
    return (ParticipantJoined(participant, command.device_id), *forgotten)


def _make_room(state: ConversationState) -> Events:
    """Forget those who left longest ago if one more participant would be too many; refuse if too few have left."""
    limit = state.limits.participants
    excess = len(state.participants) + 1 - limit
    if excess <= 0:
        return ()
    gone = [participant for participant in state.participants.values() if not participant.connected]
    if len(gone) < excess:
        refuse("identity", f"{len(state.participants) - len(gone)} participants are connected; the limit is {limit}")
    gone.sort(key=lambda participant: participant.last_seen)
    return tuple(ParticipantForgotten(participant.identity) for participant in gone[:excess])


def _leave(state: ConversationState, command: LeaveParticipant, now: float) -> Events:
    known = state.participants.get(command.identity)
    if known is None or not known.connected:
        return ()
    if command.device_id is not None and command.device_id not in known.devices:
        return ()
    devices = () if command.device_id is None else tuple(d for d in known.devices if d != command.device_id)
    participant = replace(known, devices=devices, connected=bool(devices), last_seen=now)
    return (ParticipantLeft(participant, command.device_id),)


def _update(state: ConversationState, command: UpdateParticipant, now: float) -> Events:
    known = state.participants.get(command.identity)
    if known is None:
        message = f"no participant {command.identity!r} has joined this conversation"
        raise ConflictError(message)
    given = {
        "name": command.name,
        "metadata": command.metadata,
        "language": command.language,
        "context": command.context,
    }
    changes = {
        name: value for name, value in given.items() if value is not None and _differ(value, getattr(known, name), name)
    }
    if not changes:
        return ()
    participant = replace(known, last_seen=now, **changes)  # type: ignore[arg-type]  # values of one field each
    _check_participant(state, participant)
    return (ParticipantUpdated(participant),)


def _check_participant(state: ConversationState, participant: Participant) -> None:
    limit = state.limits.participant_bytes
    described = {
        "name": participant.name,
        "metadata": dict(participant.metadata),
        "language": participant.language,
        "context": dict(participant.context),
    }
    encode(described, "participant", limit=limit)


def _differ(one: object, other: object, field: str) -> bool:
    """Tell whether two values differ in their stored form: to Python, 1, 1.0 and True are equal."""
    return encode(one, field) != encode(other, field)


def _set_attributes(state: ConversationState, command: SetAttributes) -> Events:
    expected = command.expected_seq
    if expected is not None and (state.attributes_seq > expected or expected > state.seq):
        message = f"attributes changed at {state.attributes_seq}, after the expected seq {expected}"
        if expected > state.seq:
            message = f"the expected seq {expected} is ahead of the conversation, which is at {state.seq}"
        raise ConflictError(message)
    present = state.attributes
    changes = {n: value for n, value in command.changes.items() if _differ(value, present.get(n), f"attributes.{n}")}
    if not changes:
        return ()
    merged = {name: value for name, value in {**present, **changes}.items() if value is not None}
    encode(merged, "attributes", limit=state.limits.attributes_bytes)
    return (AttributesChanged(changes),)


def _acquire(state: ConversationState, command: AcquireLease, now: float) -> Events:
    if not 0 < command.duration <= LONGEST_LEASE:
        refuse("duration", f"{command.duration} s is not between 0 and {LONGEST_LEASE} s")
    held = state.leases.get(command.name)
    if held and held.expires_at > now and held.holder not in {command.holder, command.replacing}:
        message = f"lease {command.name!r} is held by {held.holder!r} for {held.expires_at - now:.1f} s more"
        raise LeaseHeldError(message, holder=held.holder, expires_at=held.expires_at)
    others = sum(1 for lease in state.leases.values() if lease.name != command.name and lease.expires_at > now)
    if others >= state.limits.leases:
        refuse("name", f"{others} leases are held; the limit is {state.limits.leases}")
    is_renewal = held is not None and held.holder == command.holder
    token, life = (held.token, held.life) if held and is_renewal else (state.seq + 1, state.life)
    lease = Lease(command.name, command.holder, token, now + command.duration, life)
    return (LeaseAcquired(lease, renewed=is_renewal),)


def _release(state: ConversationState, command: ReleaseLease) -> Events:
    held = state.leases.get(command.name)
    if held is None or (held.holder, held.token, held.life) != (command.holder, command.token, command.life):
        return ()
    return (LeaseReleased(command.name, command.holder, command.token),)


def _retain(state: ConversationState, command: SetRetention) -> Events:
    seconds = command.seconds
    if seconds is not None and not SHORTEST_RETENTION <= seconds <= LONGEST_RETENTION:
        refuse("retention", f"{seconds} s is not between {SHORTEST_RETENTION} s and {LONGEST_RETENTION} s")
    return () if seconds == state.retention else (RetentionChanged(seconds),)
