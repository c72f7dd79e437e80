"""The examples that answer calls run as their headers say: their jobs are killed, and everything promised is so."""

import asyncio

import pytest

from agent_worker.tenure.conversation import CallConversation
from tests.adopt.example_shapes import ANSWERING, ASSISTANT, INTERPRETERS, TEAM
from tests.adopt.judge import judge
from tests.adopt.shapes import Fault, Shape, Turn
from tests.adopt.stage import HEARD, Performance, Stage, Workers, performance, play
from tests.support.contents import everything
from tests.support.servers import wait_until
from tests.support.workers import kill

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
SECRET = b"swordfish"


def _name(value: object) -> str:
    return value.name if isinstance(value, Shape) else str(value)


@pytest.mark.parametrize("workers", ANSWERING, indirect=True, ids=_name)
async def test_an_example_goes_on_after_a_kill(workers: Workers) -> None:
    """The successor is asked what the dead agent would have been asked; nothing is said, done or stored twice."""
    async with performance(workers) as call:
        judge(await play(call, Fault.CRASH))
        if workers.shape is ASSISTANT:
            await _is_forgotten(call)


async def _is_forgotten(call: Performance) -> None:
    """Wait until no key in Redis has what the assistant was told to forget."""
    client = call.stage.redis.client()

    async def is_gone() -> bool:
        return SECRET not in everything(client)

    try:
        await wait_until(is_gone, "Redis to hold nothing of the password")
        assert call.room.encode() in everything(client)
    finally:
        client.close()
