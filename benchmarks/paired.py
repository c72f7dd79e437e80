"""Two checkouts side by side: whether a change made appends or recoveries slower.

Each checkout has its own Ray cluster, Redis and client, all running at once; they are measured in turn, block by
block, so that a busy moment of the machine meets both. What is told is the ratio of each pair of blocks, after by
before, as its geometric mean with the 95 % interval of Student's t over the pairs.

    .venv/bin/python -m benchmarks.paired PATH-OF-THE-OTHER-CHECKOUT      # about 10 minutes on two cores
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
_STUDENT_95 = {5: 2.571, 10: 2.228, 15: 2.131, 20: 2.086, 30: 2.042, 40: 2.021, 60: 2.0}
"""Two-sided quantiles of Student's t by degrees of freedom. For degrees between two of them, the larger quantile is
used."""
WHAT = ("append", "recovery")
APPENDS = 100
"""The number of appends in one block; each recovery is a block of its own."""


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return the geometric mean of ratios and the ends of its 95 % interval.

    Raises `ValueError` for fewer than six ratios.
    """
    logs = [math.log(ratio) for ratio in ratios]
    degrees = max(known for known in _STUDENT_95 if known < len(logs))
    half = _STUDENT_95[degrees] * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


class Side:
    """One checkout: a process of this module with that checkout's packages, told line by line what to measure."""

    def __init__(self, checkout: Path) -> None:
        """Start the process, and wait until it is ready."""
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout,
        )  # fmt: skip
        self.ask("ready")

    def ask(self, what: str) -> list[float]:
        """Have one block measured, and return its times in milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer: list[float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process and everything that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def compare(before: Side, after: Side, what: str, rounds: int) -> list[str]:
    """Measure blocks in turn, and return a line for the median and one for the 95th percentile.

    If a block has only one measurement, return one line for it.
    """
    pairs = []
    for number in range(rounds + 1):
        order = (before, after) if number % 2 else (after, before)
        blocks = {side: sorted(side.ask(what)) for side in order}
        if number:  # the first round only warms up
            pairs.append((blocks[before], blocks[after]))
    lines = []
    for name, place in (("p50", 0.5), ("p95", 0.95)) if len(pairs[0][0]) > 1 else (("each", 0.0),):
        picked = [(old[int(place * len(old))], new[int(place * len(new))]) for old, new in pairs]
        middle, low, high = interval([new / old for old, new in picked])
        medians = [statistics.median(values) for values in zip(*picked, strict=True)]
        lines.append(
            f"{what:9} {name:5} {medians[0]:8.2f} ms {medians[1]:8.2f} ms   {middle:5.3f}  ({low:5.3f} to {high:5.3f})"
        )
    return lines


async def serve() -> None:
    """Measure what is asked for on standard input, until the input ends."""
    from conversation_actors import ConversationClient, Message  # noqa: PLC0415  # the checkout's own
    from tests.support.observation import make_settings  # noqa: PLC0415
    from tests.support.ray_cluster import RayCluster  # noqa: PLC0415
    from tests.support.servers import Server, newest  # noqa: PLC0415

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray reports each dead worker on standard output
    binary = newest()
    if binary is None:
        message = "no Redis or Valkey server found"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory() as directory, Server(binary, Path(directory)) as redis, RayCluster() as cluster:
        cluster.join()
        async with ConversationClient(make_settings(redis.url, cluster.address)) as client:
            handle = await client.open("paired")

            async def append() -> float:
                message = Message(role="user", content="x" * 200)
                began = time.perf_counter()
                await handle.append(message)
                return (time.perf_counter() - began) * 1000

            async def recover() -> float:
                pid = (await handle.info()).pid
                began = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                await handle.append(Message(role="user", content="after"))
                return (time.perf_counter() - began) * 1000

            while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
                measured: list[float] = []
                if what == "append":
                    measured = [await append() for _ in range(APPENDS)]
                elif what == "recovery":
                    await asyncio.sleep(1.0)  # the pool gets its workers back
                    measured = [await recover()]
                print(json.dumps(measured), file=answers, flush=True)


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, help="the other checkout")
    parser.add_argument("--only", choices=WHAT, help="this one")
    parser.add_argument("--rounds", type=int, default=61, help="pairs of each kind (default: 61)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen: Any = parser.parse_args()
    if chosen.serve:
        asyncio.run(serve())
        return
    if chosen.before is None:
        parser.error("name the other checkout")
    with contextlib.ExitStack() as stack:
        before, after = Side(chosen.before.resolve()), Side(HERE)
        stack.callback(before.close)
        stack.callback(after.close)
        print(f"{'':15} {'before':>11} {'after':>11}   ratio  (95 % interval), {chosen.rounds} pairs")
        for what in [chosen.only] if chosen.only else WHAT:
            for line in compare(before, after, what, chosen.rounds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
