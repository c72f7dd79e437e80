"""What an archive costs an append, block by block in turn, while an archiver carries away what is appended."""

import time

from benchmarks.driver import Session, a_message, fill
from benchmarks.measured.archive.clients import client_of
from benchmarks.paired import interval
from benchmarks.results import Report
from benchmarks.stage import Driver

WITHOUT, WITH = "durable append, without an archive", "durable append, with an archive"
ITEMS = 200
BLOCK = 25


async def blocks(session: Session, url: str, rounds: int) -> dict[str, list[list[float]]]:
    """Return the milliseconds of each append, block by block; in each round one block of either kind."""
    handles = {
        WITHOUT: await session.open("without"),
        WITH: await (await client_of(session, url)).open("with"),
    }
    for handle in handles.values():
        await fill(handle, ITEMS)
    measured: dict[str, list[list[float]]] = {name: [] for name in handles}
    for number in range(rounds + 1):
        for name in list(handles) if number % 2 else reversed(handles):
            times = []
            for _ in range(BLOCK):
                began = time.perf_counter()
                await handles[name].append(a_message())
                times.append((time.perf_counter() - began) * 1000)
            if number:  # the first round warms up
                measured[name].append(times)
    for handle in handles.values():
        await handle.aclose()
    return measured


def measure(report: Report, driver: Driver, url: str, *, rounds: int) -> None:
    """Compare the blocks of each round."""
    found = driver.call("archive.appends:blocks", url=url, rounds=rounds)
    report.add_all("ms", {name: [took for block in found[name] for took in block] for name in found}, to=WITHOUT)
    pairs = zip(found[WITH], found[WITHOUT], strict=True)
    middle, low, high = interval([sorted(new)[len(new) // 2] / sorted(old)[len(old) // 2] for new, old in pairs])
    report.values |= {"append": middle, "append_high": high}
    report.notes.append(
        f"appends: {rounds} pairs of blocks of {BLOCK}, one after the other; the median of a block with an archive was "
        f"{middle:.3f} of that without (95 % interval {low:.3f} to {high:.3f}). An archiver ran beside them."
    )
