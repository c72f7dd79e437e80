"""What a conversation knows besides its items, as fields of a header."""

from collections.abc import Callable, Sequence
from typing import Any

from conversation_actors.codec.fields import Fields, integer, mapping, number, optional_text, text, texts, typed
from conversation_actors.state import Closing, Lease, Participant, Remembered, Summary

_PARTICIPANT_FIELDS = tuple(name for name in Participant.__slots__ if name != "unknown")


def participant_fields(participant: Participant) -> dict[str, Any]:
    """Return a participant as stored, with the fields of a newer version."""
    known = {name: getattr(participant, name) for name in _PARTICIPANT_FIELDS}
    return {**participant.unknown, **known, "devices": list(participant.devices)}


def participant_of(fields: Fields) -> Participant:
    """Read a participant."""
    return Participant(
        identity=text(fields, "identity"),
        name=text(fields, "name"),
        metadata=mapping(fields, "metadata"),
        connected=typed(fields, "connected", bool),
        joined_at=number(fields, "joined_at"),
        last_seen=number(fields, "last_seen"),
        reconnect_count=integer(fields, "reconnect_count"),
        devices=texts(fields, "devices"),
        language=optional_text(fields, "language"),
        context=mapping(fields, "context"),
        unknown={name: value for name, value in fields.items() if name not in _PARTICIPANT_FIELDS},
    )


def lease_fields(lease: Lease) -> dict[str, Any]:
    """Return a lease as stored."""
    return {name: getattr(lease, name) for name in Lease.__slots__}


def lease_of(fields: Fields) -> Lease:
    """Read a lease. Schema 1 knew no lives."""
    return Lease(
        name=text(fields, "name"),
        holder=text(fields, "holder"),
        token=integer(fields, "token"),
        expires_at=number(fields, "expires_at"),
        life=text(fields, "life") if "life" in fields else "",
    )


def summary_of(words: Any, through_seq: Any) -> Summary:
    """Read a summary from its two columns."""
    fields = {"text": words, "through_seq": through_seq}
    return Summary(text(fields, "text"), integer(fields, "through_seq"))


def closing_of(reason: Any, at: Any) -> Closing:
    """Read a closing from its two columns."""
    fields = {"reason": reason, "at": at}
    return Closing(text(fields, "reason"), number(fields, "at"))


def remembered_row(request_id: str, kept: Remembered) -> list[Any]:
    """Return a remembered request as a row, which is shorter than an object: a snapshot has a thousand of these.

    Nulls at the end of the row are left out.
    """
    row: list[Any] = [request_id, kept.seq, kept.epoch, kept.at, kept.kind]
    if isinstance(kept.result, Participant):
        row.append({"participant": participant_fields(kept.result)})
    elif isinstance(kept.result, Lease):
        row.append({"lease": lease_fields(kept.result)})
    elif kept.digest is not None:
        row.append(None)
    return row if kept.digest is None else [*row, kept.digest]


def remembered_of(row: Sequence[Any], named: Callable[[str], str]) -> tuple[str, Remembered]:
    """Read a request's id, and what is remembered of it, from their row; `named` gives the stored name of an event."""
    fields = dict(zip(("id", "seq", "epoch", "at", "kind", "result", "digest"), row, strict=False))
    result = None if fields.get("result") is None else _result_of(mapping(fields, "result"))
    digest = optional_text(fields, "digest") if "digest" in fields else None
    numbers = integer(fields, "seq"), integer(fields, "epoch"), number(fields, "at")
    return text(fields, "id"), Remembered(*numbers, named(text(fields, "kind")), result, digest)


def _result_of(given: Fields) -> Participant | Lease | None:
    if "participant" in given:
        return participant_of(given["participant"])
    return lease_of(given["lease"]) if "lease" in given else None
