"""Agents that know nothing of this project but one line: each comes back as itself, whatever happens to it."""

import pytest

from tests.adopt.judge import judge
from tests.adopt.shapes import ALWAYS, SHAPES, Fault, Shape
from tests.adopt.stage import Workers, performance, play

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


def _name(shape: Shape) -> str:
    return shape.name


@pytest.mark.parametrize("workers", ALWAYS, indirect=True, ids=_name)
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.MIGRATE])
async def test_comes_back_as_itself(workers: Workers, fault: Fault) -> None:
    """The next agent goes on where the last one was: its first request, what is said, what is done, what is stored."""
    async with performance(workers) as call:
        judge(await play(call, fault))


@pytest.mark.long
@pytest.mark.parametrize("workers", SHAPES, indirect=True, ids=_name)
@pytest.mark.parametrize("fault", Fault)
async def test_every_shape_comes_back_as_itself(workers: Workers, fault: Fault) -> None:
    """The same for every shape, and for everything that may happen to it."""
    async with performance(workers) as call:
        judge(await play(call, fault))
