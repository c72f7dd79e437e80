"""The clock that durations are measured by, where something depends on how long they were."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""Linux's CLOCK_MONOTONIC, which `time.monotonic` reads, stands still in a suspended machine; macOS's does not."""


def uptime() -> float:
    """Seconds on a clock that nobody sets, and that goes on while this machine, or a virtual one, is suspended."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
