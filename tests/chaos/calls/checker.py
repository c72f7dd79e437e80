"""Judges what a receiver and a back end were told, and the records, of calls: each once, whole and in order."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conversation_actors.backend.routes import ROUTES
from conversation_actors.calls import SessionRecord
from conversation_actors.calls import happenings as told
from tests.chaos.calls.expected import Expected, Key, Ledger

TAKEN = frozenset({"ok", "cut", "late"})
"""What a receiver does with a request that it takes: it answers, or its answer does not arrive, or comes too late."""


@dataclass(frozen=True, slots=True)
class Try:
    """One request as the receiver has met it: what it was about, and what the receiver did (`TAKEN`, or refused)."""

    id: str
    type: str
    data: Mapping[str, Any]
    answer: str


def check(ledger: Ledger, tries: Sequence[Try], records: Sequence[SessionRecord]) -> list[str]:
    """Return what is wrong with what was told of one conversation, and with its records."""
    wrong = [*_deliveries(tries), *_told(ledger.expected, tries), *_records(ledger, tries, records)]
    return [f"{ledger.conversation_id}: {one}" for one in wrong]


def check_backend(ledger: Ledger, tries: Sequence[Try]) -> list[str]:
    """Return what is wrong with what the back end was told of one conversation."""
    told_too = [one for one in ledger.expected if one.key[0] in ROUTES]
    as_others = [one for one in tries if one.type in told.HAPPENINGS]
    wrong = [*_deliveries(tries), *_told(told_too, as_others), *_stored(ledger, tries)]
    return [f"{ledger.conversation_id}, the back end: {one}" for one in wrong]


def _stored(ledger: Ledger, tries: Sequence[Try]) -> Iterator[str]:
    """Compare the items and the transcriptions with those that were acknowledged: all of them, in their order."""
    heard = [item.id for item in ledger.items if item.type == "message" and item.to_dict()["role"] == "user"]
    taken = [one for one in tries if one.answer in TAKEN]
    stored = [one.data["message"]["id"] for one in taken if one.type == told.MESSAGE_STORED]
    transcribed = [one.data["item_id"] for one in taken if one.type == told.TRANSCRIPTION_FINAL]
    wanted = [item.id for item in ledger.items]
    for kind, found, due in ((told.MESSAGE_STORED, stored, wanted), (told.TRANSCRIPTION_FINAL, transcribed, heard)):
        if (once := list(dict.fromkeys(found))) != due:
            yield f"{kind} of {once}, and it was {due}"


def _deliveries(tries: Sequence[Try]) -> Iterator[str]:
    """Look at how each event was sent: always the same, and none before the one before was taken and answered."""
    seen: dict[str, tuple[str, Mapping[str, Any]]] = {}
    answered: set[str] = set()
    for one in tries:
        if seen.setdefault(one.id, (one.type, one.data)) != (one.type, one.data):
            yield f"{one.id} is {one.type} {one.data}, and was {seen[one.id]}"
        waiting = [name for name in seen if name not in answered and name != one.id]
        if one.id not in answered and waiting:
            yield f"{one.type} {one.id} was sent before {seen[waiting[0]][0]} {waiting[0]} was taken"
        if one.answer == "ok":
            answered.add(one.id)


def _told(expected: Sequence[Expected], tries: Sequence[Try]) -> Iterator[str]:
    """Compare what was told, without repeats, with what is to be told."""
    once = {one.id: one for one in reversed(tries) if one.answer in TAKEN}
    order = list(dict.fromkeys(one.id for one in tries if one.answer in TAKEN))
    found = [key_of(once[name].type, once[name].data) for name in order]
    wanted = list(expected)
    for place, key in enumerate(found):
        while wanted and wanted[0].is_optional and wanted[0].key != key:
            wanted.pop(0)
        if not wanted or wanted[0].key != key:
            due = wanted[0].key if wanted else "nothing more"
            again = ", which was told before under another id" if key in found[:place] else ""
            yield f"at {place} came {key}{again}; to come was {due}"
            return
        wanted.pop(0)
    if missing := [one.key for one in wanted if not one.is_optional]:
        yield f"{len(missing)} happenings are missing, the first is {missing[0]}"


def _records(ledger: Ledger, tries: Sequence[Try], records: Sequence[SessionRecord]) -> Iterator[str]:
    """Compare the records with the calls, and with what was told of them."""
    by_number: defaultdict[int, list[SessionRecord]] = defaultdict(list)
    for one in records:
        by_number[one.number].append(one)
    if extra := sorted(set(by_number) - {facts.number for facts in ledger.calls}):
        yield f"there are records of calls {extra}, which nobody made"
    sent = {one.data["call_id"]: one.data for one in tries if one.type == told.SESSION_RECORDED}
    for facts in ledger.calls:
        found = by_number[facts.number]
        if len(found) != 1:
            yield f"of call {facts.number} are {len(found)} records"
            continue
        fields = found[0].to_dict()
        if (is_there := facts_of(fields)) != facts.as_key():
            yield f"the record says {is_there}, and it was {facts.as_key()}"
        if found[0].gaps:
            yield f"the record of call {facts.number} has gaps: {found[0].gaps}"
        data = sent.get(found[0].call_id, {})
        if different := [name for name in fields if name in data and data[name] != fields[name]]:
            yield f"of call {facts.number} was told something else than its record says: {different}"


def key_of(kind: str, data: Mapping[str, Any]) -> Key:
    """Return what tells a happening from others, from what was sent of it."""
    match kind:
        case told.CALL_STARTED:
            fields: Key = (data["number"], data["by"])
        case told.CALL_ENDED:
            fields = (data["number"], data["end_reason"])
        case told.TURN_COMPLETED:
            fields = (data["turn"], tuple(data["user"]["item_ids"]), data["agent"]["item_id"])
        case told.PARTICIPANT_JOINED | told.PARTICIPANT_RETURNED:
            fields = (data["identity"], data["visits"])
        case told.PARTICIPANT_LEFT:
            fields = (data["identity"],)
        case told.AGENT_JOINED:
            fields = (data["holder"],)
        case told.AGENT_REPLACED:
            fields = (data["holder"], data["replaced"], data["crashed"])
        case told.SESSION_RECORDED:
            fields = facts_of(data)
        case _:
            fields = (data,)
    return (kind, *fields)


def facts_of(record: Mapping[str, Any]) -> Key:
    """Return what a record says, in the form of `Facts.as_key`."""
    tools = tuple(sorted((one["name"], one["calls"]) for one in record["tools"]))
    people = tuple(sorted(one["identity"] for one in record["participants"]))
    agents = tuple(one["holder"] for one in record["agents"])
    return (
        record["number"], record["end_reason"], record["messages"], record["turns"], record["crashes"],
        record["take_overs"], record["errors"], tools, people, agents, record["outcome"],
    )  # fmt: skip
