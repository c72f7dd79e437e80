"""Measure the time from the death of one owner, of many, or of a node to the next acknowledged append."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from contextlib import suppress

from benchmarks.driver import Session, a_message, fill
from benchmarks.nodes import QUICK_NODE_DEATH, Cluster, Node, Variant
from benchmarks.results import Plot, Report, distribution_curve
from benchmarks.stage import Driver, Drivers, Stage

HISTORY = 50
PLAIN_EVERY = 8
"""Plain Ray is measured only every eighth round, because it takes 2 to 3 s each time."""
ONE = "owner killed"
NODE = "node killed"


async def begin(session: Session, prefix: str, count: int) -> None:
    """Open conversations with some history."""
    for number in range(count):
        await fill(await session.open(f"{prefix}-{number}"), HISTORY)


async def crash(session: Session, conversation_ids: list[str]) -> list[float]:
    """Return the milliseconds from SIGKILL of all owners to the next acknowledged append of each conversation."""
    handles = [session.handles[name] for name in conversation_ids]
    pids = [info.pid for info in await asyncio.gather(*(handle.info() for handle in handles))]
    began = time.perf_counter()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    async def append(number: int) -> float:
        await handles[number].append(a_message())
        return (time.perf_counter() - began) * 1000

    times = await asyncio.gather(*map(append, range(len(handles))))
    after = await asyncio.gather(*(handle.info() for handle in handles))
    assert not {info.pid for info in after}.intersection(pids)
    return times


async def lose_node(session: Session, conversation_id: str, pids: list[int]) -> float:
    """Return the seconds from SIGKILL of a node's processes to the next acknowledged append."""
    began = time.perf_counter()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await session.handles[conversation_id].append(a_message())
    return time.perf_counter() - began


async def owner(session: Session, conversation_id: str) -> int:
    """Return the process id of a conversation's owner."""
    return (await session.handles[conversation_id].info()).pid


def measure(stage: Stage) -> Report:
    """Measure the death of one owner, of many owners, and of a node."""
    report = Report("recovery", "SIGKILL to the next acknowledged append")
    with stage.drivers(*map(Cluster, Variant)) as drivers:
        _owners(stage, drivers, report)
        _many(stage, drivers, report)
    _nodes(stage, report)
    report.notes.append("plain: Ray's default client settings, without `quick_crash_detection`; and fewer rounds.")
    return report


def _owners(stage: Stage, drivers: Drivers, report: Report) -> None:
    times: dict[Variant, list[float]] = defaultdict(list)
    for driver in drivers:
        driver.call("recovery:begin", prefix=f"one-{driver.variant}", count=1)
        driver.cluster.settle()
        driver.call("recovery:crash", conversation_ids=[f"one-{driver.variant}-0"])
    rounds = stage.pick(100, 16)
    for number in range(rounds):
        stage.tell(f"one owner, round {number + 1} of {rounds}")
        for driver in drivers:
            if driver.variant is Variant.PLAIN and number % PLAIN_EVERY:
                continue
            driver.cluster.settle()
            times[driver.variant] += driver.call("recovery:crash", conversation_ids=[f"one-{driver.variant}-0"])
    report.add_all("ms", {f"{ONE}, {name}": values for name, values in times.items()}, to=f"{ONE}, {Variant.PLAIN}")
    medians = {row.label: row.spread.median for row in report.rows}
    warm, forked, plain = (medians[f"{ONE}, {variant}"] for variant in Variant)
    report.values |= {"warm_ms": warm, "speedup": plain / warm, "forked_ms": forked, "forked_speedup": plain / forked}
    report.values |= {"warm_max_ms": max(times[Variant.WARM]), "forked_max_ms": max(times[Variant.FORKED])}
    slowest = ", ".join(f"{name} {max(values):,.0f} ms" for name, values in times.items())
    report.notes.append(f"the slowest recovery of one owner: {slowest}.")
    curves = [distribution_curve(name, values) for name, values in times.items()]
    report.plots.append(Plot("recovery", "Share of recoveries done", "ms since SIGKILL", "share", curves, "x"))


def _many(stage: Stage, drivers: Drivers, report: Report) -> None:
    most, few = stage.pick(50, 10), stage.pick(10, 3)
    each: dict[str, list[float]] = defaultdict(list)
    last: dict[str, list[float]] = defaultdict(list)
    counts = {Variant.WARM: (most, few), Variant.PLAIN: (few,)}
    for name, sizes in counts.items():
        stage.tell(f"opening {sizes[0]} conversations, {name}")
        drivers[name].call("recovery:begin", prefix=f"many-{name}", count=sizes[0])
    for number in range(stage.pick(3, 1)):
        for name, sizes in counts.items():
            for size in sizes:
                stage.tell(f"{size} owners at once, round {number + 1}, {name}")
                drivers[name].cluster.settle()
                ids = [f"many-{name}-{place}" for place in range(size)]
                found = drivers[name].call("recovery:crash", conversation_ids=ids)
                each[f"{size} owners killed at once, each, {name}"] += found
                last[f"{size} owners killed at once, the last, {name}"].append(max(found))
    report.add_all("ms", each, to=f"{few} owners killed at once, each, {Variant.PLAIN}")
    report.add_all("ms", last, to=f"{few} owners killed at once, the last, {Variant.PLAIN}")
    report.notes.append(
        f"at once: plain Ray loses {few} owners, the others {few} and {most}; compare the rows of {few}."
    )


def _nodes(stage: Stage, report: Report) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    if stage.is_quick:
        report.notes.append("node killed: not in a quick run.")
        return
    # one after the other, because six raylets side by side would disturb each other
    counts = {Variant.WARM: 3, Variant.PLAIN: 2}
    for name, rounds in counts.items():
        environment = {} if name is Variant.PLAIN else QUICK_NODE_DEATH
        with stage.drivers(Cluster(name, head_room=0, environment=environment)) as drivers:
            for number in range(rounds):
                stage.tell(f"a node, round {number + 1}, {name}")
                times[f"{NODE}, {name}"].append(_lose_node(drivers[name], number))
    report.add_all("s", times, to=f"{NODE}, {Variant.PLAIN}")
    report.notes.append(
        "node killed: a raylet and all its workers, while a second node has room; warm with the health checks of "
        "`cluster.yaml`, plain with Ray's defaults. The variants are measured one after the other."
    )


def _lose_node(driver: Driver, number: int) -> float:
    """End the node that runs the conversation, which moves to a second node, and return the seconds until it answers.

    The second node is started before that, so that each round has two.
    """
    cluster, name = driver.cluster, "on-a-node-0"
    if number == 0:
        cluster.add_node()
        driver.call("recovery:begin", prefix="on-a-node", count=1)
    cluster.add_node()
    cluster.settle()
    pid = driver.call("recovery:owner", conversation_id=name)
    node: Node = next(node for node in cluster.nodes[1:] if node.has(pid))
    pids = [process.pid for process in node.processes()]
    seconds: float = driver.call("recovery:lose_node", conversation_id=name, pids=pids)
    cluster.kill_node(node)
    return seconds
