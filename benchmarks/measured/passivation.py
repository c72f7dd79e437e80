"""Measure how long it takes when one of many stored conversations comes back, while few of them are live."""

import random
import time
from collections import deque
from typing import Any

import psutil
from redis.asyncio import Redis

from benchmarks.driver import Session, a_message, fill
from benchmarks.measured.memory import MIB, proportional
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Plot, Report, distribution_curve
from benchmarks.stage import Driver, Drivers, Stage
from conversation_actors.store.keys import Keys

HISTORY = 50
PORTION = 25
_PIPELINE = 500


async def store(session: Session, prefix: str, count: int) -> None:
    """Store `count` conversations as copies, in Redis, of the keys of one that is made."""
    model = f"{prefix}-model"
    await fill(await session.open(model), HISTORY)
    await session.retire(model)
    redis: Any = Redis.from_url(session.redis_url)
    for begin in range(0, count, _PIPELINE):
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(begin, min(begin + _PIPELINE, count)):
                copied = zip(
                    Keys().conversation(model).as_tuple(),
                    Keys().conversation(f"{prefix}-{number}").as_tuple(),
                    strict=True,
                )
                for source, target in copied:
                    pipeline.copy(source, target)
            await pipeline.execute()
    await redis.aclose()
    session.kept[prefix] = deque()


async def roam(session: Session, prefix: str, *, stored: int, live: int, opens: int, seed: int) -> list[float]:
    """Open random conversations that are not live, append to each, and return the milliseconds of each opening.

    If more than `live` are live, passivate the one opened longest ago.
    """
    alive: deque[str] = session.kept[prefix]
    chance = random.Random(seed)  # noqa: S311  # a choice that can be repeated
    times: list[float] = []
    while len(times) < opens:
        name = f"{prefix}-{chance.randrange(stored)}"
        if name in alive:
            continue
        began = time.perf_counter()
        handle = await session.open(name)
        times.append((time.perf_counter() - began) * 1000)
        await handle.append(a_message())
        alive.append(name)
        if len(alive) > live:
            await session.retire(alive.popleft())
    return times


def measure(stage: Stage) -> Report:
    """Measure with fork server and pool, and beside that with plain Ray, which has fewer live and fewer openings."""
    stored, live, opens = stage.pick(10_000, 300), stage.pick(100, 10), stage.pick(600, 50)
    few_live = stage.pick(5, 3)
    report = Report("passivation", f"Return of one of {stored:,} stored conversations, {live} of them live")
    times: dict[Variant, list[float]] = {Variant.WARM: [], Variant.PLAIN: []}
    with stage.drivers(Cluster(Variant.WARM), Cluster(Variant.PLAIN)) as drivers:
        stage.tell("storing")
        for driver in drivers:
            driver.call("passivation:store", prefix=driver.variant, count=stored)
        _roam(drivers[Variant.WARM], stored=stored, live=live, opens=live, seed=0)
        _roam(drivers[Variant.PLAIN], stored=stored, live=few_live, opens=few_live, seed=0)
        before = _footprint(drivers)
        portions = opens // PORTION
        for number in range(1, portions + 1):
            stage.tell(f"{number * PORTION} of {opens} opened")
            times[Variant.WARM] += _roam(drivers[Variant.WARM], stored=stored, live=live, opens=PORTION, seed=number)
            if number % stage.pick(2, 1) == 0:
                times[Variant.PLAIN] += _roam(
                    drivers[Variant.PLAIN], stored=stored, live=few_live, opens=1, seed=number
                )
        drivers[Variant.WARM].cluster.settle()
        after = _footprint(drivers)
    _tell(report, times, before, after)
    report.notes.append(
        f"the conversations are copies of one of {HISTORY} items, made in Redis; each open is followed by an append "
        f"and a passivation. Plain Ray has {few_live} live, and is asked for one after every "
        f"{PORTION * stage.pick(2, 1)}."
    )
    return report


def _roam(driver: Driver, **given: int) -> list[float]:
    times: list[float] = driver.call("passivation:roam", prefix=driver.variant, **given)
    return times


def _footprint(drivers: Drivers) -> tuple[int, float]:
    """Return the number of the warm node's processes, and the MiB (PSS) of all of them."""
    processes: list[psutil.Process] = drivers[Variant.WARM].cluster.processes()
    return len(processes), sum(proportional(processes)) / MIB


def _tell(
    report: Report, times: dict[Variant, list[float]], before: tuple[int, float], after: tuple[int, float]
) -> None:
    report.add_all("ms", {f"open, {name}": values for name, values in times.items()}, to=f"open, {Variant.PLAIN}")
    report.values = {
        "open_ms": report.rows[0].spread.median,
        "open_p99_ms": report.rows[0].spread.p99,
        "processes_before": before[0],
        "processes_after": after[0],
        "node_mib_before": before[1],
        "node_mib_after": after[1],
    }
    report.notes.append(
        f"p99 {report.values['open_p99_ms']:,.0f} ms. The warm node has {before[0]} processes and {before[1]:,.0f} MiB "
        f"(PSS, Ray's own processes included) before, {after[0]} and {after[1]:,.0f} MiB after."
    )
    curves = [distribution_curve(name, values) for name, values in times.items()]
    report.plots.append(Plot("passivation", report.title, "ms", "share of openings", curves, "x"))
