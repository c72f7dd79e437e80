"""Bytes of entries and snapshots: line-delimited JSON, a header line and then one line for each item.

Item lines are the author's own bytes and pass through untouched, whatever fields they have. Every header carries the
schema number ``v``. This version writes 2 and reads 1 and 2. A higher number raises `IncompatibleVersionError`; bytes
that cannot be read raise `CorruptStateError` with the byte position. Fields that a newer writer added under the same
number are kept in what is written again (snapshots, participants). They are passed over in entries, which are never
rewritten. Large snapshots are stored compressed (`compression`).

To change what is written, add a number, keep the reader of the old one, and add a golden file for it.
"""

import math
from typing import Any

from conversation_actors.codec.compression import compressed, decompressed, is_compressed
from conversation_actors.codec.events import EVENTS, event_fields, named_by
from conversation_actors.codec.facts import (
    closing_of,
    lease_fields,
    lease_of,
    participant_fields,
    participant_of,
    remembered_of,
    remembered_row,
    summary_of,
)
from conversation_actors.codec.fields import (
    array,
    integer,
    mapping,
    number,
    optional_number,
    optional_text,
    shaped,
    text,
    texts,
)
from conversation_actors.codec.lines import SCHEMA, join_lines, split_lines
from conversation_actors.codec.totals import TOTALS, read_totals, totals_fields
from conversation_actors.errors import CorruptStateError, IncompatibleVersionError
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    EVENT_NAMES,
    ConversationState,
    Entry,
    ItemsAppended,
    ItemsEvicted,
    Limits,
    Window,
)
from conversation_actors.values import encode_text

__all__ = ["SCHEMA", "decode_entry", "decode_snapshot", "encode_entry", "encode_snapshot", "stored_snapshot"]

_ITEMS_MOVED = frozenset({ItemsAppended, ItemsEvicted})
_APPENDED, _EVICTED = EVENT_NAMES[ItemsAppended], EVENT_NAMES[ItemsEvicted]
_SNAPSHOT_FIELDS = frozenset(
    {
        "v",
        "items",
        "seq",
        "changed_at",
        "orphans",
        "participants",
        "attributes",
        "attributes_seq",
        "leases",
        "summary",
        "retention",
        "closing",
        "requests",
        *TOTALS,
    }
)


def encode_entry(entry: Entry) -> bytes:
    """Return the stored form of one journal entry."""
    if type(entry.event) in _ITEMS_MOVED and math.isfinite(entry.at):
        return _encode_items_moved(entry, entry.event)
    name = EVENT_NAMES[type(entry.event)]
    header: dict[str, Any] = {"v": SCHEMA, "seq": entry.seq, "epoch": entry.epoch, "at": entry.at, "event": name}
    if entry.request_id is not None:
        header["request"] = entry.request_id
    if entry.digest is not None:
        header["digest"] = entry.digest
    if isinstance(entry.event, (ItemsAppended, ItemsEvicted)):
        return join_lines(header, entry.event.items)
    return join_lines({**header, **event_fields(entry.event)}, ())


def _encode_items_moved(entry: Entry, event: Any) -> bytes:
    """Return the bytes that the general way would return, more quickly: nearly all entries are of these two kinds."""
    request = "" if entry.request_id is None else f',"request":{encode_text(entry.request_id)}'
    if entry.digest is not None:
        request += f',"digest":{encode_text(entry.digest)}'
    items = f',"items":{len(event.items)}' if event.items else ""
    place = f'"seq":{entry.seq},"epoch":{entry.epoch},"at":{entry.at!r}'
    header = f'{{"v":{SCHEMA},{place},"event":"{EVENT_NAMES[type(event)]}"{request}{items}}}'
    return b"\n".join([header.encode(), *[item.data for item in event.items]])


