"""The benchmarks' pure parts: statistics, verdicts, and the page made of results."""

import asyncio
import json
import math
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from benchmarks.aims import AIMS, Aim, Bound, Verdict, judged
from benchmarks.figures import Ratio, distribution, percentile, ratio, spread
from benchmarks.floor import Caller
from benchmarks.measured import MEASURED
from benchmarks.measured.line.traffic import counted
from benchmarks.measured.line.ways import Way, taken
from benchmarks.measured.memory import capacity
from benchmarks.page import PAGE, fill, fill_one
from benchmarks.paired import interval
from benchmarks.relay import carry
from benchmarks.results import Plot, Report, Results, curve, distribution_curve
from benchmarks.wording import multiple, number
from conversation_actors import ConversationClient
from tests.support.waiting import wait_for

MARKED = "".join(f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in ("runs", "aims", "results"))


def some_results(*, warm_ms: float = 20.0) -> Results:
    """A run with one report that has a row with a baseline, a plot and a note."""
    report = Report("activation", "Activation")
    report.add_all("ms", {"warm": [warm_ms] * 5, "plain": [600.0] * 5}, to="plain")
    report.values = {"warm_ms": warm_ms}
    report.plots.append(Plot("a", "A", "items", "ms", [curve("warm", {10.0: [1.0, 2.0], 100.0: [3.0]})]))
    report.notes.append("a note")
    return Results("2024-02-29T12:00:00+00:00", is_quick=True, machine={"cpus": 2}, reports=[report])


def test_percentiles_lie_between_measurements() -> None:
    """Interpolated: the middle of two is their mean, the ends are the ends."""
    assert [percentile([1.0, 2.0, 4.0], share) for share in (0.0, 0.25, 0.5, 1.0)] == [1.0, 1.5, 2.0, 4.0]
    assert percentile([7.0], 0.95) == 7.0


def test_a_spread_needs_no_order() -> None:
    """Measurements come as they were made."""
    found = spread([float(value) for value in (5, 1, 3, 2, 4)])

    assert (found.count, found.median, found.mean, found.low, found.high) == (5, 3.0, 3.0, 1.0, 5.0)
    assert found.p5 < found.median < found.p95 < found.high


def test_of_nothing_there_is_no_spread() -> None:
    """A benchmark that measured nothing fails instead of telling zeros."""
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


def test_a_ratio_divides_medians() -> None:
    """One outlier on either side changes nothing, and the interval holds the value."""
    found = ratio([10.0, 10.0, 10.0, 11.0, 900.0], [2.0, 2.0, 2.0, 2.1, 70.0])

    assert found.value == 5.0
    assert found.low <= found.value <= found.high


def test_a_ratio_is_the_same_again() -> None:
    """Resampling is seeded: the page does not change when it is rendered twice."""
    values, baseline = [float(value) for value in range(1, 30)], [float(value) for value in range(5, 20)]

    assert ratio(values, baseline) == ratio(values, baseline)


def test_constant_measurements_leave_no_doubt() -> None:
    """Where nothing varies the interval is the value."""
    assert ratio([3.0] * 9, [1.5] * 4) == Ratio(2.0, 2.0, 2.0)


def test_a_distribution_climbs_to_one() -> None:
    """From the smallest measurement at 0 to the largest at 1."""
    points = distribution([3.0, 1.0, 2.0])

    assert (points[0], points[-1]) == ((1.0, 0.0), (3.0, 1.0))
    assert points == sorted(points)


@pytest.mark.parametrize(
    ("bound", "measured", "verdict"),
    [
        (Bound.AT_LEAST, 25.0, Verdict.MET),
        (Bound.AT_LEAST, 24.9999, Verdict.MISSED),
        (Bound.AT_MOST, 25.0, Verdict.MET),
        (Bound.AT_MOST, 25.0001, Verdict.MISSED),
        (Bound.AT_MOST, None, Verdict.NOT_MEASURED),
        (Bound.AT_MOST, math.nan, Verdict.NOT_MEASURED),
        (Bound.AT_LEAST, math.nan, Verdict.NOT_MEASURED),
    ],
)
def test_a_verdict_is_exact(bound: Bound, measured: float | None, verdict: Verdict) -> None:
    """Nothing is rounded in anybody's favour, and no number is no success."""
    assert Aim("a", "a.b", bound, 25, "").verdict(measured) is verdict


