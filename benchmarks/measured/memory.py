"""Measure what a live conversation takes: memory, and CPU while nothing happens."""

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import psutil
from redis import Redis

from benchmarks.driver import Session, fill
from benchmarks.figures import spread
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Plot, Report, curve
from benchmarks.stage import Driver, Drivers, Stage

MIB = 1 << 20
MESSAGES = 1000
MACHINE_MIB = 24 * 1024
RESERVED_MIB = 2 * 1024
"""The part of the machine's memory for its system and everything that is not Ray or Redis."""


async def populate(session: Session, prefix: str, live: int) -> list[int]:
    """Open conversations until `live` are live, record 1000 messages in each, and return their owners' process ids."""
    for number in range(len(session.handles), live):
        await fill(await session.open(f"{prefix}-{number}"), MESSAGES)
    return [(await handle.info()).pid for handle in session.handles.values()]


def proportional(processes: Iterable[psutil.Process]) -> list[float]:
    """Return the bytes of each process, including its share of the memory that it shares with others (PSS)."""
    return [pss for _, pss in _sizes(processes)]


def _sizes(processes: Iterable[psutil.Process]) -> list[tuple[float, float]]:
    """Return USS and PSS, in bytes, of the processes that still run."""
    found: list[tuple[float, float]] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            found.append((info.uss, info.pss))
    return found


def measure(stage: Stage) -> Report:
    """Measure more and more live conversations, of both variants in turn."""
    report = Report("memory", f"Memory of a live conversation after {MESSAGES} messages, and CPU while idle")
    levels = {Variant.WARM: stage.pick_many((10, 50, 200), (5, 20)), Variant.PLAIN: stage.pick_many((10, 50), (5,))}
    with stage.drivers(Cluster(Variant.WARM), Cluster(Variant.PLAIN)) as drivers:
        _grow(stage, drivers, report, levels)
        _idle(stage, drivers, report, {name: counts[-1] for name, counts in levels.items()})
    report.notes += [
        (
            "USS: what ends with the process. PSS: that, and its share of what it shares; for forked workers the "
            "better measure, and what the aims are judged by."
        ),
        (
            f"for 24 GiB: {RESERVED_MIB // 1024} GiB are left to the system, then the PSS of everything Ray runs on "
            "the node (fork server and pool included) and of Valkey, fixed part and growth per conversation. "
            "Calculated, not tried."
        ),
    ]
    return report


def _grow(stage: Stage, drivers: Drivers, report: Report, levels: dict[Variant, tuple[int, ...]]) -> None:
    uss: dict[Variant, dict[float, list[float]]] = defaultdict(dict)
    pss: dict[Variant, dict[float, list[float]]] = defaultdict(dict)
    node: dict[Variant, dict[int, float]] = defaultdict(dict)
    with Redis.from_url(drivers.valkey.url) as redis:
        server = psutil.Process(redis.info("server")["process_id"])
    for live in sorted({live for counts in levels.values() for live in counts}):
        for name in (name for name, counts in levels.items() if live in counts):
            stage.tell(f"{live} live, {name}")
            driver: Driver = drivers[name]
            pids = driver.call("memory:populate", prefix=name, live=live)
            driver.cluster.settle()
            sizes = _sizes(map(psutil.Process, pids))
            uss[name][live] = [size / MIB for size, _ in sizes]
            pss[name][live] = [size / MIB for _, size in sizes]
            node[name][live] = sum(proportional([*driver.cluster.processes(), server])) / MIB
    compared = max(levels[Variant.PLAIN])
    for what, measured in (("PSS", pss), ("USS", uss)):
        rows = {
            f"{what} at {live:.0f} live, {name}": sizes for name, at in measured.items() for live, sizes in at.items()
        }
        report.add_all("MiB", rows, to=f"{what} at {compared} live, {Variant.PLAIN}")
    alike = compared if compared in levels[Variant.WARM] else max(levels[Variant.WARM])
    report.values |= {
        "to_plain": spread(pss[Variant.WARM][alike]).median / spread(pss[Variant.PLAIN][compared]).median,
        "uss_to_plain": spread(uss[Variant.WARM][alike]).median / spread(uss[Variant.PLAIN][compared]).median,
        **capacity(node[Variant.WARM]),
    }
    curves = [curve(f"{what}, {name}", at) for what, both in (("PSS", pss), ("USS", uss)) for name, at in both.items()]
    report.plots.append(Plot("memory", "Memory of a conversation's process", "live conversations", "MiB", curves, "x"))


def capacity(node_mib: dict[int, float]) -> dict[str, float]:
    """Return how many conversations fit, and the MiB of each and of the fixed part.

    `node_mib` has the MiB of a whole node at two or more numbers of live conversations.
    """
    low, high = min(node_mib), max(node_mib)
    each = (node_mib[high] - node_mib[low]) / (high - low)
    fixed = node_mib[high] - each * high
    return {"fit_24_gib": (MACHINE_MIB - RESERVED_MIB - fixed) / each, "mib_each": each, "fixed_mib": fixed}


def _idle(stage: Stage, drivers: Drivers, report: Report, live: dict[Variant, int]) -> None:
    seconds, portions = stage.pick(5, 2), stage.pick(4, 3)
    stage.tell(f"idle for {seconds * portions} s")
    owners = {name: drivers[name].call("memory:populate", prefix=name, live=count) for name, count in live.items()}
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(portions):
        before = {name: _cpu(drivers[name], owners[name]) for name in live}
        time.sleep(seconds)
        for name, (of_owners, of_all) in before.items():
            now_owners, now_all = _cpu(drivers[name], owners[name])
            spent[f"idle CPU of one owner, {name}"].append((now_owners - of_owners) / seconds / live[name] * 1e6)
            spent[f"idle CPU of all else (Ray, pool), {name}"].append(
                (now_all - of_all - now_owners + of_owners) / seconds * 1e6
            )
    report.add_all("µs/s", spent, to=f"idle CPU of one owner, {Variant.PLAIN}")
    warm = report.rows[-4].spread.median
    report.values |= {"idle_owner_us_per_s": warm, "idle_cpus": warm * live[Variant.WARM] / 1e6}
    report.notes.append(
        f"idle: {live[Variant.WARM]} live conversations take {report.values['idle_cpus']:.3f} of a CPU, each followed "
        "by an open handle. The kernel counts CPU time in steps of 10 ms."
    )


def _cpu(driver: Driver, owners: list[int]) -> tuple[float, float]:
    """Return the CPU seconds so far of the owners, and of everything on the node."""
    of_owners = of_all = 0.0
    chosen = set(owners)
    for process in driver.cluster.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            of_all += times.user + times.system
            of_owners += (times.user + times.system) * (process.pid in chosen)
    return of_owners, of_all
