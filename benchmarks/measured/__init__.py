"""The benchmarks. Each module has both sides: `measure`, which the suite runs, and the commands for its drivers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks.measured import (
    activation,
    append,
    archive,
    burst,
    flatness,
    line,
    memory,
    passivation,
    record,
    recovery,
    webhooks,
)
from benchmarks.results import Report
from benchmarks.stage import Stage

MEASURED: Mapping[str, Callable[[Stage], Report]] = MappingProxyType(
    {
        "record": record.measure,
        "append": append.measure,
        "line": line.measure,
        "archive": archive.measure,
        "webhooks": webhooks.measure,
        "flatness": flatness.measure,
        "activation": activation.measure,
        "recovery": recovery.measure,
        "burst": burst.measure,
        "passivation": passivation.measure,
        "memory": memory.measure,
    }
)
"""The benchmarks by name, in the order in which they run."""
