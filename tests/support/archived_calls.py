"""Calls as records of a backlog, what a fold makes of them, and what an archive's feed has written of them."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from conversation_actors.archive.database import Database
from conversation_actors.archive.feed import Feed
from conversation_actors.archive.tables import happenings, sessions
from conversation_actors.calls import CallFold, Happening
from conversation_actors.codec import decode_entry
from conversation_actors.items import Message
from conversation_actors.state import (
    AttributesChanged,
    Event,
    ItemsAppended,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
)
from conversation_actors.store.backlog import decode_record
from tests.support.archive_contents import rows
from tests.support.archive_records import BEGAN, Author

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = ("user", "assistant")
IDLE = 600.0
MANY = 500
WORDS = "the turtle is in the bath"


def says(role: Role, name: str, words: str = "") -> Event:
    """Return a message."""
    return ItemsAppended((Message(id=name, role=role, content=words or f"words of {name}").to_stored(),))


def call_events(number: int = 1, *, turns: int = 2) -> list[Event]:
    """Return the events of one whole call."""
    name, job = "alice", f"job-{number}"
    person = Participant(identity=name, connected=True, joined_at=BEGAN, devices=("phone",), reconnect_count=number - 1)
    said = [
        says(role, f"{role}-{number}.{turn}", f"{role} {number}.{turn}: {WORDS}")
        for turn in range(turns)
        for role in ROLES
    ]
    return [
        ParticipantJoined(person, "phone"),
        LeaseAcquired(Lease("agent", job, number, BEGAN + 1e6), renewed=False),
        *said,
        AttributesChanged({"livekit.call": {"ended": "completed", "at": BEGAN}}),
        ParticipantLeft(Participant(identity=name, joined_at=BEGAN, reconnect_count=number - 1), None),
        LeaseReleased("agent", job, number),
    ]


def recorded(author: Author, events: Sequence[Event], *, first: int = 1) -> list[bytes]:
    """Return records of events, at the positions from `first` on."""
    return [author.record(seq, event) for seq, event in enumerate(events, first)]


def folded(
    conversation_id: str,
    records: Sequence[bytes],
    *,
    now: float | None = None,
    life: str = "life-1",
    reports: bool = False,
) -> list[Happening]:
    """Return what entries come to if they are folded in one go."""
    fold = CallFold(conversation_id, life, idle=IDLE, reports=reports)
    told: list[Happening] = []
    for record in records:
        told += fold.take(decode_entry(decode_record(record).data or b""))
    return told if now is None else told + fold.pass_time(now)


async def outbox(database: Database, conversation_id: str | None = None) -> list[tuple[str, str]]:
    """Return ids and types of all happenings in the outbox, in their order."""
    found = await rows(database, happenings, "id", "event_id", "type", "conversation_id")
    return [(event, kind) for _, event, kind, name in found if conversation_id in {None, name}]


async def told_data(database: Database, kind: str) -> list[dict[str, Any]]:
    """Return the data of the happenings of one type, in their order."""
    return [json.loads(data) for _, one, data in await rows(database, happenings, "id", "type", "data") if one == kind]


async def session_records(database: Database) -> list[dict[str, Any]]:
    """Return the records of calls, in the order in which they were written."""
    return [json.loads(data) for _, data in await rows(database, sessions, "id", "data")]


def identified(told: Sequence[Happening]) -> list[tuple[str, str]]:
    """Return ids and types of happenings."""
    return [(one.id, one.type) for one in told]


async def feed_all(feed: Feed) -> int:
    """Feed until there is nothing to do; return the steps."""
    steps = 0
    while names := await feed.look():
        await feed.step(names)
        steps += 1
        assert steps < MANY, names
    return steps
