"""One history from its seed to what is wrong with the archive: a Redis, a PostgreSQL, archivers, owners and clients."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import create_engine

from conversation_actors import ArchiveSettings, HistoryLimits, Settings, Timeouts
from conversation_actors.activation.recovery import restate
from conversation_actors.archive.database import Database
from conversation_actors.errors import RetryableError
from conversation_actors.state import Limits
from conversation_actors.store import Store, open_store
from tests.chaos.archive.archived import archived
from tests.chaos.archive.archivers import ARCHIVERS, Archivers
from tests.chaos.archive.checker import Present, check
from tests.chaos.archive.nemesis import FAULTS, Nemesis
from tests.chaos.archive.owners import Owners
from tests.chaos.archive.player import BUSY, QUIET, Player, watch
from tests.chaos.archive.postgres import HurtPostgres
from tests.chaos.archive.told import Told
from tests.chaos.report import Report
from tests.support.postgres import PostgresServer
from tests.support.servers import Server, newest
from tests.support.waiting import wait_until

CONVERSATIONS, CLIENTS = 3, 2
DIRECTIVES = {"appendonly": "yes", "appendfsync": "no"}
"""What was written survives the process; nothing here ends the machine."""
WINDOW = 60
TIMEOUTS = {"command": 6.0, "write": 1.0, "redis": 0.5, "attempt": 2.0, "poll": 2.0, "close": 2.0}
"""Seconds; short, so that much happens in a minute."""
_PATIENCE = 90.0
"""Seconds in which archivers catch up at the end on a busy machine."""


async def play(directory: Path, *, seed: int, rounds: int, weights: dict[str, int] | None = None) -> Report:
    """Play one history of so many rounds, and judge the archive when it has caught up."""
    binary = newest()
    assert binary is not None
    dice, started = random.Random(seed), time.monotonic()
    with (
        Server(binary, directory / "redis", DIRECTIVES) as redis,
        PostgresServer({"synchronous_commit": "on"}) as postgres,
    ):
        url = postgres.url()
        settings = _settings(redis.url, url)
        await _migrate(url)
        archivers = Archivers(directory, settings)
        async with AsyncExitStack() as stack:
            store = open_store(settings)
            stack.push_async_callback(store.aclose)
            owners = [
                await stack.enter_async_context(Owners(f"archived-{number}", store, settings))
                for number in range(CONVERSATIONS)
            ]
            for _ in range(ARCHIVERS):
                archivers.start()
            try:
                nemesis = Nemesis(owners, archivers, HurtPostgres(postgres), redis, dice=dice)
                tolds, troubles = await _clients(owners, nemesis, rounds, weights or FAULTS, seed)
                wrong = await _caught_up(store, archivers)
                presents = [await _present(store, one.conversation_id) for one in owners]
                await archivers.end(*archivers.running)
            finally:
                archivers.running, left = [], archivers.running
                for process in left:
                    process.kill()
        engine = create_engine(url)
        with engine.connect() as connection:
            rows = [archived(connection, told.conversation_id) for told in tolds]
        engine.dispose()
    for told, present, archive in zip(tolds, presents, rows, strict=True):
        wrong += check(told, present, archive)
    figures = nemesis.counts + Counter(
        acknowledged=sum(told.acknowledged for told in tolds),
        archived=sum(len(archive.entries) for archive in rows),
        watched=sum(len(told.watched) for told in tolds),
    )
    return Report(seed, time.monotonic() - started, figures, wrong, [*troubles, *archivers.troubles])


def _settings(redis_url: str, archive_url: str) -> Settings:
    return Settings(
        redis_url=SecretStr(redis_url),
        archive=ArchiveSettings(url=SecretStr(archive_url)),
        history=HistoryLimits(items=WINDOW),
        timeouts=Timeouts.model_validate(TIMEOUTS),
    )


async def _migrate(url: str) -> None:
    database = Database(SecretStr(url), timeout=timedelta(seconds=60))
    try:
        await database.migrate()
    finally:
        await database.aclose()


async def _clients(
    owners: list[Owners], nemesis: Nemesis, rounds: int, weights: dict[str, int], seed: int
) -> tuple[list[Told], list[str]]:
    """Have everybody do everything at once; return what each conversation's clients were told, and what ended them."""
    tolds = [Told(one.conversation_id) for one in owners]
    players: list[Player] = []
    watching: list[asyncio.Task[None]] = []
    for one, told in zip(owners, tolds, strict=True):
        watching.append(asyncio.create_task(watch(await one.handle(), told)))
        for number in range(CLIENTS):
            name = f"{one.conversation_id}/{number}"
            thought = QUIET if one is owners[0] else BUSY
            players.append(Player(name, await one.handle(), told, f"{seed}/{name}", thought=thought))
    playing = [asyncio.create_task(player.play()) for player in players]
    await nemesis.rage(rounds, weights)
    for player in players:
        player.stop()
    ends = await asyncio.gather(*playing, return_exceptions=True)
    for task in watching:
        task.cancel()
    ends += await asyncio.gather(*watching, return_exceptions=True)
    return tolds, [f"a client met {end!r}" for end in ends if isinstance(end, Exception)]


async def _caught_up(store: Store, archivers: Archivers) -> list[str]:
    """Wait until nothing waits for the archive; return what does after all, with what was given up."""

    async def nothing_waits() -> bool:
        archivers.keep()
        try:
            return (await store.backlog().lag()).records == 0
        except RetryableError:
            return False

    try:
        await wait_until(nothing_waits, "archivers to catch up", patience=_PATIENCE)
    except TimeoutError:
        return [f"the archivers do not catch up: {await store.backlog().lag()}"]
    given_up = (await store.backlog().lag()).given_up
    return [f"{given_up} records were given up"] if given_up else []


async def _present(store: Store, conversation_id: str) -> Present:
    stored = await store.read(conversation_id)
    state = restate(stored, Limits())[0]
    return Present(stored.life, stored.seq, tuple(item.id for item in state.window))
