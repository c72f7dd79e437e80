"""The project's aims, and how measured numbers compare with them.

The thresholds were written down before what they judge was measured, and are not moved to meet a result.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Bound(StrEnum):
    """The side of the threshold that meets the aim. The threshold itself meets it too."""

    AT_LEAST = ">="
    AT_MOST = "<="


class Verdict(StrEnum):
    """What a run says about an aim."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Aim:
    """A threshold for one number of a report. `value` is the number's name, as `benchmark.name`."""

    text: str
    value: str
    bound: Bound
    threshold: float
    unit: str

    def verdict(self, measured: float | None) -> Verdict:
        """Compare a measured number with the threshold, without rounding."""
        if measured is None or measured != measured:  # noqa: PLR0124  # not a number is no measurement
            return Verdict.NOT_MEASURED
        is_met = measured >= self.threshold if self.bound is Bound.AT_LEAST else measured <= self.threshold
        return Verdict.MET if is_met else Verdict.MISSED


AIMS = (
    Aim("activation from the pool, times quicker than plain Ray", "activation.warm_speedup", Bound.AT_LEAST, 25, "×"),
    Aim("activation from the pool, p50", "activation.warm_ms", Bound.AT_MOST, 25, "ms"),
    Aim("activation by a fork, times quicker than plain Ray", "activation.forked_speedup", Bound.AT_LEAST, 8, "×"),
    Aim("conversations opened at once, rate over plain Ray's", "burst.speedup", Bound.AT_LEAST, 10, "×"),
    Aim("memory (PSS) of a live conversation, of plain Ray's", "memory.to_plain", Bound.AT_MOST, 0.4, "×"),
    Aim("SIGKILL of the owner to next acknowledged append, times quicker than plain Ray", "recovery.speedup",
        Bound.AT_LEAST, 20, "×"),
    Aim("the same, p50", "recovery.warm_ms", Bound.AT_MOST, 100, "ms"),
    Aim("a durable append, of a bare Ray actor call", "append.to_bare", Bound.AT_MOST, 1.3, "×"),
    Aim("durable messages per second on one conversation, batched", "append.batched", Bound.AT_LEAST, 30_000, "/s"),
    Aim("record(), cost for the event loop", "record.record_us", Bound.AT_MOST, 10, "µs"),
    Aim("a local read (the slowest of items, participants, attributes)", "record.read_us", Bound.AT_MOST, 1, "µs"),
    Aim("append at a history of 10,000 items, of one at 10", "flatness.append_to_smallest", Bound.AT_MOST, 1.10, "×"),
    Aim("live conversations on a 24 GiB machine, by PSS", "memory.fit_24_gib", Bound.AT_LEAST, 500, ""),
    Aim("by a line: a durable append, of a bare Ray actor call", "line.to_bare", Bound.AT_MOST, 0.4, "×"),
    Aim("by a line: a durable append, of one Redis pipeline", "line.to_pipeline", Bound.AT_MOST, 2, "×"),
    Aim("by a line: a durable append, of openai-agents' RedisSession", "line.to_session", Bound.AT_MOST, 1, "×"),
    Aim("by a line: an append seen by another process, p50", "line.seen_ms", Bound.AT_MOST, 1.5, "ms"),
    Aim("by a line: messages per second of 32 callers, over those by Ray's calls", "line.callers_to_calls",
        Bound.AT_LEAST, 2, "×"),
    Aim("by a line: durable messages per second, record and flush", "line.batched", Bound.AT_LEAST, 60_000, "/s"),
    Aim("by a line: SIGKILL of the owner to next acknowledged append, from the pool, p50", "line.recovery_ms",
        Bound.AT_MOST, 50, "ms"),
    Aim("history of a sleeping conversation, open(wait=False), p50", "line.history_ms", Bound.AT_MOST, 5, "ms"),
    Aim("an idle line from another host: payload, with its questions for a sign of life",
        "line.idle_bytes_per_s", Bound.AT_MOST, 2, "bytes/s"),
    Aim("with an archive: a durable append, of one without, upper end of the 95 % interval", "archive.append_high",
        Bound.AT_MOST, 1.10, "×"),
    Aim("archived after its acknowledgement, at 500 items/s, p95", "archive.lag_p95_s", Bound.AT_MOST, 1, "s"),
    Aim("an archiver catching up, into PostgreSQL", "archive.catching_up_postgresql", Bound.AT_LEAST, 5000, "items/s"),
    Aim("an archiver catching up, into SQLite", "archive.catching_up_sqlite", Bound.AT_LEAST, 5000, "items/s"),
    Aim("first page of a history, the slower of both ends, p50", "archive.page_ms", Bound.AT_MOST, 10, "ms"),
    Aim("opening from the archive, over opening from Redis, 200 items", "archive.open_to_redis", Bound.AT_MOST, 2, "×"),
    Aim("webhooks delivered beside 20 live calls", "webhooks.delivered_per_s", Bound.AT_LEAST, 200, "/s"),
    Aim("the same, from what happened to its arrival, p95", "webhooks.lag_p95_s", Bound.AT_MOST, 1, "s"),
)  # fmt: skip


def judged(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return every aim with the measured number and the verdict, for the JSON document."""
    return [
        {**asdict(aim), "measured": values.get(aim.value), "verdict": aim.verdict(values.get(aim.value))}
        for aim in AIMS
    ]