def test_every_aim_is_judged() -> None:
    """In the JSON document each aim has a verdict, also those of benchmarks that did not run."""
    told = judged({"activation.warm_ms": 20.0})

    assert len(told) == len(AIMS)
    assert {aim["value"]: aim["verdict"] for aim in told if aim["measured"] is not None} == {
        "activation.warm_ms": "met"
    }


def test_every_aim_names_a_benchmark() -> None:
    """An aim that no benchmark measures would never be missed."""
    assert {aim.value.partition(".")[0] for aim in AIMS} <= MEASURED.keys()


def test_results_survive_json() -> None:
    """What is read back is what was written, with the verdicts beside it."""
    results = some_results()

    assert Results.from_json(
        json.loads(json.dumps({**results.as_json(), "aims": judged(results.values)}))
    ).as_json() == (json.loads(json.dumps(results.as_json())))


def test_results_of_another_format_are_refused() -> None:
    """Rather than put into the page as something that they are not."""
    with pytest.raises(ValueError, match="another format"):
        Results.from_json({**some_results().as_json(), "format": 0})


def test_rows_are_compared_with_their_baseline() -> None:
    """The baseline itself has no ratio; a label without measurements has no row."""
    report = Report("a", "A")
    report.add_all("ms", {"one": [2.0, 2.0], "none": [], "base": [4.0, 4.0]}, to="base")

    assert [(row.label, row.to, row.ratio and row.ratio.value) for row in report.rows] == [
        ("one", "base", 0.5),
        ("base", None, None),
    ]


def test_rows_without_a_baseline_stand_alone() -> None:
    """Where the baseline could not be measured, the others are told all the same."""
    report = Report("a", "A")
    report.add_all("ms", {"one": [2.0], "base": []}, to="base")

    assert [(row.label, row.ratio) for row in report.rows] == [("one", None)]


def test_curves_are_ordered() -> None:
    """By x, whatever came first; points without measurements are left out."""
    assert [point[0] for point in curve("c", {100.0: [1.0], 10.0: [2.0], 50.0: []}).points] == [10.0, 100.0]
    assert distribution_curve("d", [1.0, 2.0]).points[0] == (1.0, 0.0, 0.0, 0.0)


def test_the_page_shows_runs_side_by_side() -> None:
    """One column group a run, verdicts in words, and nothing left of what stood there."""
    page = fill(MARKED, [some_results(), some_results(warm_ms=30.0)])

    assert "| activation from the pool, p50 | ≤ 25 ms | 20 ms | met | 30 ms | **missed** |" in page
    assert "| warm | ms | 20 | 20–20 | ÷ 30 (30–30) | 30 | 30–30 | ÷ 20 (20–20) |" in page
    assert "| plain | ms | 600 | 600–600 | – | 600 | 600–600 | – |" in page
    assert "- a note" in page
    assert "old" not in page


def test_the_page_can_be_filled_again() -> None:
    """The markers stay."""
    once = fill(MARKED, [some_results()])

    assert fill(once, [some_results()]) == once


def test_a_page_without_markers_is_left_alone() -> None:
    """Better an error than results that nobody finds."""
    with pytest.raises(ValueError, match="no markers for 'runs'"):
        fill("# A page", [some_results()])


def test_the_repository_s_page_has_its_markers() -> None:
    """`--page` works on the page as it is, and the page names every benchmark."""
    text = Path(PAGE).read_text(encoding="utf-8")

    assert "| activation from the pool, p50 | ≤ 25 ms | 20 ms | met |" in fill(text, [some_results()])
    assert all(f"| `{name}` |" in text for name in MEASURED)


def test_one_benchmark_has_a_section_of_its_own() -> None:
    """It holds this benchmark's aims and rows only, and the other sections stay as they are."""
    run = some_results()
    run.reports.append(Report("line", "Line", values={"to_bare": 0.5}))
    run.reports[-1].add("append, by line", "ms", [2.0, 2.0])

    page = fill_one(MARKED + "<!-- line: begin -->\n<!-- line: end -->\n", "line", [run])

    assert page.startswith(MARKED)
    section = page.removeprefix(MARKED)
    assert "| by a line: a durable append, of a bare Ray actor call | ≤ 0.4 × | 0.5 × | **missed** |" in section
    assert "| append, by line | ms | 2 | 2–2 | – |" in section
    assert "activation" not in section


def test_a_failure_is_on_the_page() -> None:
    """With the run it happened in, where another run did not fail."""
    failed = some_results()
    failed.reports[0].failure = "it broke"

    assert "- (run 2) **Failed:** it broke" in fill(MARKED, [some_results(), failed])


