"""How soon an append is acknowledged after the owner's death, by each way; the next process comes from the pool."""

from collections import defaultdict
from collections.abc import Callable

from benchmarks.driver import Session
from benchmarks.measured.line.ways import Way, open_both, taken
from benchmarks.measured.recovery import HISTORY
from benchmarks.results import Report
from benchmarks.stage import Driver

PREFIX = "crash"


async def prepare(session: Session) -> None:
    """Open both conversations."""
    await open_both(session, PREFIX, HISTORY)


async def again(session: Session) -> None:
    """Return when both ways are taken again."""
    for way in Way:
        await taken(session.handles[way.of(PREFIX)], way)


def measure(report: Report, driver: Driver, *, rounds: int, tell: Callable[[str], None]) -> None:
    """End both owners in turn, again and again."""
    driver.call("line.crashes:prepare")
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        tell(f"deaths, round {number + 1}")
        for way in Way:
            driver.call("line.crashes:again")
            driver.cluster.settle()
            took = driver.call("recovery:crash", conversation_ids=[way.of(PREFIX)])
            times[f"SIGKILL of the owner → next append, {way}"] += took if number else []
    by_line, by_calls = times
    report.add_all("ms", times, to=by_calls)
    report.values |= {"recovery_ms": report.median(by_line), "recovery_by_calls_ms": report.median(by_calls)}
