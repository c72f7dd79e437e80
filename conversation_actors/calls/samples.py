"""Measures of turns: all of them of a call that is not too long, an even sample of a longer one."""

import math
from dataclasses import dataclass, field
from statistics import median

from conversation_actors.calls.record import SessionLatency

MOST_VALUES = 512
_DIGITS = 4


@dataclass(slots=True)
class Sample:
    """Every `stride`-th of the values that came, in their order."""

    count: int = 0
    stride: int = 1
    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Take one value; seconds."""
        if self.count % self.stride == 0 and len(self.values) == MOST_VALUES:
            self.values = self.values[::2]
            self.stride *= 2
        if self.count % self.stride == 0:
            self.values.append(round(value, _DIGITS))
        self.count += 1

    def figures(self) -> SessionLatency:
        """Return what the record says of a sample that is not empty."""
        ordered = sorted(self.values)
        p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
        middle = round(median(ordered), _DIGITS)
        return SessionLatency(turns=self.count, median=middle, p95=p95, values=tuple(self.values))
