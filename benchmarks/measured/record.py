"""Measure the time that `record()` and local reads of a conversation take from the event loop."""

import json
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from benchmarks.driver import TEXT, Session, a_message, fill
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Report
from benchmarks.stage import Stage

ITEMS = 200
READS = 2000
BLOCK = 500
READ = ("items", "participants", "attributes")
AFTER = "items after an append"
LRANGE = "Redis LRANGE and json.loads"


async def measure_local(session: Session, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds per call, by what was called. Every round measures all calls."""
    handle = await session.open("local", ITEMS)
    await fill(handle, ITEMS)
    await handle.join("alice", name="Alice")
    await handle.set_attributes({"language": "en"})
    redis: Any = Redis.from_url(session.redis_url)
    await redis.rpush("plain:local", *[json.dumps({"role": "user", "content": TEXT})] * ITEMS)
    reads: dict[str, Callable[[], object]] = {
        "items": lambda: handle.items,
        "participants": lambda: handle.participants,
        "attributes": lambda: handle.attributes,
    }
    times: dict[str, list[float]] = {name: [] for name in ("record", *reads, AFTER, LRANGE)}
    for _ in range(rounds):
        messages = [a_message() for _ in range(BLOCK)]
        began = time.perf_counter()
        for message in messages:
            handle.record(message)
        times["record"].append((time.perf_counter() - began) / BLOCK * 1e6)
        await handle.flush()
        assert len(handle.items) == ITEMS
        await handle.append(a_message())
        began = time.perf_counter()
        assert len(handle.items) == ITEMS
        times[AFTER].append((time.perf_counter() - began) * 1e6)
        for name, read in reads.items():
            times[name].append(_microseconds(read))
        began = time.perf_counter()
        items = [json.loads(line) for line in await redis.lrange("plain:local", 0, -1)]
        times[LRANGE].append((time.perf_counter() - began) * 1e6)
        assert len(items) == ITEMS
    await redis.aclose()
    return times


def _microseconds(read: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(READS):
        read()
    return (time.perf_counter() - began) / READS * 1e6


def measure(stage: Stage) -> Report:
    """Measure one conversation of 200 items."""
    report = Report("record", f"Cost for the caller's event loop, {ITEMS} items of 200 bytes")
    with stage.drivers(Cluster(Variant.WARM)) as drivers:
        stage.tell("measuring")
        times = drivers[Variant.WARM].call("record:measure_local", rounds=stage.pick(100, 15))
    labels = {name: f"read of `{name}`" for name in READ} | {"record": "`record()`"}
    labels[AFTER] = "first read of `items` after an append"
    report.add_all("µs", {labels.get(name, name): values for name, values in times.items()}, to=LRANGE)
    medians = {row.label: row.spread.median for row in report.rows}
    report.values = {
        "record_us": medians["`record()`"],
        "read_us": max(medians[f"read of `{name}`"] for name in READ),
        "read_after_change_us": medians["first read of `items` after an append"],
    }
    report.notes += [
        (
            f"`record()`: the mean of {BLOCK} calls is one measurement; a read: the mean of {READS}, the call of a "
            "lambda included. The message is made beforehand."
        ),
        "the first read of `items` after an append makes the tuple anew; the aim speaks of the others.",
    ]
    return report
