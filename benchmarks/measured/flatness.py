"""Measure what a longer history costs: for an append, for a recovery, and in bytes in Redis."""

import time
from collections import defaultdict
from typing import Any

from redis.asyncio import Redis

from benchmarks.driver import Session, a_message, fill
from benchmarks.measured import recovery
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Plot, Report, curve
from benchmarks.stage import Stage
from conversation_actors.store.keys import Keys

BOUNDS = (10, 100, 1000, 10_000)


def _name(bound: int) -> str:
    return f"history-{bound}"


async def prepare(session: Session) -> None:
    """Open a conversation for each bound, fill its history up to the bound, and append a few times to warm up."""
    for bound in BOUNDS:
        await fill(await session.open(_name(bound), bound), bound)
    await append(session, 10)


async def append(session: Session, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of appends by bound. In each round there is one append for each bound."""
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for bound in BOUNDS:
            began = time.perf_counter()
            await session.handles[_name(bound)].append(a_message())
            times[str(bound)].append((time.perf_counter() - began) * 1000)
    return times


async def crash(session: Session, bound: int) -> float:
    """Return the milliseconds from SIGKILL of the owner to the next acknowledged append."""
    return (await recovery.crash(session, [_name(bound)]))[0]


async def stored_bytes(session: Session) -> dict[str, int]:
    """Return the bytes that the conversation's keys take according to Redis, by bound."""
    redis: Any = Redis.from_url(session.redis_url)
    found = {}
    for bound in BOUNDS:
        assert len(session.handles[_name(bound)].items) == bound
        keys = Keys().conversation(_name(bound)).as_tuple()
        found[str(bound)] = sum([await redis.memory_usage(key, samples=0) or 0 for key in keys])
    await redis.aclose()
    return found


def measure(stage: Stage) -> Report:
    """Measure all bounds in turn."""
    report = Report("flatness", "What a longer history costs (bound of the history, reached)")
    appends: dict[str, list[float]] = defaultdict(list)
    crashes: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[float]] = defaultdict(list)
    with stage.drivers(Cluster(Variant.WARM)) as drivers:
        driver = drivers[Variant.WARM]
        stage.tell("filling")
        driver.call("flatness:prepare")
        rounds = stage.pick(15, 3)
        for number in range(rounds):
            stage.tell(f"round {number + 1} of {rounds}")
            driver.cluster.settle()
            for bound, times in driver.call("flatness:append", rounds=stage.pick(60, 50)).items():
                appends[bound] += times
            for bound, size in driver.call("flatness:stored_bytes").items():
                sizes[bound].append(size / 1024)
            for bound in map(str, BOUNDS):
                driver.cluster.settle()
                crashes[bound].append(driver.call("flatness:crash", bound=int(bound)))
    smallest = str(BOUNDS[0])
    for what, unit, measured in (("append", "ms", appends), ("recovery", "ms", crashes), ("Redis", "KiB", sizes)):
        rows = {f"{what}, history {bound}": values for bound, values in measured.items()}
        report.add_all(unit, rows, to=f"{what}, history {smallest}")
    found = {row.label: row.spread for row in report.rows}
    first, last = f"history {smallest}", f"history {BOUNDS[-1]}"
    report.values = {
        "append_to_smallest": found[f"append, {last}"].median / found[f"append, {first}"].median,
        "append_mean_to_smallest": found[f"append, {last}"].mean / found[f"append, {first}"].mean,
        "recovery_to_smallest": found[f"recovery, {last}"].median / found[f"recovery, {first}"].median,
        "bytes_per_item": found[f"Redis, {last}"].median * 1024 / BOUNDS[-1],
    }
    for what, measured in (("append", appends), ("recovery", crashes)):
        line = curve(what, {float(bound): values for bound, values in measured.items()})
        report.plots.append(Plot(f"flatness-{what}", report.title, "items", f"ms, {what}", [line], "xy"))
    report.notes += [
        (
            "the aim compares medians; the means, in which compaction weighs more, differ by "
            f"× {report.values['append_mean_to_smallest']:.2f}."
        ),
        "Redis: MEMORY USAGE of meta, snapshot and journal; items of 200 bytes of text.",
    ]
    return report
