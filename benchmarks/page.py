"""Write the tables of README.md beside this file, between markers, with the results of several runs side by side.

python -m benchmarks --page first.json second.json              all sections
python -m benchmarks --only line --page first.json second.json  the section of this benchmark
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.aims import AIMS, Aim, Verdict
from benchmarks.results import Report, Results, Row
from benchmarks.wording import measured, multiple, number, threshold

PAGE = Path(__file__).with_name("README.md")
SECTIONS = ("runs", "aims", "results")


def fill(text: str, runs: Sequence[Results]) -> str:
    """Return the page's text with its sections written anew. Raises `ValueError` if a marker is missing."""
    written = {"runs": _runs(runs), "aims": _aims(runs, AIMS), "results": _results(runs)}
    for section in SECTIONS:
        text = _replaced(text, section, written[section])
    return text


def fill_one(text: str, name: str, runs: Sequence[Results]) -> str:
    """Return the page's text with the section of one benchmark written anew: its runs, its aims and its rows.

    Raises `ValueError` if the page has no markers for it.
    """
    aims = [aim for aim in AIMS if aim.value.startswith(f"{name}.")]
    alone = [replace(run, reports=[report for report in run.reports if report.name == name]) for run in runs]
    return _replaced(text, name, "\n\n".join([_runs(alone), _aims(alone, aims), _results(alone)]))


def _replaced(text: str, section: str, body: str) -> str:
    pattern = re.compile(rf"(<!-- {section}: begin -->\n).*?(<!-- {section}: end -->)", re.DOTALL)
    if not pattern.search(text):
        message = f"the page has no markers for {section!r}"
        raise ValueError(message)
    return pattern.sub(lambda found: f"{found[1]}\n{body}\n\n{found[2]}", text)


def _runs(runs: Sequence[Results]) -> str:
    lines = ["| run | when | how | machine | load before | Python, Ray, redis-py | minutes |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for place, run in enumerate(runs, 1):
        machine, minutes = run.machine, sum(report.seconds for report in run.reports) / 60
        lines.append(
            f"| {place} | {run.made_at} | {'quick' if run.is_quick else 'full'} | {machine.get('system')}, "
            f"{machine.get('cpus')} CPUs, {machine.get('memory_gib')} GiB | {machine.get('load')} | "
            f"{machine.get('python')}, {machine.get('ray')}, {machine.get('redis')} | {number(minutes)} |"
        )
    return "\n".join(lines)


def _aims(runs: Sequence[Results], aims: Sequence[Aim]) -> str:
    headings = [f"run {place} | " for place, _ in enumerate(runs, 1)]
    lines = [f"| what | aim | {' | '.join(headings)} |", f"| --- | --- |{' ---: | --- |' * len(runs)}"]
    for aim in aims:
        cells = []
        for run in runs:
            value = run.values.get(aim.value)
            verdict = aim.verdict(value)
            told = f"**{verdict}**" if verdict is Verdict.MISSED else str(verdict)
            cells.append(f"{measured(aim, value)} | {told}")
        lines.append(f"| {aim.text} | {threshold(aim)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _results(runs: Sequence[Results]) -> str:
    titles = {report.name: report.title for run in runs for report in run.reports}
    return "\n\n".join(_benchmark(name, title, runs) for name, title in titles.items())


def _benchmark(name: str, title: str, runs: Sequence[Results]) -> str:
    found = [next((report for report in run.reports if report.name == name), None) for run in runs]
    headings = [f"p50 of run {place} | p5–p95 | × baseline" for place, _ in enumerate(runs, 1)]
    lines = [f"### {title} (`{name}`)", ""]
    lines += [f"| what | unit | {' | '.join(headings)} |", f"| --- | --- |{' ---: | ---: | ---: |' * len(runs)}"]
    by_label = [{(row.label, row.unit): row for row in report.rows} if report else {} for report in found]
    for label, unit in {key: None for rows in by_label for key in rows}:
        lines.append(f"| {label} | {unit} | {' | '.join(_cells(rows.get((label, unit))) for rows in by_label)} |")
    return "\n".join([*lines, "", *_remarks(found)]).rstrip()


def _cells(row: Row | None) -> str:
    if row is None:
        return "– | – | –"
    compared = "–" if row.ratio is None else multiple(row.ratio)
    return f"{number(row.spread.median)} | {number(row.spread.p5)}–{number(row.spread.p95)} | {compared}"


def _remarks(reports: Sequence[Report | None]) -> list[str]:
    """Return the notes and failures. One that all runs share comes once, any other with the numbers of its runs."""
    notes: dict[str, list[int]] = {}
    for place, report in enumerate(reports, 1):
        for note in [] if report is None else report.notes:
            notes.setdefault(note, []).append(place)
        if report is not None and report.failure is not None:
            notes.setdefault(f"**Failed:** {report.failure}", []).append(place)
    count = sum(report is not None for report in reports)
    return [
        f"- {note}" if len(places) == count else f"- (run {', '.join(map(str, places))}) {note}"
        for note, places in notes.items()
    ]
