"""Summarise lists of measurements: the median, the spread, and how the median compares with another list's."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 400
_SEED = 20_240_229
"""The seed of the resampling, so that the same measurements give the same interval."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A summary of measurements of one thing.

    `p5` and `p95` bound the usual ones. Of fewer than 20 measurements they are nearly the smallest and the largest.
    """

    count: int
    median: float
    mean: float
    p5: float
    p95: float
    p99: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One median divided by another, with the interval in which 95 % of the resampled ratios lie."""

    value: float
    low: float
    high: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of sorted measurements lie, interpolated between two of them."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(values: Sequence[float]) -> Spread:
    """Return a summary of the values. Raises `ValueError` if there are none."""
    if not values:
        message = "nothing was measured"
        raise ValueError(message)
    ordered = sorted(values)
    p5, median, p95, p99 = (percentile(ordered, share) for share in (0.05, 0.5, 0.95, 0.99))
    return Spread(len(ordered), median, statistics.fmean(ordered), p5, p95, p99, ordered[0], ordered[-1])


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Return the median of `values` as a multiple of the baseline's median.

    The interval is a bootstrap's: both lists are drawn anew, with repeats, and their medians are divided. It tells what
    another run of the same length might have shown, not what another machine would show.
    """
    draw = random.Random(_SEED)  # noqa: S311  # statistics, no secret
    divided = sorted(_resampled(values, draw) / _resampled(baseline, draw) for _ in range(_RESAMPLES))
    value = statistics.median(values) / statistics.median(baseline)
    return Ratio(value, percentile(divided, 0.025), percentile(divided, 0.975))


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return points of the distribution: a measurement, and the share (0 to 1) of all measurements up to it."""
    ordered = sorted(values)
    return [(percentile(ordered, step / 100), step / 100) for step in range(101)]


def _resampled(values: Sequence[float], draw: random.Random) -> float:
    return statistics.median(draw.choices(values, k=len(values)))
