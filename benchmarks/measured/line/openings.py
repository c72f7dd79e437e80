"""How soon the history of a sleeping conversation is there, by each kind of opening and by what it is compared with."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil
from redis.asyncio import Redis

from benchmarks import actors
from benchmarks.driver import TEXT, Session, a_message, fill
from benchmarks.measured.memory import MIB, proportional
from benchmarks.results import Report
from benchmarks.stage import Driver

ITEMS = 50
ASLEEP = "asleep"
LRANGE = "Redis LRANGE and json.loads"
UNGUARDED = "actor without guarantees: start → history"
SHOWN = "open(wait=False) → history"
OPENED = "open() → history"
WRITTEN = "open(wait=False) → first durable append"
READ = "client.read() → history"
FROM_THE_POOL = ("show", "open_and_wait")
"""The commands that find a full pool."""


async def prepare(session: Session) -> None:
    """Store a conversation, and its like for each thing that it is compared with."""
    await fill(await session.open(ASLEEP), ITEMS)
    await session.retire(ASLEEP)
    redis: Any = Redis.from_url(session.redis_url)
    for key in (LRANGE, UNGUARDED):
        await redis.delete(key)
        await redis.rpush(key, *[json.dumps({"role": "user", "content": TEXT})] * ITEMS)
    session.kept[LRANGE] = redis
    await redis.lrange(LRANGE, 0, -1)


async def read_without_owner(session: Session) -> dict[str, float]:
    """Return the milliseconds of what needs no process of a conversation's own."""
    began = time.perf_counter()
    items = [json.loads(line) for line in await session.kept[LRANGE].lrange(LRANGE, 0, -1)]
    listed = time.perf_counter()
    snapshot = await (await session.client()).read(ASLEEP)
    read = time.perf_counter()
    assert len(items) == len(snapshot.items) == ITEMS
    return {LRANGE: (listed - began) * 1000, READ: (read - listed) * 1000}


async def show(session: Session) -> dict[str, float]:
    """Return the milliseconds until the history is shown, and until an append is durable, without waiting before."""
    began = time.perf_counter()
    handle = await session.open(ASLEEP, wait=False)
    shown, has_all = time.perf_counter(), len(handle.items) == ITEMS
    await handle.append(message := a_message())
    written = time.perf_counter()
    assert has_all
    await handle.remove(message.id)
    await session.retire(ASLEEP)
    return {SHOWN: (shown - began) * 1000, WRITTEN: (written - began) * 1000}


async def open_and_wait(session: Session) -> dict[str, float]:
    """Return the milliseconds until the owner has answered."""
    began = time.perf_counter()
    handle = await session.open(ASLEEP)
    elapsed = time.perf_counter() - began
    assert len(handle.items) == ITEMS
    await session.retire(ASLEEP)
    return {OPENED: elapsed * 1000}


async def start_unguaranteed(session: Session) -> dict[str, float]:
    """Return the milliseconds until an actor without guarantees has shown its history."""
    began = time.perf_counter()
    actor = actors.unguaranteed(session.redis_url, UNGUARDED)
    items = await actor.open.remote()
    elapsed = time.perf_counter() - began
    assert len(items) == ITEMS
    actors.end(actor)
    return {UNGUARDED: elapsed * 1000}


async def processes(session: Session, count: int) -> dict[str, list[int]]:
    """Return the process ids of so many owners, and of so many actors without guarantees. All stay."""
    owners = []
    unguaranteed = [actors.unguaranteed(session.redis_url, f"stays-{number}") for number in range(count)]
    for number in range(count):
        handle = await session.open(f"stays-{number}")
        await fill(handle, ITEMS)
        owners.append((await handle.info()).pid)
    for actor in unguaranteed:
        for _ in range(ITEMS):
            await actor.append.remote(TEXT.encode())
    return {"owners": owners, "unguaranteed": [await actor.pid.remote() for actor in unguaranteed]}


def measure(report: Report, driver: Driver, *, rounds: int, tell: Callable[[str], None]) -> None:
    """Open in turn in each way."""
    driver.call("line.openings:prepare")
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        tell(f"openings, round {number + 1}")
        for command in ("read_without_owner", "show", "start_unguaranteed", "open_and_wait"):
            if command in FROM_THE_POOL:
                driver.cluster.settle()
            for label, took in driver.call(f"line.openings:{command}").items():
                times[label] += [took] if number else []  # the first round imports and connects
    rows = {label: times[label] for label in (SHOWN, OPENED, WRITTEN, READ, LRANGE, UNGUARDED)}
    report.add_all("ms", rows, to=UNGUARDED)
    report.values |= {"history_ms": report.median(SHOWN), "open_to_unguaranteed": _ratio(report, OPENED, UNGUARDED)}
    report.notes.append(
        f"openings: {ITEMS} items of 200 bytes; nothing of the conversation runs when the clock starts."
    )


def measure_memory(report: Report, driver: Driver, *, count: int) -> None:
    """Compare the memory of an owner with that of an actor without guarantees."""
    found = driver.call("line.openings:processes", count=count)
    driver.cluster.settle()
    sizes = {name: [size / MIB for size in proportional(map(psutil.Process, pids))] for name, pids in found.items()}
    owner, unguaranteed = f"PSS of an owner, {ITEMS} items", f"PSS of an actor without guarantees, {ITEMS} items"
    report.add_all("MiB", {owner: sizes["owners"], unguaranteed: sizes["unguaranteed"]}, to=unguaranteed)


def _ratio(report: Report, label: str, other: str) -> float:
    return report.median(label) / report.median(other)
