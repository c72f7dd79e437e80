"""Measure what durability costs: an acknowledged append beside a bare Ray actor call and beside alternatives."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import actors, peers
from benchmarks.driver import TEXT, Session, a_message, fill
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Report
from benchmarks.stage import Stage
from conversation_actors import ConversationHandle

BARE = "bare Ray actor call"
APPEND = "durable append"
CALLERS = 32
BATCHED = "durable append, record and flush"
PIPELINED = f"{peers.PIPELINE}, {CALLERS} callers"
BATCH = 5000

Call = Callable[[], Awaitable[object]]


async def measure_calls(session: Session, rounds: int, repeats: int, modules_redis: str | None) -> dict[str, Any]:
    """Return the milliseconds of each call by itself, the messages per second of many, and notes on missing peers."""
    handle = await session.open("appended")
    await fill(handle, peers.ITEMS)
    async with AsyncExitStack() as stack:
        others, notes = await peers.available(stack, session.redis_url, modules_redis)
        bare = actors.bare()
        gc.collect()
        gc.freeze()  # otherwise collections would scan the peers' hundred thousand objects during all calls
        calls: dict[str, Call] = {
            BARE: lambda: bare.call.remote(TEXT),
            APPEND: lambda: handle.append(a_message()),
            **others,
        }
        await interleaved(calls, max(rounds // 10, 10))
        one = await interleaved(calls, rounds)
        many: dict[str, list[float]] = {}
        for number in range(repeats + 1):
            if number == 1:
                many.clear()  # the first round opened the connections
            for name in (BARE, APPEND, peers.PIPELINE, peers.SESSION):
                if name in calls:
                    many.setdefault(f"{name}, {CALLERS} callers", []).append(await throughput(calls[name]))
            many.setdefault(BATCHED, []).append(await recorded(handle))
    return {"one": one, "many": many, "notes": notes}


async def interleaved(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Time each call once a round, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            times[name].append((time.perf_counter() - began) * 1000)
    return times


async def recorded(handle: ConversationHandle) -> float:
    """Return the durable messages per second. Making the messages is the caller's work and is not timed."""
    messages = [a_message() for _ in range(BATCH)]
    began = time.perf_counter()
    for message in messages:
        handle.record(message)
    await handle.flush()
    return BATCH / (time.perf_counter() - began)


async def throughput(call: Call, each: int = 40) -> float:
    """Return the calls per second of 32 callers, each of which waits for its answer before it calls again."""

    async def caller() -> None:
        for _ in range(each):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return CALLERS * each / (time.perf_counter() - began)


def measure(stage: Stage) -> Report:
    """Measure in one process with one conversation of 200 items."""
    report = Report("append", f"One more message of 200 bytes, history of {peers.ITEMS}")
    with stage.drivers(Cluster(Variant.WARM)) as drivers:
        stage.tell("measuring")
        found = drivers[Variant.WARM].call(
            "append:measure_calls",
            rounds=stage.pick(500, 100),
            repeats=stage.pick(8, 3),
            modules_redis=stage.modules_redis,
        )
    report.add_all("ms", found["one"], to=BARE)
    report.add_all("messages/s", found["many"], to=PIPELINED)
    medians = {row.label: row.spread.median for row in report.rows}
    report.values = {
        "to_bare": medians[APPEND] / medians[BARE],
        "to_pipeline": medians[APPEND] / medians[peers.PIPELINE],
        "batched": medians[BATCHED],
        "callers_per_second": medians[f"{APPEND}, {CALLERS} callers"],
    }
    report.notes += [
        *found["notes"],
        (
            f"messages/s: {CALLERS} callers in one process on one conversation, each waiting for its answer; record "
            f"and flush: {BATCH} messages at a time."
        ),
        (
            "the peers write to Redis from the caller's process; they have no owner, no fence and no order across "
            "processes."
        ),
    ]
    return report
