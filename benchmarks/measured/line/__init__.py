"""Measure a handle's line of its own beside Ray's calls, in one run: near and far, busy, idle and after a death."""

from contextlib import ExitStack
from pathlib import Path

from redis import Redis

from benchmarks import peers
from benchmarks.distance import HOLD_MS, relayed, second_host, without_this_nodes_sockets
from benchmarks.measured.append import BATCH, CALLERS
from benchmarks.measured.line import appends, crashes, handles, openings, seen
from benchmarks.measured.line.ways import Way
from benchmarks.nodes import HERE, Cluster, Variant, clusters
from benchmarks.results import Report
from benchmarks.stage import Driver, Stage, Valkey
from tests.support.netns import SecondHost

LINE, CALLS = (appends.label(way) for way in Way)


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
        scene.measure_near()
        if host is None:
            report.notes.append(f"from another namespace, and through a relay: not measured ({missing}).")
        else:
            scene.measure_far(host)
        scene.measure_handles()
    return report


class _Scene:
    """A warm cluster with its server, and the drivers that use it."""

    def __init__(self, stage: Stage, report: Report, cluster: Cluster, server: Valkey, stack: ExitStack) -> None:
        self._stage, self._report, self._cluster, self._server, self._stack = stage, report, cluster, server, stack

    def measure_near(self) -> None:
        """Measure all that is asked from the owners' own node."""
        stage, report = self._stage, self._report
        driver, other = self._driver("near"), self._driver("other")
        stage.tell("appends")
        prepared = driver.call("line.appends:prepare", prefix="near", with_peers=True)
        times = driver.call("line.appends:one_by_one", prefix="near", rounds=stage.pick(500, 80))
        self._add_appends(times, f"same node ({prepared['reached']})")
        self._add_many(
            driver.call("line.appends:many", prefix="near", repeats=stage.pick(8, 2), each=stage.pick(40, 15))
        )
        stage.tell("seen by another process")
        seen.measure(report, driver, other, rounds=stage.pick(500, 60))
        crashes.measure(report, driver, rounds=stage.pick(40, 4), tell=stage.tell)
        openings.measure(report, driver, rounds=stage.pick(30, 4), tell=stage.tell)
        openings.measure_memory(report, driver, count=stage.pick(5, 2))
        report.notes += prepared["notes"]
        for used in (driver, other):
            used.close()

    def _add_appends(self, times: dict[str, list[float]], where: str) -> None:
        report = self._report
        report.add_all(
            "ms", {f"{name}, {where}": values for name, values in times.items()}, to=f"{appends.BARE}, {where}"
        )
        own, bare, pipeline = (report.median(f"{name}, {where}") for name in (LINE, appends.BARE, peers.PIPELINE))
        report.values |= {"to_bare": own / bare, "to_pipeline": own / pipeline}
        if peers.SESSION in times:
            report.values["to_session"] = own / report.median(f"{peers.SESSION}, {where}")
        report.values["to_calls"] = own / report.median(f"{CALLS}, {where}")

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
        """Measure appends from a second host: near by, and behind a relay."""
        stage = self._stage
        stage.tell("a second host")
        with Redis.from_url(self._server.url) as redis:
            redis.config_set("bind", f"{HERE} {host.address}")
        self._cluster.add_guest(host.second_address, host.prefix)
        url = self._server.url.replace(HERE, host.address)
        driver = self._driver("far", url, without_this_nodes_sockets(host.prefix))
        reached = driver.call("line.appends:prepare", prefix="far", with_peers=False)["reached"]
        rounds = stage.pick(300, 48)
        near: dict[str, list[float]] = {}
        held: dict[str, list[float]] = {}
        for _ in range(3):
            for name, values in driver.call("line.appends:one_by_one", prefix="far", rounds=rounds // 3).items():
                near.setdefault(name, []).extend(values)
            with relayed(host):
                for name, values in driver.call("line.appends:one_by_one", prefix="far", rounds=rounds // 3).items():
                    held.setdefault(name, []).extend(values)
        self._add_far(near, f"another namespace ({reached})")
        self._add_far(held, f"through a relay of {HOLD_MS} ms ({reached})")
        driver.close()

    def _add_far(self, times: dict[str, list[float]], where: str) -> None:
        rows = {f"{name}, {where}": values for name, values in times.items()}
        self._report.add_all("ms", rows, to=f"{appends.BARE}, {where}")

    def measure_handles(self) -> None:
        """Measure idle handles, in a process of their own for each way."""
        pick = self._stage.pick
        handles.measure(
            self._report,
            {way: self._driver(f"held-{way.name.lower()}") for way in Way},
            count=pick(200, 12), portions=pick(4, 2), seconds=pick(5, 2), tell=self._stage.tell,
        )  # fmt: skip

    def _driver(self, name: str, url: str | None = None, prefix: tuple[str, ...] = ()) -> Driver:
        log: Path = self._server.directory / f"{name}.log"
        driver = Driver(self._cluster, url or self._server.url, log, prefix=prefix)
        self._stack.callback(driver.close)
        return driver
