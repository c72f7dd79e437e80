"""Show results on a terminal."""

from rich.console import Console
from rich.table import Table

from benchmarks.aims import AIMS, Verdict
from benchmarks.results import Report, Results
from benchmarks.wording import measured, multiple, number, threshold

_COLOURS = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NOT_MEASURED: "dim"}


def show_report(console: Console, report: Report) -> None:
    """Print the rows, the notes and the failure of one benchmark."""
    caption = f"{report.seconds:.0f} s; baselines are the rows without a ratio; (95 % of resampled ratios)"
    table = Table(title=report.title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for heading in ("n", "p50", "p5", "p95", "p99", "unit"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    table.add_column("× baseline")
    for row in report.rows:
        found = row.spread
        figures = [number(value) for value in (found.median, found.p5, found.p95, found.p99)]
        compared = "" if row.ratio is None else multiple(row.ratio)
        table.add_row(row.label, str(found.count), *figures, row.unit, compared)
    console.print(table)
    for note in report.notes:
        console.print(f"  - {note}", markup=False)
    if report.failure is not None:
        console.print(f"  failed: {report.failure}", markup=False, style="red")
    console.print()


def show_aims(console: Console, results: Results) -> None:
    """Print every aim with what this run has measured for it and the verdict."""
    values = results.values
    table = Table(title="Aims", title_justify="left")
    for heading in ("what", "aim", "measured", ""):
        table.add_column(heading)
    for aim in AIMS:
        value = values.get(aim.value)
        verdict = aim.verdict(value)
        table.add_row(aim.text, threshold(aim), measured(aim, value), f"[{_COLOURS[verdict]}]{verdict}[/]")
    console.print(table)
