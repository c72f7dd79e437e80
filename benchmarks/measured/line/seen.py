"""How soon another process sees what was appended: from the call of `append` to the entry in a watch there.

Both processes run on one machine, whose monotonic clock they share.
"""

import asyncio
import time

from benchmarks.driver import Session, a_message
from benchmarks.measured.line.ways import Way, taken
from benchmarks.results import Report
from benchmarks.stage import Driver
from conversation_actors import ConversationHandle
from conversation_actors.state import ItemsAppended

PREFIX = "seen"
_PAUSE_SECONDS = 0.005
"""The pause between two appends, so that nothing of the one before is under way any more."""
_WARM_UP = 10

Moments = dict[str, float]
"""Times by the id of the item."""


async def open_here(session: Session) -> None:
    """Open both conversations, and return when both ways are taken."""
    for way in Way:
        await taken(await session.open(way.of(PREFIX), direct=way.direct), way)


async def follow(session: Session) -> None:
    """Begin to note when items are seen."""
    await open_here(session)
    for way in Way:
        moments: Moments = {}
        handle = session.handles[way.of(PREFIX)]
        session.kept[way.of(PREFIX)] = (moments, asyncio.create_task(_note(handle, moments)))


async def _note(handle: ConversationHandle, moments: Moments) -> None:
    async for entry in handle.watch():
        now = time.perf_counter()
        if isinstance(entry.event, ItemsAppended):
            moments.update((stored.id, now) for stored in entry.event.items)


async def append(session: Session, rounds: int) -> dict[Way, Moments]:
    """Append in turn by each way, and return when each call began."""
    began: dict[Way, Moments] = {way: {} for way in Way}
    for _ in range(rounds):
        for way, moments in began.items():
            message = a_message()
            now = time.perf_counter()
            await session.handles[way.of(PREFIX)].append(message)
            moments[message.id] = now
            await asyncio.sleep(_PAUSE_SECONDS)
    return began


async def collect(session: Session, counts: dict[str, int]) -> dict[Way, Moments]:
    """Return when each item was seen, once so many were seen by each way."""
    found: dict[Way, Moments] = {}
    async with asyncio.timeout(30):
        for way in Way:
            moments, watching = session.kept[way.of(PREFIX)]
            while len(moments) < counts[way]:  # noqa: ASYNC110  # the watch is what is measured, and sets no event
                await asyncio.sleep(0.01)
            watching.cancel()
            found[way] = moments
    return found


def measure(report: Report, writer: Driver, reader: Driver, *, rounds: int) -> None:
    """Append in one process, and watch in another."""
    writer.call("line.seen:open_here")
    reader.call("line.seen:follow")
    warm_up = writer.call("line.seen:append", rounds=_WARM_UP)
    began = writer.call("line.seen:append", rounds=rounds)
    seen = reader.call("line.seen:collect", counts={way: len(warm_up[way]) + rounds for way in Way})
    rows = {
        f"append → seen by another process, {way}": [(seen[way][item] - at) * 1000 for item, at in began[way].items()]
        for way in Way
    }
    by_line, by_calls = rows
    report.add_all("ms", rows, to=by_calls)
    report.values |= {"seen_ms": report.median(by_line), "seen_by_calls_ms": report.median(by_calls)}
    report.notes.append(
        "seen: from the call of `append` to the entry in `watch()` of a handle in another process of the same node."
    )
