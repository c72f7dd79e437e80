"""The benchmark suite: starts everything it needs on this machine, measures, and ends it again.

python -m benchmarks                      everything, about 37 minutes on two cores
python -m benchmarks --quick              the same with fewer rounds, about 7 minutes
python -m benchmarks --only append        one of them; may be repeated
python -m benchmarks --page a.json b.json write the results of earlier runs into README.md; with --only, one's section
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.aims import judged
from benchmarks.measured import MEASURED
from benchmarks.page import PAGE, fill, fill_one
from benchmarks.plots import draw
from benchmarks.results import Report, Results, new_results
from benchmarks.stage import Signals, Stage
from benchmarks.terminal import show_aims, show_report

OUTPUT = Path(__file__).parents[1] / "build" / "benchmarks"
WIDTH = 140
"""The width of tables in a log; a terminal knows its own."""


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", action="append", choices=list(MEASURED), help="this benchmark; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, instead of tables")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory for results.json and plots")
    parser.add_argument(
        "--modules-redis", metavar="URL", help="a Redis with the modules JSON and search, for langgraph"
    )
    parser.add_argument(
        "--page", nargs="+", type=Path, metavar="JSON", help="measure nothing: write results into README.md"
    )
    return parser.parse_args(arguments)


def measure(name: str, stage: Stage) -> Report:
    """Run one benchmark. If it fails, return a report that says so, so that the others go on."""
    began = time.monotonic()
    try:
        report = MEASURED[name](stage)
    except Exception as error:  # noqa: BLE001  # whatever it was, the report tells it
        report = Report(name, name, failure=f"{type(error).__name__}: {error}")
    report.seconds = round(time.monotonic() - began, 1)
    return report


def run(chosen: argparse.Namespace, console: Console) -> Results:
    """Run the chosen benchmarks one after the other, and keep the results after each of them."""
    results = new_results(is_quick=chosen.quick)
    for name in chosen.only or MEASURED:
        with console.status(name) as status:

            def tell(what: str, name: str = name, show: Callable[[str], None] = status.update) -> None:
                show(f"{name}: {what}")

            report = measure(name, Stage(chosen.quick, tell, chosen.modules_redis))
        results.reports.append(report)
        write(results, chosen.output)  # a later failure must not lose what was measured
        show_report(console, report)
    return results


def write(results: Results, directory: Path) -> Path:
    """Write the results as JSON into the directory, and return the file's path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "results.json"
    path.write_text(json.dumps(document(results), indent=1), encoding="utf-8")
    return path


def document(results: Results) -> dict[str, object]:
    """Return the results and what they say about the aims, as a JSON document."""
    return {**results.as_json(), "aims": judged(results.values)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and return its exit code: 0, or 1 if a benchmark failed, or 130 after Ctrl-C.

    A missed aim is a result, not a failure.
    """
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=chosen.json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=chosen.json, highlight=False, width=WIDTH)
    if chosen.page:
        text, runs = PAGE.read_text(encoding="utf-8"), [Results.read(path) for path in chosen.page]
        for name in chosen.only or ():
            text = fill_one(text, name, runs)
        PAGE.write_text(text if chosen.only else fill(text, runs), encoding="utf-8")
        console.print(f"written: {PAGE}")
        return 0
    try:
        with Signals():
            results = run(chosen, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is ended")
        return 130
    show_aims(console, results)
    console.print(f"results: {write(results, chosen.output)}")
    try:
        for path in draw(results, chosen.output):
            console.print(f"plot: {path}")
    except ImportError:
        console.print("no plots: matplotlib is not installed (`pip install '.[bench]'`)", markup=False)
    if chosen.json:
        print(json.dumps(document(results)))
    return int(any(report.failure is not None for report in results.reports))


if __name__ == "__main__":
    sys.exit(main())
