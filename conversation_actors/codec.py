"""Bytes of entries and snapshots: line-delimited JSON, a header line and then one line for each item.

Item lines are the author's own bytes and pass through untouched, whatever fields they have. Every header
carries the schema number ``v``. This version writes 1 and reads 1; a higher number is an
`IncompatibleVersionError`, bytes that cannot be read a `CorruptStateError` with the byte position.
Fields a newer writer added under the same number are kept where state is written again (snapshots,
participants) and passed over in entries, which are never rewritten.

Changing what is written: add a number, keep the reader of the old one, add a golden file for it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AttributesChanged,
    Closing,
    ConversationClosed,
    ConversationReopened,
    ConversationState,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    Limits,
    NothingChanged,
    Participant,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    Remembered,
    Summary,
    SummaryChanged,
    Window,
)
from conversation_actors.values import decode, encode_checked

SCHEMA = 1

Fields = Mapping[str, Any]
Built = TypeVar("Built")
Kind = TypeVar("Kind")


def encode_entry(entry: Entry) -> bytes:
    """The stored form of one journal entry."""
    name = _EVENT_NAMES[type(entry.event)]
    header: dict[str, Any] = {"v": SCHEMA, "seq": entry.seq, "epoch": entry.epoch, "at": entry.at, "event": name}
    if entry.request_id is not None:
        header["request"] = entry.request_id
    if isinstance(entry.event, (ItemsAppended, ItemsEvicted)):
        return _join(header, entry.event.items)
    return _join({**header, **_event_fields(entry.event)}, ())


def decode_entry(data: bytes) -> Entry:
    """Read what `encode_entry` of this or an older version wrote."""
    header, items = _split(data)

    def build() -> Entry:
        name = _text(header, "event")
        if name not in _EVENTS:
            message = f"an event {name!r}, which this version does not know"
            raise IncompatibleVersionError(message)
        event = _EVENTS[name](header, items)
        request_id = _optional_text(header, "request") if "request" in header else None
        return Entry(_int(header, "seq"), _int(header, "epoch"), _number(header, "at"), event, request_id)

    return _shaped(build)


def encode_snapshot(state: ConversationState, *, requests: bool = True) -> bytes:
    """The stored form of a whole conversation; readers, who decide nothing, need no request memory."""
    header: dict[str, Any] = {
        **state.unknown,
        "v": SCHEMA,
        "seq": state.seq,
        "changed_at": state.changed_at,
        "orphans": list(state.window.orphans),
        "participants": [_participant_fields(participant) for participant in state.participants.values()],
        "attributes": state.attributes,
        "attributes_seq": state.attributes_seq,
        "leases": [_lease_fields(lease) for lease in state.leases.values()],
        "summary": [state.summary.text, state.summary.through_seq] if state.summary else None,
        "closing": [state.closing.reason, state.closing.at] if state.closing else None,
        "requests": [_remembered_fields(name, kept) for name, kept in state.requests.items()] if requests else [],
    }
    return _join(header, tuple(state.window))


def decode_snapshot(data: bytes, limits: Limits | None = None) -> ConversationState:
    """Read what `encode_snapshot` of this or an older version wrote; `limits` are those from now on."""
    header, items = _split(data)

    def build() -> ConversationState:
        state = ConversationState(limits, seq=_int(header, "seq"))
        state.changed_at = _number(header, "changed_at")
        state.window = Window(items, _texts(header, "orphans"))
        participants = [_participant(fields) for fields in _list(header, "participants")]
        state.participants = {participant.identity: participant for participant in participants}
        state.attributes = _mapping(header, "attributes")
        state.attributes_seq = _int(header, "attributes_seq")
        state.leases = {lease.name: lease for lease in (_lease(fields) for fields in _list(header, "leases"))}
        state.summary = None if header["summary"] is None else _summary(*_list(header, "summary"))
        state.closing = None if header["closing"] is None else _closing(*_list(header, "closing"))
        for row in _list(header, "requests"):
            state.remember(*_remembered(row))
        state.unknown = {name: value for name, value in header.items() if name not in _SNAPSHOT_FIELDS}
        return state

    return _shaped(build)


_SNAPSHOT_FIELDS = frozenset(
    "v items seq changed_at orphans participants attributes attributes_seq leases summary closing requests".split()
)
_PARTICIPANT_FIELDS = tuple(name for name in Participant.__slots__ if name != "unknown")


def _join(header: dict[str, Any], items: Sequence[StoredItem]) -> bytes:
    if items:
        header["items"] = len(items)
    return b"\n".join([encode_checked(header), *(item.data for item in items)])


def _split(data: bytes) -> tuple[dict[str, Any], tuple[StoredItem, ...]]:
    """The header and the items of an encoded value. Raises `CorruptStateError` with the byte position."""
    first, _, rest = data.partition(b"\n")
    header = _parse(first, 0)
    if not isinstance(header, dict):
        raise _corrupt("the header is not a JSON object", 0)
    version = header.get("v")
    if type(version) is not int or version < 1:
        raise _corrupt("the header has no schema number", 0)
    if version > SCHEMA:
        message = f"written with schema {version}; this version reads up to {SCHEMA}"
        raise IncompatibleVersionError(message)
    lines = rest.split(b"\n") if rest else []
    if len(lines) != header.get("items", 0):
        raise _corrupt(f"{len(lines)} items where the header says {header.get('items', 0)}", len(data))
    return header, _items(lines, len(first) + 1)


def _items(lines: Sequence[bytes], position: int) -> tuple[StoredItem, ...]:
    items = []
    for line in lines:
        try:
            items.append(StoredItem.parse(line))
        except ValueError as error:
            raise _corrupt(f"an item cannot be read: {error}", position + _position(line, error)) from error
        position += len(line) + 1
    return tuple(items)


def _parse(line: bytes, position: int) -> Any:
    try:
        return decode(line)
    except ValueError as error:
        raise _corrupt(f"not JSON: {error}", position + _position(line, error)) from error


def _position(line: bytes, error: ValueError) -> int:
    """The byte at which reading `line` failed, as far as the error tells."""
    if isinstance(error, UnicodeDecodeError):
        return error.start
    if isinstance(error, json.JSONDecodeError):
        return len(line.decode()[: error.pos].encode())
    return 0


def _corrupt(reason: str, position: int) -> CorruptStateError:
    return CorruptStateError(f"byte {position}: {reason}", key="", position=position)


def _shaped(build: Callable[[], Built]) -> Built:
    """Run `build`, and call a missing field or a wrong type by its name."""
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(f"a field is missing or of a wrong type: {error!r}", 0) from error


def _typed(fields: Fields, name: str, kind: type[Kind] | tuple[type[Kind], ...]) -> Kind:
    value = fields[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        message = f"{name} is {type(value).__name__}"
        raise TypeError(message)
    return value


def _text(fields: Fields, name: str) -> str:
    return _typed(fields, name, str)


def _optional_text(fields: Fields, name: str) -> str | None:
    return None if fields[name] is None else _text(fields, name)


def _int(fields: Fields, name: str) -> int:
    return _typed(fields, name, int)


def _number(fields: Fields, name: str) -> float:
    return float(_typed(fields, name, (int, float)))


def _mapping(fields: Fields, name: str) -> dict[str, Any]:
    return _typed(fields, name, dict)


def _list(fields: Fields, name: str) -> list[Any]:
    return _typed(fields, name, list)


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(_text({name: part}, name) for part in _list(fields, name))


def _participant_fields(participant: Participant) -> dict[str, Any]:
    known = {name: getattr(participant, name) for name in _PARTICIPANT_FIELDS}
    return {**participant.unknown, **known, "devices": list(participant.devices)}


def _participant(fields: Fields) -> Participant:
    return Participant(
        identity=_text(fields, "identity"),
        name=_text(fields, "name"),
        metadata=_mapping(fields, "metadata"),
        connected=_typed(fields, "connected", bool),
        joined_at=_number(fields, "joined_at"),
        last_seen=_number(fields, "last_seen"),
        reconnect_count=_int(fields, "reconnect_count"),
        devices=_texts(fields, "devices"),
        language=_optional_text(fields, "language"),
        context=_mapping(fields, "context"),
        unknown={name: value for name, value in fields.items() if name not in _PARTICIPANT_FIELDS},
    )


def _lease_fields(lease: Lease) -> dict[str, Any]:
    return {"name": lease.name, "holder": lease.holder, "token": lease.token, "expires_at": lease.expires_at}


def _lease(fields: Fields) -> Lease:
    return Lease(_text(fields, "name"), _text(fields, "holder"), _int(fields, "token"), _number(fields, "expires_at"))


def _summary(text: Any, through_seq: Any) -> Summary:
    fields = {"text": text, "through_seq": through_seq}
    return Summary(_text(fields, "text"), _int(fields, "through_seq"))


def _closing(reason: Any, at: Any) -> Closing:
    fields = {"reason": reason, "at": at}
    return Closing(_text(fields, "reason"), _number(fields, "at"))


def _remembered_fields(request_id: str, kept: Remembered) -> list[Any]:
    """A row and not an object: there are a thousand of these in a snapshot."""
    row: list[Any] = [request_id, kept.seq, kept.epoch, kept.at, kept.kind]
    if isinstance(kept.result, Participant):
        row.append({"participant": _participant_fields(kept.result)})
    elif isinstance(kept.result, Lease):
        row.append({"lease": _lease_fields(kept.result)})
    return row


def _remembered(row: Sequence[Any]) -> tuple[str, Remembered]:
    fields = dict(zip(("id", "seq", "epoch", "at", "kind"), row, strict=False))
    given = row[5] if len(row) > 5 else {}  # noqa: PLR2004  # the sixth column, where there is one
    result: Participant | Lease | None = None
    if "participant" in given:
        result = _participant(given["participant"])
    elif "lease" in given:
        result = _lease(given["lease"])
    numbers = _int(fields, "seq"), _int(fields, "epoch"), _number(fields, "at")
    return _text(fields, "id"), Remembered(*numbers, _text(fields, "kind"), result)


def _event_fields(event: Event) -> dict[str, Any]:
    match event:
        case SummaryChanged(text, through_seq):
            return {"text": text, "through_seq": through_seq}
        case ParticipantJoined(participant, device_id) | ParticipantLeft(participant, device_id):
            return {"participant": _participant_fields(participant), "device_id": device_id}
        case NothingChanged(participant):
            return {"participant": None if participant is None else _participant_fields(participant)}
        case ParticipantUpdated(participant):
            return {"participant": _participant_fields(participant)}
        case ParticipantForgotten(identity):
            return {"identity": identity}
        case AttributesChanged(changes):
            return {"changes": dict(changes)}
        case LeaseAcquired(lease, renewed):
            return {"lease": _lease_fields(lease), "renewed": renewed}
        case LeaseReleased(name, holder, token):
            return {"name": name, "holder": holder, "token": token}
        case ConversationClosed(reason):
            return {"reason": reason}
        case _:
            return {}


Items = tuple[StoredItem, ...]
_EVENTS: Mapping[str, Callable[[Fields, Items], Event]] = {
    "items_appended": lambda _, items: ItemsAppended(items),
    "items_evicted": lambda _, items: ItemsEvicted(items),
    "history_cleared": lambda _f, _i: HistoryCleared(),
    "summary_changed": lambda f, _: SummaryChanged(_text(f, "text"), _int(f, "through_seq")),
    "participant_joined": lambda f, _: ParticipantJoined(_participant(f["participant"]), _text(f, "device_id")),
    "participant_left": lambda f, _: ParticipantLeft(_participant(f["participant"]), _optional_text(f, "device_id")),
    "participant_updated": lambda f, _: ParticipantUpdated(_participant(f["participant"])),
    "participant_forgotten": lambda f, _: ParticipantForgotten(_text(f, "identity")),
    "attributes_changed": lambda f, _: AttributesChanged(_mapping(f, "changes")),
    "lease_acquired": lambda f, _: LeaseAcquired(_lease(f["lease"]), _typed(f, "renewed", bool)),
    "lease_released": lambda f, _: LeaseReleased(_text(f, "name"), _text(f, "holder"), _int(f, "token")),
    "conversation_closed": lambda f, _: ConversationClosed(_text(f, "reason")),
    "conversation_reopened": lambda _f, _i: ConversationReopened(),
    "nothing_changed": lambda f, _: NothingChanged(_participant(f["participant"]) if f["participant"] else None),
}
_EVENT_NAMES: Mapping[type[Event], str] = {
    ItemsAppended: "items_appended",
    ItemsEvicted: "items_evicted",
    HistoryCleared: "history_cleared",
    SummaryChanged: "summary_changed",
    ParticipantJoined: "participant_joined",
    ParticipantLeft: "participant_left",
    ParticipantUpdated: "participant_updated",
    ParticipantForgotten: "participant_forgotten",
    AttributesChanged: "attributes_changed",
    LeaseAcquired: "lease_acquired",
    LeaseReleased: "lease_released",
    ConversationClosed: "conversation_closed",
    ConversationReopened: "conversation_reopened",
    NothingChanged: "nothing_changed",
}
