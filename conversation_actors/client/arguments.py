"""From a caller's arguments to commands. Every mistake is found here, before anything is sent."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from conversation_actors.client.digest import digest_of
from conversation_actors.errors import ItemTooLargeError
from conversation_actors.items import Item, StoredItem, bytes_of
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    CloseConversation,
    Guard,
    JoinParticipant,
    Lease,
    LeaveParticipant,
    Limits,
    ReleaseLease,
    RemoveItems,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.state.facts import LONGEST_LEASE, LONGEST_RETENTION, MAX_ITEMS, SHORTEST_RETENTION
from conversation_actors.values import check_id, check_text, decode, encode, refuse

UNNAMED_DEVICE = "default"
"""The device of a join that names none."""


def append_items(items: Sequence[Item], limits: Limits) -> AppendItems:
    """Check and encode items. Raises `InvalidInputError` or `ItemTooLargeError`."""
    if not 1 <= len(items) <= MAX_ITEMS:
        refuse("items", f"{len(items)} of them; the limit is 1 to {MAX_ITEMS}")
    stored: list[StoredItem] = []
    for item in items:
        if not isinstance(item, Item):
            refuse("items", f"expected a Message or another Item, got {type(item).__name__}")
        stored.append(item.to_stored(limit=limits.item_bytes))
    size = bytes_of(stored)
    if size > limits.bytes:
        message = f"items: {size} bytes together; the limit is {limits.bytes}"
        raise ItemTooLargeError(message, field="items", size=size, limit=limits.bytes)
    return AppendItems(tuple(stored))


def digest_of_items(items: Sequence[Item]) -> str:
    """Return the digest of items as they were given, whatever is sent in their place."""
    return digest_of(AppendItems(tuple(item.to_stored() for item in items)))


def remove_items(identities: Sequence[str]) -> RemoveItems:
    """Check ids of items that are to be taken out; each once."""
    if len(identities) > MAX_ITEMS:
        refuse("item_ids", f"{len(identities)} of them; the limit is {MAX_ITEMS}")
    return RemoveItems(tuple(dict.fromkeys(check_id(identity, "item_ids") for identity in identities)))


def join(
    identity: str,
    device_id: str | None,
    limits: Limits,
    *,
    name: str | None,
    metadata: Mapping[str, Any] | None,
    language: str | None,
) -> JoinParticipant:
    """Check what is said of a participant who comes."""
    return JoinParticipant(
        identity=check_id(identity, "identity"),
        device_id=UNNAMED_DEVICE if device_id is None else check_id(device_id, "device_id"),
        name=_optional_text(name, "name", limits),
        metadata=_optional_mapping(metadata, "metadata", limits),
        language=_optional_text(language, "language", limits),
    )


def leave(identity: str, device_id: str | None) -> LeaveParticipant:
    """Check who leaves."""
    return LeaveParticipant(
        check_id(identity, "identity"), None if device_id is None else check_id(device_id, "device_id")
    )


def update_participant(
    identity: str,
    limits: Limits,
    *,
    name: str | None,
    metadata: Mapping[str, Any] | None,
    language: str | None,
    context: Mapping[str, Any] | None,
) -> UpdateParticipant:
    """Check what is said of a participant who is known."""
    return UpdateParticipant(
        identity=check_id(identity, "identity"),
        name=_optional_text(name, "name", limits),
        metadata=_optional_mapping(metadata, "metadata", limits),
        language=_optional_text(language, "language", limits),
        context=_optional_mapping(context, "context", limits),
    )


def set_attributes(changes: Mapping[str, Any], expected_seq: int | None, limits: Limits) -> SetAttributes:
    """Check shared attributes; a value of None removes its key."""
    if not isinstance(changes, Mapping):
        refuse("attributes", f"expected a mapping, got {type(changes).__name__}")
    for name in changes:
        check_id(name, "attributes")
    stored = decode(encode(dict(changes), "attributes", limit=limits.attributes_bytes))
    if expected_seq is not None:
        expected_seq = check_position(expected_seq, "expected_seq")
    return SetAttributes(stored, expected_seq)


def acquire_lease(name: str, holder: str, duration: timedelta, replacing: str | None = None) -> AcquireLease:
    """Check a wish for a lease."""
    if not isinstance(duration, timedelta):
        refuse("duration", f"expected a timedelta, got {type(duration).__name__}")
    if not 0 < duration.total_seconds() <= LONGEST_LEASE:
        refuse("duration", f"{duration} is not between 0 and {timedelta(seconds=LONGEST_LEASE)}")
    return AcquireLease(
        check_id(name, "name"),
        check_id(holder, "holder"),
        duration.total_seconds(),
        None if replacing is None else check_id(replacing, "replacing"),
    )


def release_lease(lease: Lease) -> ReleaseLease:
    """Check what is given back."""
    _check_lease(lease)
    return ReleaseLease(lease.name, lease.holder, lease.token, lease.life)


def guard(lease: Lease | None) -> Guard | None:
    """Check in the name of which lease a command comes; what tells it from every other one is sent along."""
    if lease is None:
        return None
    _check_lease(lease)
    return Guard(lease.name, lease.token, lease.holder, lease.life)


def set_summary(text: str, through_seq: int, limits: Limits) -> SetSummary:
    """Check a summary."""
    position = check_position(through_seq, "through_seq")
    return SetSummary(check_text(text, "text", limit=limits.item_bytes), position)


def set_retention(duration: timedelta | None) -> SetRetention:
    """Check how long a conversation is to be kept."""
    if duration is None:
        return SetRetention(None)
    if not isinstance(duration, timedelta):
        refuse("duration", f"expected a timedelta or None, got {type(duration).__name__}")
    shortest, longest = timedelta(seconds=SHORTEST_RETENTION), timedelta(seconds=LONGEST_RETENTION)
    if not shortest <= duration <= longest:
        refuse("duration", f"{duration} is not between {shortest} and {longest}")
    return SetRetention(duration.total_seconds())


def close_conversation(reason: str, limits: Limits) -> CloseConversation:
    """Check why a conversation ends."""
    return CloseConversation(check_text(reason, "reason", limit=limits.participant_bytes))


def check_position(value: object, field: str) -> int:
    """Return `value`, as a plain `int`, if it is a whole number from 0 up; raise `InvalidInputError` otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(field, f"expected a whole number from 0 up, got {value!r}")
    return int(value)


def _check_lease(lease: object) -> None:
    if not isinstance(lease, Lease):
        refuse("lease", f"expected the Lease that was acquired, got {type(lease).__name__}")


def _optional_text(value: str | None, field: str, limits: Limits) -> str | None:
    return None if value is None else check_text(value, field, limit=limits.participant_bytes)


def _optional_mapping(value: Mapping[str, Any] | None, field: str, limits: Limits) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        refuse(field, f"expected a mapping, got {type(value).__name__}")
    # Read back: what is sent later is what was checked, whatever its author does with it, and of plain types,
    # which every process can unpickle.
    stored: dict[str, Any] = decode(encode(dict(value), field, limit=limits.participant_bytes))
    return stored
