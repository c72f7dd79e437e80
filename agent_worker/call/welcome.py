"""Whether somebody who arrives is greeted, and for how long the conversation is kept for them. Pure."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from agent_worker.lines import Welcome
from agent_worker.people import SIP
from conversation_actors import Participant

GREETED = "livekit.greeted"
"""Key in a participant's context: the `reconnect_count` with which it was greeted last."""

_NUMBERED = "Phone "
"""Begins the name of a caller who has none: LiveKit's SIP service puts the number, or the end of it, after it."""


def welcome(
    before: Participant | None, now_here: Participant, *, device: str, grace: timedelta, is_restart: bool = True
) -> Welcome:
    """Decide what an arrival calls for, from what was known `before` and what is known with it.

    `is_restart`: whether this agent follows another one of its role. If not, nobody is resumed, but who was not greeted
    yet is `FIRST`, also if an agent of another role let them in.

    A greeting is owed once for each time somebody comes: whether it was given is in the participant's
    context, which the caller of this changes before anything is said.
    """
    if is_restart and before is not None and device in before.devices:
        return Welcome.RESUME
    greeted = now_here.context.get(GREETED)
    if not isinstance(greeted, int):
        return Welcome.FIRST
    if before is None or before.connected or greeted == now_here.reconnect_count:
        return Welcome.NOTHING
    away = now_here.last_seen - before.last_seen
    return Welcome.BACK if away >= grace.total_seconds() else Welcome.NOTHING


def greeted_context(participant: Participant) -> Mapping[str, Any]:
    """Return the participant's context once the greeting is on its way."""
    return {**participant.context, GREETED: participant.reconnect_count}


def spoken_name(name: str, kind: object) -> str:
    """Return what somebody is called when spoken to: not the number by which LiveKit's SIP service names a caller."""
    return "" if kind == SIP and name.startswith(_NUMBERED) else name


def visits(participant: Participant) -> int:
    """How often somebody has come, this time included."""
    return participant.reconnect_count + 1


def retention(people: Iterable[Participant], steps: tuple[timedelta, ...]) -> timedelta:
    """How long the conversation is kept: the more often somebody came back, the longer."""
    most = max((person.reconnect_count for person in people), default=0)
    return steps[min(most, len(steps) - 1)]
