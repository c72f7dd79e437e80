"""Write numbers as people read them, in the same way on the terminal and on the page."""

from benchmarks.aims import Aim
from benchmarks.figures import Ratio

_MANY = 1000
_SOME = 100
_FEW = 10


def number(value: float) -> str:
    """Return a number with three significant digits, but all digits before the point: 0.0421, 1.23, 45.6, 12,345.

    Whole numbers get no decimals.
    """
    size = abs(value)
    if size >= _SOME or value == int(value):
        return f"{value:,.0f}"
    if size >= _FEW:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def multiple(compared: Ratio) -> str:
    """Return `× 1.3` for more than the baseline or `÷ 28` for a 28th of it, with the interval."""
    if compared.value >= 1 or compared.low <= 0:
        return f"× {number(compared.value)} ({number(compared.low)}–{number(compared.high)})"
    return f"÷ {number(1 / compared.value)} ({number(1 / compared.high)}–{number(1 / compared.low)})"


def threshold(aim: Aim) -> str:
    """Return an aim's threshold, such as `≥ 25 ×`."""
    sign = "≥" if aim.bound == ">=" else "≤"
    return f"{sign} {number(aim.threshold)} {aim.unit}".rstrip()


def measured(aim: Aim, value: float | None) -> str:
    """Return the measured number as it is shown beside an aim. The verdict comes from the exact number."""
    return "–" if value is None else f"{number(value)} {aim.unit}".rstrip()
