"""Strangers who find an owner's port: they learn nothing, are ended, and cost little; clients are served meanwhile."""

import logging

import pytest

from conversation_actors.line.proof import NONCE_BYTES
from conversation_actors.timing import TIMING
from tests.chaos.strangers import CLIENTS, HEAD, STRANGERS, Cost, Siege
from tests.support.line_process import LineProcess

pytestmark = [pytest.mark.chaos]
logger = logging.getLogger(__name__)

ATTEMPTS = 40
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


async def test_strangers_learn_nothing_and_cost_little() -> None:
    """No proof, a wrong one, a replayed one, the nonce sent back, 4 GiB, slow bytes: a client's appends go on."""
    logger.warning("\n%s", HEAD)
    with LineProcess() as owner:
        for cost in await Siege(owner).costs(STRANGERS, ATTEMPTS):
            judge(cost)


async def test_a_client_that_announces_too_much_is_ended_at_once() -> None:
    """A frame of 4 GiB is refused when its length is read: nothing of it is held."""
    with LineProcess() as owner:
        (cost,) = await Siege(owner).costs(CLIENTS, ATTEMPTS)
    assert all(outcome.seconds < TIMING.line_proof for outcome in cost.outcomes)
    assert cost.memory < MOST_MEMORY


async def test_a_crowd_of_strangers_keeps_no_client_out() -> None:
    """Two hundred who say nothing have the owner's places: the line that is up goes on, and who waits is let in."""
