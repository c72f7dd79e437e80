"""Draw the curves of results with matplotlib, if that is installed."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.results import Plot, Results

_FEW_POINTS = 10
"""The most points of a curve that are marked one by one."""


def draw(results: Results, directory: Path) -> list[Path]:
    """Write one PNG for each plot, and return the paths. Raises `ImportError` if matplotlib is not installed."""
    import matplotlib as mpl  # noqa: PLC0415  # an extra

    mpl.use("Agg")  # needs no display
    directory.mkdir(parents=True, exist_ok=True)
    return [_draw(plot, directory) for plot in _plots(results)]


def _plots(results: Results) -> Iterable[Plot]:
    return (plot for report in results.reports for plot in report.plots)


def _draw(plot: Plot, directory: Path) -> Path:
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for curve in plot.curves:
        xs, middles, lows, highs = ([point[place] for point in curve.points] for place in range(4))
        axes.plot(xs, middles, label=curve.label, marker="o" if len(xs) <= _FEW_POINTS else None, linewidth=1.6)
        axes.fill_between(xs, lows, highs, alpha=0.18)
    if "x" in plot.logarithmic:
        axes.set_xscale("log" if all(point[0] > 0 for curve in plot.curves for point in curve.points) else "symlog")
    if "y" in plot.logarithmic:
        axes.set_yscale("log")
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    path = directory / f"{plot.name}.png"
    figure.savefig(path, dpi=130)
    return path
