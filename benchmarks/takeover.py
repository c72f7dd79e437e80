"""How long a caller hears nothing when the agent dies, beside how long any dispatch of an agent takes.

Real processes on one machine: LiveKit's server, a worker, Ray, Redis, the offline models, a caller who listens.
The baseline is the dispatch of an agent into a room that has none, to its first audible frame at the caller.

    .venv/bin/python -m benchmarks.takeover --rounds 10      # needs `make livekit-server`

With ``--livekit-cli`` the agent is started by LiveKit's own command line, and ``agent_worker watch`` follows it.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conversation_actors import Settings
from tests.e2e import application
from tests.e2e.calls import UTTERANCE, agent_of, identity_of
from tests.support.caller import Caller
from tests.support.livekit_server import LiveKitServer, livekit_server_missing
from tests.support.observation import make_settings
from tests.support.programs import Program
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server, newest, wait_for
from tests.support.workers import OfflineModels, WorkerProcess

REST_SECONDS = 4.0
"""The pause after a dispatch and after a round, in which the worker gets another job process ready."""
AGENT = f"agent-{secrets.token_hex(4)}"

Figures = dict[str, list[float]]


async def one_round(server: LiveKitServer, settings: Settings, figures: Figures, *, how: signal.Signals) -> None:
    """Dispatch an agent, hear it, end it with the signal `how`, and hear its successor. Add the times to `figures`."""
    room = f"round-{secrets.token_hex(4)}"
    async with Caller(server, room=room) as caller:
        asked = time.monotonic()
        await server.create_dispatch(AGENT, room)
        first = await caller.wait_agent(UTTERANCE)
        figures["dispatch, to joined"].append(first.joined - asked)
        figures["dispatch, to audible"].append(await caller.wait_audible(asked, UTTERANCE) - asked)
        holder, pid = await agent_of(settings, room)
        await asyncio.sleep(REST_SECONDS)
        ended = time.monotonic()
        os.kill(pid, how)
        try:
            successor = await caller.wait_agent(UTTERANCE, other_than={identity_of(holder)})
            audible = await caller.wait_audible(ended, UTTERANCE, identity=successor.identity)
        finally:
            if how is signal.SIGSTOP:
                os.kill(pid, signal.SIGKILL)
        figures[f"{how.name}, to joined"].append(successor.joined - ended)
        figures[f"{how.name}, to audible"].append(audible - ended)
    await server.delete_room(room)
    await asyncio.sleep(REST_SECONDS)


def start(running: ExitStack, directory: Path, environment: dict[str, str], *, livekit_cli: bool) -> None:
    """Start the worker that takes the calls and, with `livekit_cli`, the watcher that follows them.

    Wait until the worker takes calls and the watcher watches.
    """
    if not livekit_cli:
        running.enter_context(WorkerProcess(directory / "worker", environment))
        return
    told = {application.NAME: AGENT, application.NOTES: str(directory / "notes"), **environment}
    watcher = Program(directory / "watcher", environment, "-m", "agent_worker", "watch")
    running.callback(watcher.stop)
    watcher.launch()
    running.enter_context(Program(directory / "worker", told, application.__file__, "start"))
    wait_for(lambda: "health url=" in watcher.log(), "the watcher to watch", patience=90)


async def measure(rounds: int, *, livekit_cli: bool = False) -> Figures:
    """Measure rounds of both kinds of death in turn. Raises `SystemExit` if a server is missing."""
    figures: Figures = defaultdict(list)
    binary = newest()
    if (missing := livekit_server_missing() or (None if binary else "no Redis or Valkey server found")) is not None:
        raise SystemExit(missing)
    assert binary is not None
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            LiveKitServer(directory / "livekit") as server,
            Server(binary, directory / "redis") as redis,
            RayCluster() as cluster,
            OfflineModels(directory) as models,
        ):
            settings = make_settings(redis.url, cluster.address)
            environment = program_environment(
                **server.env,
                **models.environment,
                CONVERSATION_REDIS_URL=redis.url,
                RAY_ADDRESS=cluster.address,
                LIVEKIT_AGENT_NAME=AGENT,
            )
            with ExitStack() as running:
                start(running, directory, environment, livekit_cli=livekit_cli)
                for _ in range(rounds):
                    await one_round(server, settings, figures, how=signal.SIGKILL)
                    await one_round(server, settings, figures, how=signal.SIGSTOP)
    return figures


def summary(values: list[float]) -> dict[str, Any]:
    """Return the median, the 95th percentile, the smallest and the largest value, and how many there are."""
    ordered = sorted(values)
    slow = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {
        "p50": statistics.median(ordered),
        "p95": slow,
        "min": ordered[0],
        "max": ordered[-1],
        "rounds": len(ordered),
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="of each kind of death (default: 10)")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument(
        "--livekit-cli", action="store_true", help="agents of LiveKit's own command line, and a watcher"
    )
    chosen = parser.parse_args()
    figures = asyncio.run(measure(chosen.rounds, livekit_cli=chosen.livekit_cli))
    told = {what: summary(values) for what, values in figures.items()}
    if chosen.json:
        print(json.dumps(told))
        return
    baseline = told["dispatch, to audible"]["p50"]
    print(f"{'seconds':24} {'p50':>6} {'p95':>6} {'min':>6} {'max':>6}   × a dispatch")
    for what, one in told.items():
        numbers = " ".join(f"{one[name]:6.2f}" for name in ("p50", "p95", "min", "max"))
        print(f"{what:24} {numbers}   {one['p50'] / baseline:.2f}")


if __name__ == "__main__":
    main()
