"""How soon what is archived is there: the first page of a history, and a conversation that Redis does not have."""

import time
from collections.abc import Callable

from redis.asyncio import Redis

from benchmarks.driver import Session, fill, gone
from benchmarks.measured.archive.clients import client_of, reached
from benchmarks.results import Report
from benchmarks.stage import Driver
from conversation_actors.store.keys import Keys

LONG, LIMIT = 5000, 100
ITEMS = 200
ASLEEP = "asleep in the archive"
OLDEST, NEWEST = (
    f"history(): first page, {LIMIT} of {LONG}",
    f"history(newest_first=True): first page, {LIMIT} of {LONG}",
)
READ = f"client.read(), {ITEMS} items"
FROM_REDIS, FROM_ARCHIVE = f"open() from Redis, {ITEMS} items", f"open() from the archive, {ITEMS} items"


async def pages(session: Session, url: str, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of a first page from either end, when all is archived."""
    client = await client_of(session, url)
    handle = await client.open("long")
    await fill(handle, LONG)
    await reached(session, url, handle.id, handle.seq)
    times: dict[str, list[float]] = {OLDEST: [], NEWEST: [], READ: []}
    for number in range(rounds + 3):
        for label, is_newest_first in ((OLDEST, False), (NEWEST, True)):
            began = time.perf_counter()
            page = await handle.history(limit=LIMIT, newest_first=is_newest_first)
            elapsed = time.perf_counter() - began
            assert len(page.items) == LIMIT
            times[label] += [elapsed * 1000] if number > 2 else []  # noqa: PLR2004  # the first rounds connect
        began = time.perf_counter()
        await client.read(handle.id)
        times[READ] += [(time.perf_counter() - began) * 1000] if number > 2 else []  # noqa: PLR2004
    await handle.aclose()
    return times


async def put_to_sleep(session: Session, url: str, *, forget: bool) -> None:
    """Have a conversation of so many items that nothing runs for; with `forget`, one that Redis does not have."""
    handle = await (await client_of(session, url)).open(ASLEEP)
    if len(handle.items) < ITEMS:
        await fill(handle, ITEMS - len(handle.items))
    seq, pid = handle.seq, (await handle.info()).pid
    await handle.passivate()
    await handle.aclose()
    await gone(pid)
    await reached(session, url, ASLEEP, seq)
    if forget:
        async with Redis.from_url(session.redis_url) as redis:
            await redis.delete(*Keys().conversation(ASLEEP).as_tuple())


async def open_it(session: Session, url: str) -> float:
    """Return the milliseconds until its owner has answered."""
    client = await client_of(session, url)
    began = time.perf_counter()
    handle = await client.open(ASLEEP)
    elapsed = time.perf_counter() - began
    assert len(handle.items) == ITEMS
    return elapsed * 1000


def measure(
    report: Report, driver: Driver, url: str, *, rounds: int, openings: int, tell: Callable[[str], None]
) -> None:
    """Measure both."""
    tell("pages of a history")
    found = driver.call("archive.histories:pages", url=url, rounds=rounds)
    report.add_all("ms", {label: found[label] for label in (OLDEST, NEWEST, READ)}, to=READ)
    report.values["page_ms"] = max(report.median(OLDEST), report.median(NEWEST))
    times: dict[str, list[float]] = {FROM_REDIS: [], FROM_ARCHIVE: []}
    for number in range(openings + 1):
        for label in times:
            tell(f"openings, round {number + 1}")
            driver.call("archive.histories:put_to_sleep", url=url, forget=label == FROM_ARCHIVE)
            driver.cluster.settle()
            took = driver.call("archive.histories:open_it", url=url)
            times[label] += [took] if number else []
    report.add_all("ms", times, to=FROM_REDIS)
    report.values["open_to_redis"] = report.median(FROM_ARCHIVE) / report.median(FROM_REDIS)
    report.notes.append("openings: the owner's process comes from the pool; nothing of the conversation runs before.")