def test_what_fits_follows_from_growth() -> None:
    """The fixed part is taken once, the rest by conversation."""
    found = capacity({10: 1300.0, 50: 2500.0, 200: 7000.0})

    assert (found["mib_each"], found["fixed_mib"]) == (30.0, 1000.0)
    assert found["fit_24_gib"] == pytest.approx((22 * 1024 - 1000) / 30)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04213, "0.0421"), (1.234, "1.23"), (45.67, "45.7"), (789.4, "789"), (12_345.6, "12,346"), (25.0, "25")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Enough to compare, no more than was measured."""
    assert number(value) == text


def test_a_part_is_told_as_a_quotient() -> None:
    """Quicker than the baseline reads as ÷, slower as ×, the interval in rising order."""
    assert multiple(Ratio(0.04, 0.02, 0.05)) == "÷ 25 (20–50)"
    assert multiple(Ratio(1.5, 1.2, 2.0)) == "× 1.50 (1.20–2)"


def test_interval_of_pairs() -> None:
    """Equal ratios leave no doubt, others do, by Student's t; the mean is that of factors, not of sums."""
    assert interval([1.1] * 8) == pytest.approx((1.1, 1.1, 1.1))
    middle, low, high = interval([0.5, 2.0] * 11)
    assert middle == pytest.approx(1.0)
    assert low == pytest.approx(1 / high)
    # 22 pairs: t for 20 degrees of freedom; deviation of the logarithms 0.7094
    assert high == pytest.approx(math.exp(2.086 * 0.70946 / math.sqrt(22)), rel=1e-3)


@pytest.mark.parametrize("way", list(Way))
async def test_figures_do_not_carry_a_wrong_name(way: Way) -> None:
    """An owner that is reached otherwise than the row says is an error, not a figure."""
    async with ConversationClient.local(name="reached") as client:
        handle = await client.open("reached")

        with pytest.raises(RuntimeError, match=f"reached by 'memory', not {way}"):
            await taken(handle, way, patience=0)


def test_the_relay_holds_what_it_carries() -> None:
    """Frames come out at the other end, both ways, in order, unchanged, and not sooner than they are held for."""
    seconds = 0.05
    with _Relay(seconds) as (left, right):
        for sender, receiver in ((left, right), (right, left)):
            began = time.monotonic()
            sender.send(b"one")
            sender.send(b"two" * 1000)

            assert [receiver.recv(9000), receiver.recv(9000)] == [b"one", b"two" * 1000]
            assert time.monotonic() - began >= seconds


class _Relay:
    """A relay between two sockets that keep frames apart, as interfaces do, in a thread of its own."""

    def __init__(self, seconds: float) -> None:
        (self._left, near), (self._right, far) = (socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in range(2))
        self._ends = (near, far)
        for end in self._ends:
            end.setblocking(False)
        self._until, self._end = os.pipe()
        self._thread = threading.Thread(target=carry, args=(self._ends, seconds), kwargs={"until": self._until})

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        self._thread.start()
        return self._left, self._right

    def __exit__(self, *_: object) -> None:
        os.close(self._end)  # the other end is readable now
        self._thread.join()
        os.close(self._until)
        for used in (self._left, self._right, *self._ends):
            used.close()


def test_payload_is_counted_both_ways() -> None:
    """What a connection carries is in its counters once the other side has it; a connection at rest adds nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        there, _ = server.accept()
        with there:
            before = counted(here)
            here.sendall(bytes(1000))
            there.sendall(bytes(234))

            wait_for(lambda: counted(here)["bytes"] - before["bytes"] == 1234, "both to be counted")
            assert counted(here)["segments"] > before["segments"]


async def test_nobody_waits_for_an_actor_that_has_ended(tmp_path: Path) -> None:
    """A call is answered when all of its answer is there, in however many pieces; else it fails with the connection."""

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = await reader.readexactly(254)
        writer.write(message[:100])
        await writer.drain()
        writer.write(message[100:])
        await reader.readexactly(254)
        writer.close()

    path = str(tmp_path / "actor")
    async with await asyncio.start_unix_server(answer_one, path):
        _, caller = await asyncio.get_running_loop().create_unix_connection(Caller, path)
        call = caller.ask(b"e")

        await call()
        with pytest.raises(ConnectionResetError):
            await call()
