"""Measure openings: many conversations at once, and one after the other for a while."""

import asyncio
import time
from collections import defaultdict
from itertools import count
from typing import Any

from benchmarks.driver import Session
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Plot, Report, distribution_curve
from benchmarks.stage import Driver, Stage

IN_FLIGHT = 4
"""The number of callers of the sustained openings."""
QUIET = 1.5
"""Seconds without work before a burst. The pool is refilled once a burst has been over for a second, and the next burst
should find the pool full."""


async def open_at_once(session: Session, prefix: str, count: int) -> dict[str, Any]:
    """Open so many at once, and return the seconds until all are open and until each is. Retire them afterwards."""
    names = [f"{prefix}-{number}" for number in range(count)]
    began = time.perf_counter()

    async def timed(name: str) -> float:
        await session.open(name)
        return time.perf_counter() - began

    await session.client()
    began = time.perf_counter()
    each = await asyncio.gather(*map(timed, names))
    elapsed = time.perf_counter() - began
    await asyncio.gather(*map(session.retire, names))
    return {"seconds": elapsed, "each": each}


async def turn_over(session: Session, prefix: str, seconds: float) -> float:
    """Return the conversations opened per second. Each caller retires its conversation before it opens the next."""
    numbers = count()
    opened = 0
    began = time.perf_counter()

    async def caller() -> None:
        nonlocal opened
        while time.perf_counter() - began < seconds:
            name = f"{prefix}-{next(numbers)}"
            await session.open(name)
            opened += 1
            await session.retire(name)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return opened / (time.perf_counter() - began)


def measure(stage: Stage) -> Report:
    """Measure bursts and sustained openings. Rates are compared, so that plain Ray can be asked for fewer."""
    report = Report("burst", "Openings per second")
    most, few = stage.pick(100, 20), stage.pick(20, 4)
    rates: dict[tuple[Variant, int], list[float]] = defaultdict(list)
    sustained: dict[Variant, list[float]] = defaultdict(list)
    latest: dict[tuple[Variant, int], list[float]] = defaultdict(list)
    with stage.drivers(*map(Cluster, Variant)) as drivers:
        for number in range(stage.pick(3, 2)):
            for driver in drivers:
                for size in (few,) if driver.variant is Variant.PLAIN else (few, most):
                    stage.tell(f"round {number + 1}: {size} at once, {driver.variant}")
                    found = _open_at_once(driver, number, size)
                    rates[driver.variant, size].append(size / found["seconds"])
                    latest[driver.variant, size] += found["each"]
                stage.tell(f"round {number + 1}: one after the other, {driver.variant}")
                driver.cluster.settle()
                seconds = stage.pick(6, 2)
                rate = driver.call("burst:turn_over", prefix=f"over-{driver.variant}-{number}", seconds=seconds)
                sustained[driver.variant].append(rate)
    at_once = {f"{size} at once, {variant}": values for (variant, size), values in rates.items()}
    report.add_all("openings/s", at_once, to=f"{few} at once, {Variant.PLAIN}")
    turned = {f"sustained, {variant}": values for variant, values in sustained.items()}
    report.add_all("openings/s", turned, to=f"sustained, {Variant.PLAIN}")
    medians = {row.label: row.spread.median for row in report.rows}
    report.values = {
        "speedup": medians[f"{most} at once, {Variant.WARM}"] / medians[f"{few} at once, {Variant.PLAIN}"],
        "speedup_like_for_like": medians[f"{few} at once, {Variant.WARM}"] / medians[f"{few} at once, {Variant.PLAIN}"],
        "sustained_per_second": medians[f"sustained, {Variant.WARM}"],
    }
    report.notes += [
        (
            f"plain Ray opens {few} at once, the others {few} and {most}; rates are compared, and the aim takes the "
            f"rate of {most} over plain Ray's of {few}. A plain burst of {most} was not measured."
        ),
        (
            f"sustained: {IN_FLIGHT} callers, each of which passivates what it opened, waits until its process is "
            "gone, and opens the next: the rate pays for both."
        ),
    ]
    curves = [distribution_curve(f"{size}, {variant}", values) for (variant, size), values in latest.items()]
    report.plots.append(Plot("burst", "A burst: share of conversations that are open", "seconds", "share", curves, "x"))
    return report


def _open_at_once(driver: Driver, number: int, size: int) -> dict[str, Any]:
    driver.cluster.settle(quiet=QUIET)
    found: dict[str, Any] = driver.call(
        "burst:open_at_once", prefix=f"burst-{driver.variant}-{number}-{size}", count=size
    )
    return found
