"""From a caller's arguments to what the signs of life are stored by. Every mistake is found here."""

from collections.abc import Mapping
from datetime import timedelta

from conversation_actors.state.facts import LONGEST_LEASE
from conversation_actors.store import HeartbeatRecord, record_name
from conversation_actors.values import check_id, encode, refuse

DETAILS_BYTES = 8 << 10
"""Bytes of one record's details, in their stored form."""
MAX_CLAIMS = 1000
"""Records that one call claims at most: one script of the server's."""

_LONGEST = timedelta(seconds=LONGEST_LEASE)


def name_of(conversation_id: object, role: object) -> str:
    """Return the name of a conversation's record for a role; none is the empty one."""
    return record_name(check_id(conversation_id, "conversation_id"), "" if role == "" else check_id(role, "role"))


def check_duration(value: object, field: str, *, longest: timedelta = _LONGEST) -> timedelta:
    """Check how long something is to be valid, or to be kept."""
    if not isinstance(value, timedelta):
        refuse(field, f"expected a timedelta, got {type(value).__name__}")
    if not timedelta(0) < value <= longest:
        refuse(field, f"{value} is not between 0 and {longest}")
    return value


def check_count(value: object, field: str) -> int:
    """Check how many records are claimed at once."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CLAIMS:
        refuse(field, f"expected a whole number from 1 to {MAX_CLAIMS}, got {value!r}")
    return value


def check_group(value: object) -> str:
    """Check the name of what dies together; none is the empty one."""
    return "" if value == "" else check_id(value, "group")


def encode_details(value: object) -> bytes:
    """Encode what a holder tells beside its signs of life."""
    if not isinstance(value, Mapping):
        refuse("details", f"expected a mapping, got {type(value).__name__}")
    return encode(dict(value), "details", limit=DETAILS_BYTES)


def check_record(value: object) -> HeartbeatRecord:
    """Check that this is a record that was claimed."""
    if not isinstance(value, HeartbeatRecord):
        refuse("record", f"expected the HeartbeatRecord that was claimed, got {type(value).__name__}")
    return value
