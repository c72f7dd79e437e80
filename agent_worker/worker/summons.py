"""Calling an agent to a room: first it is noted in Redis what for, then LiveKit is asked."""

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta

from agent_worker.tenure.assignment import Assignment
from agent_worker.worker.rooms import Original, Rooms, RoomServiceError, UnansweredError
from conversation_actors import Heartbeats
from conversation_actors.client.heartbeats import Expectation
from conversation_actors.errors import RetryableError

logger = logging.getLogger(__name__)

_KEPT_WITHOUT_CALL = timedelta(seconds=30)
"""How long somebody is expected of whom nobody knows by which dispatch it comes, if it comes."""
_KEPT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Vacancy:
    """Where an agent is wanted, and by which name; its dispatch tells it what the `original` one told."""

    room: str
    agent_name: str
    original: Original | None = None


async def summon(heartbeats: Heartbeats, rooms: Rooms, vacancy: Vacancy, assignment: Assignment) -> Expectation:
    """Have an agent come that finds out by itself what it is there for; return what is expected.

    Raises as `Rooms.dispatch` and `Heartbeats.expect` do: where LiveKit has not been asked, or has refused, nobody is
    expected any more.
    """
    room, agent_name = vacancy.room, vacancy.agent_name
    expectation = await heartbeats.expect(room, agent_name, assignment.told(), keep=_KEPT_WITHOUT_CALL)
    try:
        dispatch_id = await rooms.dispatch(room, agent_name, vacancy.original)
    except UnansweredError:
        raise  # somebody may come
    except RoomServiceError:
        await _noting(heartbeats.met(expectation))
        raise
    called = replace(expectation, call=dispatch_id)
    # where Redis is away just now it is the only one without a call, if it is the only one that is expected
    await _noting(heartbeats.amend(called, keep=_KEPT))
    return called


async def _noting(work: Awaitable[bool]) -> None:
    """Do what only makes it surer, once LiveKit has been asked; raises nothing that could have it asked again."""
    try:
        await work
    except RetryableError as error:
        logger.warning("Redis cannot be told who is expected", extra={"reason": str(error)})
