"""What an operator has to read of a call in which nothing goes wrong."""

import json

import pytest

from tests.e2e.calls import GREETING, hear, turn
from tests.e2e.scene import Scene
from tests.support.servers import wait_until

pytestmark = pytest.mark.timeout(240)

MAX_LINES = 20
TURNS = range(4)
"""One of them has a tool that refuses, of which LiveKit warns."""


async def test_a_quiet_call_is_told_in_few_lines(scene: Scene) -> None:
    """From the job's arrival to its end, JSON as in production: few lines, each with date and zone."""
    worker = await scene.worker(AGENT_LOG_FORMAT="json", AGENT_LINGER="1")
    before = len(worker.log().splitlines())
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        for number in TURNS:
            await turn(caller, number)
        await scene.settled()

    async def has_ended() -> bool:
        return "the job ends" in worker.log() and "process exiting" in worker.log()

    await wait_until(has_ended, "the job to end", patience=60.0)
    lines = [json.loads(line) for line in worker.log().splitlines()[before:]]
    told = [f"{line['level']} {line['logger']} {line['message']}" for line in lines]
    assert len(told) <= MAX_LINES, told
    assert {line["time"][10] + line["time"][-6] for line in lines} <= {"T+", "T-"}
