"""The clock for durations that something depends on."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The first of these clocks that the system has. Linux's CLOCK_MONOTONIC, which `time.monotonic` reads, stops while the
machine is suspended; macOS's does not."""


def uptime() -> float:
    """Return seconds on a clock that nobody sets and that goes on while this machine, real or virtual, is suspended."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
