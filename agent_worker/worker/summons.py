"""Calling an agent to a room: first it is noted in Redis what for, then LiveKit is asked."""

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta

from agent_worker.tenure.assignment import Assignment
from agent_worker.worker.rooms import Original, Rooms, UnansweredError
from conversation_actors import Heartbeats
from conversation_actors.client.expectations import Expectation
from conversation_actors.errors import ConversationError

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

    Raises as `Rooms.dispatch` and `Heartbeats.expect` do. Where LiveKit has not been asked, or has refused, nobody is
    expected any more, and where this is cancelled neither: who comes all the same finds out by the record.
    """
    room, agent_name = vacancy.room, vacancy.agent_name
    expectation = await heartbeats.expect(room, agent_name, assignment.told(), keep=_KEPT_WITHOUT_CALL)
    try:
        dispatch_id = await rooms.dispatch(room, agent_name, vacancy.original)
        called = replace(expectation, call=dispatch_id)
        # where Redis is away just now who follows a dead agent takes the only one without a call, if there is one only;
        # who is to stand by for a living one finds the call taken, and leaves
        await _noting(heartbeats.amend(called, keep=_KEPT))
    except UnansweredError:
        raise  # somebody may come
    except BaseException:
        await _noting(heartbeats.met(expectation))
        raise
    return called


async def _noting(work: Awaitable[bool]) -> None:
    """Do what only makes it surer; raises nothing of Redis that could have LiveKit asked again, or hide why not."""
    try:
        await work
    except ConversationError as error:
        logger.warning("Redis cannot be told who is expected", extra={"reason": str(error)})
