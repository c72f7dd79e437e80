"""How a job finds out that it was called to follow another one: by what whoever called it has told in Redis."""

import asyncio
import time

from agent_worker.tenure.assignment import Assignment
from conversation_actors import Heartbeats
from conversation_actors.client.heartbeats import Expectation

_PATIENCE_SECONDS = 2.0
"""How long several callers have to note which call is whose, which each does as soon as LiveKit has answered it."""
_LOOK_SECONDS = 0.05


async def find_expectation(
    heartbeats: Heartbeats, room: str, agent_name: str, *, dispatch_id: str, role: str, named: str | None
) -> Expectation | None:
    """What this job was called for, or None: somebody else has dispatched it, or nobody has noted why.

    That is the one with the job's own dispatch. Where no caller has noted that dispatch yet, it is the only one without
    any, unless it is about another conversation than the one that is `named`. Raises as `Heartbeats.expected` does.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        found = [one for one in await heartbeats.expected(room, agent_name) if Assignment.of(one.told).role == role]
        own = [one for one in found if dispatch_id and one.call == dispatch_id]
        if own:
            return own[-1]
        open_ = [one for one in found if not one.call and _is_about(one, named)]
        if len(open_) <= 1:
            return next(iter(open_), None)
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_SECONDS)


def _is_about(expectation: Expectation, named: str | None) -> bool:
    return named is None or Assignment.of(expectation.told).conversation_id == named
