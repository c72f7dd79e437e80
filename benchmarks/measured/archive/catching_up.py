"""How fast an archiver carries away a backlog, such as an outage of the database leaves, into each database."""

import asyncio
import time
from datetime import timedelta

from pydantic import SecretStr

from benchmarks.driver import a_message
from benchmarks.results import Report
from conversation_actors import ArchiveSettings, Settings
from conversation_actors.archive.archiver import Archiver
from conversation_actors.archive.database import Database
from conversation_actors.archive.writer import Writer
from conversation_actors.codec import encode_entry
from conversation_actors.items import StoredItem
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store import Store, open_store

CONVERSATIONS = 4
TENANT = "catching-up"
_TTL = timedelta(hours=1)
_PORTION = 500
_PATIENCE = timedelta(minutes=1)


async def _fill(store: Store, name: str, items: int) -> None:
    """Write entries of one item each, as many appends leave them, to a conversation that archives."""
    recovered = await store.activate(name, owner="benchmark", create=True, ttl=_TTL)
    seq = recovered.seq
    while items > 0:
        count = min(items, _PORTION)
        numbers = range(seq + 1, seq + 1 + count)
        entries = [encode_entry(Entry(at, 1, time.time(), ItemsAppended((_stored(),)), f"r{at}")) for at in numbers]
        await store.append(recovered.claim, expected_seq=seq, entries=entries, ttl=_TTL)
        seq, items = seq + count, items - count


def _stored() -> StoredItem:
    return a_message().to_stored()


async def rate(redis_url: str, url: str, prefix: str, items: int) -> float:
    """Return the items per second at which one archiver empties the backlogs of a few conversations."""
    archive = ArchiveSettings(url=SecretStr(url))
    store = open_store(Settings(redis_url=SecretStr(redis_url), tenant=TENANT, archive=archive))
    database = Database(SecretStr(url), timeout=_PATIENCE)
    try:
        for number in range(CONVERSATIONS):
            await _fill(store, f"{prefix}-{number}", items // CONVERSATIONS)
        archiver = Archiver(store.backlog(), Writer(database, TENANT))
        began = time.perf_counter()
        entries = await archiver.once()
        elapsed = time.perf_counter() - began
    finally:
        await database.aclose()
        await store.aclose()
    assert entries == items, f"{entries} of {items} entries were archived"
    return entries / elapsed


async def migrate(url: str) -> None:
    """Make the tables."""
    database = Database(SecretStr(url), timeout=_PATIENCE)
    try:
        await database.migrate()
    finally:
        await database.aclose()


def measure(report: Report, redis_url: str, urls: dict[str, str], *, rounds: int, items: int) -> None:
    """Fill backlogs and empty them, a few times for each database in turn."""
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, url in urls.items():
            measured = asyncio.run(rate(redis_url, url, f"{name}-{number}", items))
            rates[name] += [measured] if number else []  # the first round connects, and warms up
    for name, values in rates.items():
        label = f"catching up into {name}"
        report.add(label, "items/s", values)
        report.values[f"catching_up_{name.lower()}"] = report.median(label)
    report.notes.append(
        f"catching up: one archiver, {items} entries of one item each in {CONVERSATIONS} conversations, {rounds} times."
    )
