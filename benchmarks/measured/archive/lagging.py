"""How long after its acknowledgement an entry is committed in the archive's database, at a steady rate."""

import asyncio
import time

from benchmarks.driver import Session, a_message
from benchmarks.measured.archive.clients import archived, client_of
from benchmarks.results import Report
from benchmarks.stage import Driver
from conversation_actors import ConversationHandle

CONVERSATIONS, AT_ONCE = 10, 5
"""Conversations, and items in each append."""
RATE = 500
"""Items per second, in all conversations together."""
_PAUSE = CONVERSATIONS * AT_ONCE / RATE


async def lags(session: Session, url: str, seconds: float) -> dict[str, list[float]]:
    """Return the milliseconds from each acknowledgement to the look that found it archived; and the rate that was."""
    client = await client_of(session, url)
    handles = [await client.open(f"lagging-{number}") for number in range(CONVERSATIONS)]
    waiting: dict[str, list[tuple[int, float]]] = {handle.id: [] for handle in handles}
    measured: list[float] = []
    began = time.monotonic()
    appending = asyncio.gather(*(_append(handle, waiting[handle.id], began + seconds) for handle in handles))
    deadline = began + seconds + 60
    while time.monotonic() < deadline and not (appending.done() and not any(waiting.values())):
        positions = await archived(session, url)
        now = time.monotonic()
        for name, acknowledged in waiting.items():
            while acknowledged and acknowledged[0][0] <= positions.get(name, 0):
                measured += [(now - acknowledged.pop(0)[1]) * 1000] * AT_ONCE
        await asyncio.sleep(0.01)
    ended = await appending
    left = sum(map(len, waiting.values()))
    for handle in handles:
        await handle.aclose()
    if left:
        message = f"{left} appends were not archived a minute later"
        raise TimeoutError(message)
    return {"lags": measured, "rate": [len(measured) / (max(ended) - began)]}


async def _append(handle: ConversationHandle, acknowledged: list[tuple[int, float]], until: float) -> float:
    """Append at a steady pace, catching up where an append took longer; return when the last one was acknowledged."""
    due = time.monotonic()
    while due < until:
        receipt = await handle.append(*(a_message() for _ in range(AT_ONCE)))
        acknowledged.append((receipt.seq, time.monotonic()))
        due += _PAUSE
        await asyncio.sleep(max(due - time.monotonic(), 0))
    return time.monotonic()


def measure(report: Report, driver: Driver, url: str, where: str, *, seconds: int) -> None:
    """Append for a while, and add the lag of each item."""
    found = driver.call("archive.lagging:lags", url=url, seconds=seconds)
    label = f"acknowledged → committed in {where}, {RATE} items/s"
    report.add(label, "ms", found["lags"])
    report.values["lag_p95_s"] = next(row for row in report.rows if row.label == label).spread.p95 / 1000
    report.notes.append(
        f"lag: {CONVERSATIONS} conversations, {AT_ONCE} items an append; {found['rate'][0]:.0f} items/s came about. "
        "Clients, owners, Redis, database and archiver share the machine."
    )
