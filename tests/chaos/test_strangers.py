"""Strangers who find an owner's port: they learn nothing, are ended, and cost little; clients are served meanwhile."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from conversation_actors.line.connecting import connect
from conversation_actors.line.connection import LineConnection, LineLostError
from conversation_actors.line.listener import MOST_STRANGERS
from conversation_actors.line.proof import NONCE_BYTES
from conversation_actors.protocol import LineAddress
from conversation_actors.timing import TIMING
from tests.chaos.strangers import CLIENTS, HEAD, STRANGERS, Cost, Siege, Stranger, append, say_nothing
from tests.support.fakes import until
from tests.support.line_process import LineProcess

pytestmark = [pytest.mark.chaos]
logger = logging.getLogger(__name__)

ATTEMPTS = 24
LONG_ATTEMPTS = 200
CROWD = 100
MOST_MEMORY = 8 << 20
"""Bytes that the owner may grow by in the attempts of one kind, whatever they sent."""
MOST_CPU = 0.02
"""Seconds of a processor that one attempt may cost the owner, many times what it does."""
ENDED = TIMING.line_proof + 3.0
"""Seconds after which no stranger is there, on a machine that has little time."""


def judge(cost: Cost) -> None:
    """It was told a nonce at most, ended, and cost little."""
    logger.warning("%s", cost.row)
    assert all(len(outcome.told) <= NONCE_BYTES for outcome in cost.outcomes)
    assert len({outcome.told for outcome in cost.outcomes if outcome.told}) == sum(
        bool(outcome.told) for outcome in cost.outcomes
    )  # no nonce twice
    assert all(outcome.seconds < ENDED for outcome in cost.outcomes)
    assert cost.memory < MOST_MEMORY
    assert cost.cpu_seconds / len(cost.outcomes) < MOST_CPU
    assert cost.descriptors <= 0
    assert cost.waits


@pytest.fixture(scope="module")
def owner() -> Iterator[LineProcess]:
    """Return an owner in a process of its own."""
    with LineProcess() as process:
        yield process


async def test_strangers_learn_nothing_and_cost_little(owner: LineProcess) -> None:
    """No proof, a wrong one, a replayed one, the nonce sent back, 4 GiB, slow bytes: a client's appends go on."""
    logger.warning("\n%s", HEAD)
    for cost in await Siege(owner).costs(STRANGERS, ATTEMPTS):
        judge(cost)


async def test_a_client_that_announces_too_much_is_ended_at_once(owner: LineProcess) -> None:
    """A frame of 4 GiB is refused when its length is read: nothing of it is held."""
    (cost,) = await Siege(owner).costs(CLIENTS, ATTEMPTS)
    assert all(outcome.seconds < TIMING.line_proof for outcome in cost.outcomes)
    assert cost.memory < MOST_MEMORY


async def test_a_crowd_of_strangers_keeps_no_client_out(owner: LineProcess) -> None:
    """Strangers who say nothing have all places for strangers: the lines of clients go on, and new ones are let in."""
    line = await connect(owner.line)
    await append(line)
    before = owner.descriptors
    crowd = asyncio.gather(*(Stranger(owner, b"").attempt(say_nothing) for _ in range(CROWD)))
    await until(lambda: owner.descriptors >= before + MOST_STRANGERS)
    assert owner.descriptors <= before + MOST_STRANGERS + 1
    await append(line)
    here = await connect(owner.line)  # by its node's socket, where no stranger stands
    assert here.way == "unix"
    await append(here)
    async with asyncio.timeout(ENDED * 2):
        outside = await connected(replace(owner.line, unix=None))
    await append(outside)
    assert all(outcome.seconds < ENDED * 2 for outcome in await crowd)
    for one in (line, here, outside):
        one.close()
        await one.wait_closed()


async def connected(address: LineAddress) -> LineConnection:
    """Return a line, once there is one."""
    while True:
        with suppress(LineLostError):
            return await connect(address)


@pytest.mark.long
async def test_the_table_of_strangers(owner: LineProcess) -> None:
    """Print what `python -m tests.chaos.strangers` prints."""
    logger.warning("\n%s", HEAD)
    for cost in await Siege(owner).costs({**STRANGERS, **CLIENTS}, LONG_ATTEMPTS, twice=True):
        logger.warning("%s", cost.row)
        assert cost.descriptors <= 0
        assert cost.memory < MOST_MEMORY
