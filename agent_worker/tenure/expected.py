"""How a job finds out that it was called to follow another one: by what whoever called it has told in Redis."""

import asyncio
import time

from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.role import record_role
from agent_worker.timing import TIMING, Timing
from conversation_actors import Heartbeats
from conversation_actors.client.expectations import Expectation


async def find_expectation(
    heartbeats: Heartbeats,
    room: str,
    agent_name: str,
    *,
    dispatch_id: str,
    role: str,
    named: str | None,
    timing: Timing = TIMING,
) -> Expectation | None:
    """What this job was called for, or None: somebody else has dispatched it, or nobody has noted why.

    That is the one with the job's own dispatch. Where no caller has noted that dispatch yet, it is the only one without
    any, unless it is about another conversation than the one that is `named`, or is known to be of the past. A job with
    a dispatch stands by, or goes away, only where that very dispatch was noted for it: the caller would get nobody.
    Raises as `Heartbeats.expected` does.
    """
    deadline = time.monotonic() + timing.expected_patience
    while True:
        found = [one for one in await heartbeats.expected(room, agent_name) if Assignment.of(one.told).role == role]
        own = [one for one in found if dispatch_id and one.call == dispatch_id]
        if own:
            return own[-1]
        open_ = [one for one in found if not one.call and _is_about(one, named)]
        open_ = [one for one in open_ if not await _is_past(heartbeats, one)]
        is_late = time.monotonic() > deadline
        if is_late and dispatch_id:
            open_ = [one for one in open_ if not _keeps_away(one)]
        if is_late or not open_ or (len(open_) == 1 and not (dispatch_id and _keeps_away(open_[0]))):
            return open_[0] if len(open_) == 1 else None
        await asyncio.sleep(timing.expected_look)


def _is_about(expectation: Expectation, named: str | None) -> bool:
    return named is None or Assignment.of(expectation.told).conversation_id == named


def _keeps_away(expectation: Expectation) -> bool:
    """Whether a job that takes it for its own does not speak to the caller at once, or not at all."""
    told = Assignment.of(expectation.told)
    return told.is_planned or bool(told.avoid)


async def _is_past(heartbeats: Heartbeats, expectation: Expectation) -> bool:
    """Whether the agent that is to be followed has no call any more, or another one has followed it.

    One that is dead and left no record is to be followed all the same; one that left none is not there to give over.
    """
    told = Assignment.of(expectation.told)
    if told.replaces is None or told.conversation_id is None:
        return False
    record = await heartbeats.find(told.conversation_id, role=record_role(told.role))
    return told.is_planned if record is None else record.holder != told.replaces
