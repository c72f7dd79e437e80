"""Measure how long it takes to open a stored conversation that has no process, the first reply included."""

import time
from collections import defaultdict

from benchmarks.driver import Session, fill
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Plot, Report, curve
from benchmarks.stage import Stage

SIZES = (0, 50, 1000)
USUAL = 50
"""The history at which the aims are judged, which is that of a call of some minutes."""
PLAIN_EVERY = 3
"""Plain Ray is measured only every third round, because it takes a second or two each time."""


async def prepare(session: Session, prefix: str) -> None:
    """Store a conversation of each size."""
    for size in SIZES:
        await fill(await session.open(f"{prefix}-{size}", SIZES[-1]), size)
        await session.retire(f"{prefix}-{size}")


async def reopen(session: Session, conversation_id: str) -> float:
    """Return the milliseconds of `client.open`, which lasts until the owner has answered with its whole state."""
    began = time.perf_counter()
    handle = await session.open(conversation_id, SIZES[-1])
    elapsed = time.perf_counter() - began
    # the id ends with the number of stored items, all of which come back
    assert len(handle.items) == int(conversation_id.rpartition("-")[2])
    await session.retire(conversation_id)
    return elapsed * 1000


def measure(stage: Stage) -> Report:
    """Measure warm, forked and plain in turn, at each size."""
    report = Report("activation", "Activation of a stored conversation, first reply included")
    times: dict[tuple[Variant, int], list[float]] = defaultdict(list)
    with stage.drivers(*map(Cluster, Variant)) as drivers:
        for driver in drivers:
            # this also uses up the few workers that Ray itself keeps ready
            driver.call("activation:prepare", prefix=driver.variant)
        rounds = stage.pick(36, 4)
        for number in range(rounds):
            stage.tell(f"round {number + 1} of {rounds}")
            for size in SIZES:
                for driver in drivers:
                    if driver.variant is Variant.PLAIN and number % PLAIN_EVERY:
                        continue
                    driver.cluster.settle()
                    took = driver.call("activation:reopen", conversation_id=f"{driver.variant}-{size}")
                    times[driver.variant, size].append(took)
    _tell(report, times)
    return report


def _tell(report: Report, times: dict[tuple[Variant, int], list[float]]) -> None:
    for size in SIZES:
        rows = {f"{variant}, history {size}": times[variant, size] for variant in Variant}
        report.add_all("ms", rows, to=f"{Variant.PLAIN}, history {size}")
    medians = {row.label: row.spread.median for row in report.rows}
    warm, forked, plain = (medians[f"{variant}, history {USUAL}"] for variant in Variant)
    report.values = {"warm_ms": warm, "warm_speedup": plain / warm, "forked_speedup": plain / forked}
    curves = [curve(variant, {float(size): times[variant, size] for size in SIZES}) for variant in Variant]
    report.plots.append(Plot("activation", report.title, "items in the history", "ms", curves, "y"))
    report.notes.append(
        f"warm: fork server and pool; forked: fork server, no pool; plain: the same actor on `ray start`. The aims are "
        f"judged at {USUAL} items."
    )