def decode_entry(data: bytes) -> Entry:
    """Read what `encode_entry` of this or an older version wrote."""
    header, items = split_lines(data)
    get = header.get
    seq, epoch, at, request_id, moved = get("seq"), get("epoch"), get("at"), get("request"), get("event")
    digest = get("digest")
    if (
        type(seq) is int
        and type(epoch) is int
        and type(at) is float
        and (request_id is None or type(request_id) is str)
        and (digest is None or type(digest) is str)
    ):
        # Nearly all entries are one of these, and the longer way would not object to them.
        if moved == _APPENDED:
            return Entry(seq, epoch, at, ItemsAppended(items), request_id, digest)
        if moved == _EVICTED:
            return Entry(seq, epoch, at, ItemsEvicted(items), request_id, digest)

    def build() -> Entry:
        name = text(header, "event")
        if name not in EVENTS:
            message = f"an event {name!r}, which this version does not know"
            raise IncompatibleVersionError(message)
        event = EVENTS[name](header, items)
        request_id, digest = (optional_text(header, name) if name in header else None for name in ("request", "digest"))
        place = integer(header, "seq"), integer(header, "epoch"), number(header, "at")
        return Entry(*place, event, request_id, digest)

    return shaped(build)


def stored_snapshot(state: ConversationState) -> bytes:
    """Return the form in which a whole conversation is stored: as `encode_snapshot` has it, compressed if large."""
    return compressed(encode_snapshot(state))


def encode_snapshot(state: ConversationState, *, requests: bool = True) -> bytes:
    """Return a whole conversation, uncompressed. Readers, who decide nothing, need no request memory."""
    header: dict[str, Any] = {
        **state.unknown,
        "v": SCHEMA,
        "seq": state.seq,
        "changed_at": state.changed_at,
        "orphans": list(state.window.orphans),
        "participants": [participant_fields(participant) for participant in state.participants.values()],
        "attributes": state.attributes,
        "attributes_seq": state.attributes_seq,
        "leases": [lease_fields(lease) for lease in state.leases.values()],
        "summary": [state.summary.text, state.summary.through_seq] if state.summary else None,
        "closing": [state.closing.reason, state.closing.at] if state.closing else None,
        "retention": state.retention,
        **totals_fields(state),
        "requests": [remembered_row(name, kept) for name, kept in state.requests.items()] if requests else [],
    }
    return join_lines(header, tuple(state.window))


def decode_snapshot(data: bytes, limits: Limits | None = None) -> ConversationState:
    """Read what `stored_snapshot` or `encode_snapshot` of any version so far wrote; `limits` apply from now on."""
    header, items = _decompressed_lines(data) if is_compressed(data) else split_lines(data)

    def build() -> ConversationState:
        state = ConversationState(limits, seq=integer(header, "seq"))
        state.changed_at = number(header, "changed_at")
        state.window = Window(items, texts(header, "orphans"))
        participants = [participant_of(fields) for fields in array(header, "participants")]
        state.participants = {participant.identity: participant for participant in participants}
        state.attributes = mapping(header, "attributes")
        state.attributes_seq = integer(header, "attributes_seq")
        state.leases = {lease.name: lease for lease in (lease_of(fields) for fields in array(header, "leases"))}
        state.summary = None if header["summary"] is None else summary_of(*array(header, "summary"))
        state.closing = None if header["closing"] is None else closing_of(*array(header, "closing"))
        state.retention = optional_number(header, "retention")
        named = named_by(header)
        for row in array(header, "requests"):
            state.remember(*remembered_of(row, named))
        read_totals(header, state)
        state.unknown = {name: value for name, value in header.items() if name not in _SNAPSHOT_FIELDS}
        return state

    return shaped(build)


def _decompressed_lines(data: bytes) -> tuple[dict[str, Any], tuple[StoredItem, ...]]:
    content = decompressed(data)
    try:
        return split_lines(content)
    except CorruptStateError as error:
        message = f"decompressed, {error}"
        raise CorruptStateError(message, key=error.key, position=error.position) from error
