"""What durability costs: an acknowledged append beside a bare Ray actor call, interleaved in one run.

Absolute times say more about the machine than about the code; read the ratios. Starts its own Ray and its
own Valkey, and needs nothing else.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from conversation_actors import ConversationClient, ConversationHandle, HistoryLimits, Message, Settings
from conversation_actors.store import EmbeddedServer

SIZES = (10, 100, 1000, 10_000)
TEXT = "x" * 200
BARE = "bare actor call"

Call = Callable[[], Awaitable[object]]


class Bare:
    """The cheapest thing an actor can do."""

    async def call(self, text: str) -> int:
        """Return the length of a message's text."""
        return len(text)


async def timed(call: Call) -> float:
    """Milliseconds until the call has its answer."""
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


async def filled(url: str, size: int) -> tuple[ConversationClient, ConversationHandle]:
    """A conversation whose history is at its bound of `size` items."""
    limits = HistoryLimits(items=size, bytes=64 << 20, item_bytes=1 << 16)
    client = ConversationClient(Settings(redis_url=url, history=limits, idle_timeout=timedelta(hours=1)))
    await client.__aenter__()
    conversation = await client.open(f"history-{size}")
    for _ in range(size):
        conversation.record(Message(role="user", content=TEXT))
    await conversation.flush()
    return client, conversation


async def interleaved(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Time each call once a round, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(await timed(call))
    return times


async def throughput(conversation: ConversationHandle, messages: int) -> dict[str, float]:
    """Durable messages per second by `record` and `flush`, and what `record` costs the event loop."""
    batch = [Message(role="user", content=TEXT) for _ in range(messages)]
    started = time.perf_counter()
    for message in batch:
        conversation.record(message)
    recorded = time.perf_counter()
    await conversation.flush()
    done = time.perf_counter()
    return {
        "messages": messages,
        "record_microseconds": (recorded - started) / messages * 1e6,
        "durable_messages_per_second": messages / (done - started),
    }


def figures(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """p50, p99 and the ratios of a run."""
    bare = statistics.median(times[BARE])
    flat = statistics.median(times[f"append at {SIZES[0]}"])
    rows = []
    for name, values in times.items():
        p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
        rows.append(
            {"call": name, "p50_ms": p50, "p99_ms": p99, "to_bare": p50 / bare, "to_smallest_history": p50 / flat}
        )
    return rows


async def measure(url: str, rounds: int) -> dict[str, Any]:
    """The whole benchmark."""
    bare = ray.remote(Bare).options(num_cpus=0, enable_task_events=False).remote()
    opened = [await filled(url, size) for size in SIZES]
    calls: dict[str, Call] = {BARE: lambda: bare.call.remote(TEXT)}
    for size, (_, conversation) in zip(SIZES, opened, strict=True):
        calls[f"append at {size}"] = lambda held=conversation: held.append(Message(role="user", content=TEXT))
    await interleaved(calls, max(rounds // 10, 5))
    times = await interleaved(calls, rounds)
    batched = await throughput(opened[1][1], rounds * 20)
    for client, _ in opened:
        await client.aclose()
    return {"rounds": rounds, "calls": figures(times), "batched": batched}


def show(result: dict[str, Any]) -> None:
    """Print the figures for people."""
    table = Table(title=f"One durable append, {result['rounds']} rounds, 200-byte messages")
    for heading in ("", "p50 ms", "p99 ms", "× bare call", f"× history of {SIZES[0]}"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in result["calls"]:
        numbers = (row["p50_ms"], row["p99_ms"], row["to_bare"], row["to_smallest_history"])
        table.add_row(row["call"], *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(table)
    batched = result["batched"]
    console.print(
        f"batched: {batched['durable_messages_per_second']:,.0f} durable messages/s; "
        f"record() takes {batched['record_microseconds']:.1f} µs of the event loop"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="100 rounds")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer(Path(directory)) as server:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            result = asyncio.run(measure(server.url, 100 if options.quick else options.rounds))
        finally:
            ray.shutdown()
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
