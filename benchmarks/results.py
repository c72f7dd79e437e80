"""The results of a run: rows, curves and single numbers of each benchmark, as one JSON document."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import Ratio, Spread, distribution, ratio, spread

FORMAT = 1
"""The format number of the document, which is raised when the document's meaning changes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured repeatedly. `to` names the row that `ratio` compares it with."""

    label: str
    unit: str
    spread: Spread
    to: str | None = None
    ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a plot. Each point is x, y, and the two ends of y's spread."""

    label: str
    points: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one x axis. `logarithmic` names the axes that are logarithmic: "x", "y", "xy" or "" for none."""

    name: str
    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    logarithmic: str = ""


@dataclass(slots=True)
class Report:
    """The results of one benchmark. `values` holds the single numbers, some of which the aims are compared with."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failure: str | None = None

    def add(
        self, label: str, unit: str, values: Sequence[float], *, to: tuple[str, Sequence[float]] | None = None
    ) -> None:
        """Add a row. `to` is the label and the measurements of the row to compare it with."""
        compared = None if to is None else ratio(values, to[1])
        self.rows.append(Row(label, unit, spread(values), None if to is None else to[0], compared))

    def add_all(self, unit: str, measured: Mapping[str, Sequence[float]], *, to: str) -> None:
        """Add a row for each label that has measurements.

        Each other row is compared with the row called `to`, if that has measurements.
        """
        for label, values in measured.items():
            if values:
                is_compared = label != to and bool(measured.get(to))
                self.add(label, unit, values, to=(to, measured[to]) if is_compared else None)

    def median(self, label: str) -> float:
        """Return the median of the row with this label. Raises `KeyError` if there is none."""
        return {row.label: row.spread.median for row in self.rows}[label]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Make a report from what `asdict` returned for one."""
        rows = [
            Row(
                **{
                    **row,
                    "spread": Spread(**row["spread"]),
                    "ratio": None if row["ratio"] is None else Ratio(**row["ratio"]),
                }
            )
            for row in data["rows"]
        ]
        plots = [Plot(**{**plot, "curves": [Curve(**curve) for curve in plot["curves"]]}) for plot in data["plots"]]
        return cls(**{**data, "rows": rows, "plots": plots})


@dataclass(slots=True)
class Results:
    """One run of the suite, on one machine."""

    made_at: str
    is_quick: bool
    machine: dict[str, str | int | float]
    reports: list[Report] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """The single numbers of all benchmarks, each under `benchmark.name`."""
        return {f"{report.name}.{name}": value for report in self.reports for name, value in report.values.items()}

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Make results from a document. Raises `ValueError` if it has another format."""
        given = dict(data)
        if given.pop("format", None) != FORMAT:
            message = f"results of another format than {FORMAT}: measure anew"
            raise ValueError(message)
        given.pop("aims", None)
        return cls(**{**given, "reports": [Report.from_json(report) for report in given["reports"]]})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file that a run wrote into its `--output` directory."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


def new_results(*, is_quick: bool) -> Results:
    """Make empty results for this machine and this moment."""
    machine: dict[str, str | int | float] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("ray", "redis")},
    }
    return Results(datetime.now(UTC).isoformat(timespec="seconds"), is_quick, machine)


def curve(label: str, measured: Mapping[float, Sequence[float]]) -> Curve:
    """Return a curve of medians over x, with p5 and p95 as the ends of the spread."""
    points = []
    for x, values in sorted(measured.items()):
        if values:
            found = spread(values)
            points.append((x, found.median, found.p5, found.p95))
    return Curve(label, points)


def distribution_curve(label: str, values: Sequence[float]) -> Curve:
    """Return a curve of the share of measurements (y) that are at most x."""
    return Curve(label, [(value, share, share, share) for value, share in distribution(values)])
