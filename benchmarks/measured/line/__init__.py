"""Measure a handle's line of its own beside Ray's calls, in one run: near and far, busy, idle and after a death."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from redis import Redis

from benchmarks import peers
from benchmarks.distance import HOLD_MS, relayed, second_host, without_this_nodes_sockets
from benchmarks.measured.append import BATCH, CALLERS
from benchmarks.measured.line import appends, crashes, handles, openings, seen, traffic
from benchmarks.measured.line.ways import Way
from benchmarks.nodes import HERE, Cluster, Variant, clusters
from benchmarks.results import Report
from benchmarks.stage import Driver, DriverError, Stage, Valkey
from tests.support.netns import SecondHost

LINE, CALLS = (appends.label(way) for way in Way)
SAME, FAR, BEHIND_RELAY = "same node", "another namespace", f"through a relay of {HOLD_MS} ms"


def measure(stage: Stage) -> Report:
    """Measure on one warm node and, if this machine can have one, from a second host."""
    report = Report("line", "A line of its own, beside Ray's calls")
    with ExitStack() as stack:
        host, missing = stack.enter_context(second_host())
        server = stack.enter_context(stage.valkey())
        cluster = Cluster(Variant.WARM, host=HERE if host is None else host.address)
        stage.tell("starting")
        stack.enter_context(clusters(cluster))
        scene = _Scene(stage, report, cluster, server, stack)
        parts: list[Callable[[], None]] = [scene.measure_near, scene.measure_idle]
        if host is None:
            report.notes.append(f"from another namespace, and through a relay: not measured ({missing}).")
        else:
            parts.insert(1, partial(scene.measure_far, host))
            parts.append(scene.measure_traffic)
        for part in parts:
            try:
                part()
            except DriverError as error:  # the other parts' figures stand by themselves
                report.failure = f"{report.failure}; {error}" if report.failure else str(error)
    return report


class _Scene:
    """A warm cluster with its server, and the drivers that use it."""

    def __init__(self, stage: Stage, report: Report, cluster: Cluster, server: Valkey, stack: ExitStack) -> None:
        self._stage, self._report, self._cluster, self._server, self._stack = stage, report, cluster, server, stack
        self._far: tuple[Driver, traffic.Counters] | None = None
        """The driver on the second host, and what had gone over its line when it was asked last."""

    def measure_near(self) -> None:
        """Measure all that is asked from the owners' own node."""
        stage, report = self._stage, self._report
        driver, other = self._driver("near"), self._driver("other")
        stage.tell("appends")
        prepared = driver.call("line.appends:prepare", prefix="near", with_peers=True)
        times = driver.call("line.appends:one_by_one", prefix="near", rounds=stage.pick(500, 80))
        self._add_appends(times, SAME, prepared["reached"])
        many = driver.call("line.appends:many", prefix="near", repeats=stage.pick(8, 2), each=stage.pick(40, 15))
        self._add_many(many)
        stage.tell("seen by another process")
        seen.measure(report, driver, other, rounds=stage.pick(500, 60))
        crashes.measure(report, driver, rounds=stage.pick(40, 4), tell=stage.tell)
        openings.measure(report, driver, rounds=stage.pick(30, 4), tell=stage.tell)
        openings.measure_memory(report, driver, count=stage.pick(5, 2))
        report.notes += prepared["notes"]
        for used in (driver, other):
            used.close()

    def _add_appends(self, times: dict[str, list[float]], where: str, reached: str) -> None:
        self._add_interleaved(times, where, reached)
        report = self._report
        median = {name: report.median(f"{name}, {where}") for name in times}
        compared = {
            "to_bare": appends.BARE,
            "to_pipeline": peers.PIPELINE,
            "to_session": peers.SESSION,
            "to_calls": CALLS,
        }
        report.values |= {name: median[LINE] / median[other] for name, other in compared.items() if other in median}

    def _add_interleaved(self, times: dict[str, list[float]], where: str, reached: str) -> None:
        rows = {f"{name}, {where}": values for name, values in times.items()}
        self._report.add_all("ms", rows, to=f"{appends.BARE}, {where}")
        self._report.notes.append(f"{where}: the line is a connection by {reached}.")

    def _add_many(self, rates: dict[str, list[float]]) -> None:
        report = self._report
        report.add_all("messages/s", rates, to=f"{CALLS}, {CALLERS} callers")
        by_line, by_calls = (report.median(f"{label}, {CALLERS} callers") for label in (LINE, CALLS))
        report.values |= {
            "callers_per_second": by_line,
            "callers_to_calls": by_line / by_calls,
            "batched": report.median(appends.recorded_label(Way.LINE)),
        }
        report.notes.append(
            f"messages/s: {CALLERS} callers in one process on one conversation, each waiting for its answer; record "
            f"and flush: {BATCH} messages at a time."
        )

    def measure_far(self, host: SecondHost) -> None:
        """Measure appends from a second host: over a bare cable, and with a relay in it."""
        stage = self._stage
        stage.tell("a second host")
        with Redis.from_url(self._server.url) as redis:
            redis.config_set("bind", f"{HERE} {host.address}")
        self._cluster.add_guest(host.second_address, host.prefix)
        url = self._server.url.replace(HERE, host.address)
        driver = self._driver("far", url, without_this_nodes_sockets(host.prefix))
        reached = driver.call("line.appends:prepare", prefix="far", with_peers=False)["reached"]
        one_by_one = partial(driver.call, "line.appends:one_by_one", prefix="far", rounds=stage.pick(100, 16))
        bare: dict[str, list[float]] = defaultdict(list)
        held: dict[str, list[float]] = defaultdict(list)
        for _ in range(3):
            _extend(bare, one_by_one())
            with relayed(host):
                _extend(held, one_by_one())
        self._add_interleaved(bare, FAR, reached)
        self._add_interleaved(held, BEHIND_RELAY, reached)
        self._far = driver, driver.call("line.traffic:counters")

    def measure_idle(self) -> None:
        """Measure idle handles, in a process of their own for each way."""
        pick = self._stage.pick
        handles.measure(
            self._report,
            {way: self._driver(f"held-{way.name.lower()}") for way in Way},
            count=pick(200, 12), portions=pick(4, 2), seconds=pick(5, 2), tell=self._stage.tell,
        )  # fmt: skip

    def measure_traffic(self) -> None:
        """Measure what has gone over the second host's line since it was used."""
        if self._far is not None:
            driver, before = self._far
            traffic.measure(self._report, driver, before)

    def _driver(self, name: str, url: str | None = None, prefix: tuple[str, ...] = ()) -> Driver:
        log: Path = self._server.directory / f"{name}.log"
        driver = Driver(self._cluster, url or self._server.url, log, prefix=prefix)
        self._stack.callback(driver.close)
        return driver


def _extend(measured: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for name, values in more.items():
        measured[name] += values
