"""A tool that works in the background dies with its agent: the caller, who was promised a result, is told."""

import pytest

from agent_worker.session.restoration import INTERRUPTED_OUTPUT
from tests.adopt.shapes import COURIER
from tests.adopt.stage import HEARD, Workers, performance
from tests.support.processes import kill

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.mark.parametrize("workers", [COURIER], indirect=True, ids=lambda shape: shape.name)
async def test_nobody_waits_for_a_tool_that_has_died(workers: Workers) -> None:
    """The next agent speaks of it unasked, the conversation keeps what was told, and one that follows says no more."""
    async with performance(workers, count=1) as call:
        await call.greeted()
        await call.turn(COURIER.before[0])
        for turn in COURIER.after:
            holder, pid = await call.agent()
            kill(pid)
            follower, _ = await call.agent(other_than=holder)
            await call.listens(follower)
            await call.caller.wait(lambda: INTERRUPTED_OUTPUT in call.said, "to be told of the tool", HEARD)
            await call.turn(turn)
        assert call.said.count(INTERRUPTED_OUTPUT) == 1
        outputs = [one.to_dict() for one in (await call.stored()).items if one.type == "function_call_output"]
        assert [one["output"] for one in outputs] == [COURIER.before[0].hears, INTERRUPTED_OUTPUT]
        assert not [one.refusal for one in call.asked if one.refusal]
