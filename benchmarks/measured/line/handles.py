"""What handles cost while nothing happens: memory, descriptors and CPU, in their own process and in the owners'."""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import psutil

from benchmarks.driver import Session
from benchmarks.measured.line.ways import Way, taken
from benchmarks.measured.memory import MIB
from benchmarks.results import Report
from benchmarks.stage import Driver

PREFIX = "held"
WARM_UP = "held-first"
NOBODY = "by nobody"
_AT_ONCE = 20
"""The number of conversations that are opened at one time."""


async def begin(session: Session, way: str) -> dict[str, float]:
    """Open one conversation and close it, so that what a process needs once is there. Return the footprint."""
    chosen = Way(way)
    handle = await session.open(WARM_UP, direct=chosen.direct)
    await taken(handle, chosen)
    await handle.aclose()
    return footprint()


def footprint() -> dict[str, float]:
    """Return the bytes that are this process's own, and the number of its descriptors."""
    gc.collect()
    return {"uss": psutil.Process().memory_full_info().uss, "descriptors": psutil.Process().num_fds()}


async def hold(session: Session, way: str, count: int) -> dict[str, list[int] | dict[str, float]]:
    """Open so many conversations. Return their owners' process ids, and the footprint once all ways are taken."""
    chosen = Way(way)

    async def one(number: int) -> int:
        handle = await session.open(f"{PREFIX}-{number}", direct=chosen.direct)
        await taken(handle, chosen)
        return (await handle.info()).pid

    pids: list[int] = []
    for first in range(0, count, _AT_ONCE):
        pids += await asyncio.gather(*map(one, range(first, min(first + _AT_ONCE, count))))
    return {"pids": pids, "footprint": footprint()}


async def idle(_: Session, seconds: float) -> float:
    """Return the microseconds of CPU that this process spends in a second, with nothing to do."""
    before = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / seconds * 1e6


def measure(
    report: Report,
    drivers: Mapping[Way, Driver],
    *,
    count: int,
    portions: int,
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Hold the same conversations by line, then by nobody, then by calls.

    An owner listens if its first client would have a line.
    """
    figures = _Figures(count, portions, seconds)
    for way, driver in ((way, drivers[way]) for way in Way):
        tell(f"{count} idle handles, {way}")
        before = driver.call("line.handles:begin", way=way)
        driver.cluster.settle()
        figures.add_process(f"without handles, {way}", [driver.call("line.handles:idle", seconds=seconds)])
        held = driver.call("line.handles:hold", way=way, count=count)
        figures.add_client(way, before, held["footprint"])
        driver.cluster.settle()
        figures.add_idle(way, driver, held["pids"])
        driver.close()
        driver.cluster.settle()
        if way is Way.LINE:
            figures.add_owners(NOBODY, held["pids"])
    figures.tell(report)


class _Figures:
    """What was measured, by row."""

    def __init__(self, count: int, portions: int, seconds: float) -> None:
        self._count, self._portions, self._seconds = count, portions, seconds
        self._rows: dict[str, dict[str, list[float]]] = defaultdict(dict)

    def add_process(self, whose: str, spent: list[float]) -> None:
        self._rows["µs/s"][f"idle CPU of a process, {whose}"] = spent

    def add_client(self, way: Way, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        grown = {name: (after[name] - before[name]) / self._count for name in before}
        self._rows["KiB"][f"USS of a handle, {way}"] = [grown["uss"] / 1024]
        self._rows[""][f"descriptors of a handle, {way}"] = [grown["descriptors"]]

    def add_idle(self, way: Way, driver: Driver, pids: list[int]) -> None:
        def process_idles() -> None:
            spent.append(driver.call("line.handles:idle", seconds=self._seconds))

        spent: list[float] = []
        self.add_owners(way, pids, process_idles)
        self.add_process(f"{self._count} handles, {way}", spent)

    def add_owners(self, by: str, pids: list[int], idle: Callable[[], None] | None = None) -> None:
        """Add rows of owners that are followed `by` somebody. `idle` takes the time that they are measured in."""
        owners = list(map(psutil.Process, pids))
        spent = []
        for _ in range(self._portions):
            before, began = _seconds(owners), time.monotonic()
            (idle or (lambda: time.sleep(self._seconds)))()
            elapsed = time.monotonic() - began
            spent.append((_seconds(owners) - before) / elapsed / len(owners) * 1e6)
        self._rows["µs/s"][f"idle CPU of one owner, followed {by}"] = spent
        self._rows[""][f"descriptors of an owner, followed {by}"] = [float(owner.num_fds()) for owner in owners]
        self._rows["MiB"][f"USS of an owner, followed {by}"] = [owner.memory_full_info().uss / MIB for owner in owners]

    def tell(self, report: Report) -> None:
        rows = self._rows
        report.add_all("KiB", rows["KiB"], to=f"USS of a handle, {Way.CALLS}")
        report.add_all("", rows[""], to=f"descriptors of an owner, followed {NOBODY}")
        report.add_all("MiB", rows["MiB"], to=f"USS of an owner, followed {NOBODY}")
        report.add_all("µs/s", rows["µs/s"], to=f"idle CPU of one owner, followed {NOBODY}")
        held = {way: report.median(f"idle CPU of a process, {self._count} handles, {way}") for way in Way}
        report.values |= {"handles_cpu_us_per_s": held[Way.LINE], "handles_by_calls_cpu_us_per_s": held[Way.CALLS]}
        report.notes.append(
            f"idle: {self._count} handles in one process, one after the other by line, by nobody and by Ray's calls, "
            "with the same owners. The kernel counts an owner's CPU time in steps of 10 ms."
        )


def _seconds(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))
