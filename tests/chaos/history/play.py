"""One history from its seed to the checker's findings: a server, clients, a witness and a nemesis on a Ray cluster."""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray

from conversation_actors import ConversationClient, Settings
from conversation_actors.runtime import actor_name
from conversation_actors.runtime.cluster import NAMESPACE
from tests.chaos.history.checker import check
from tests.chaos.history.client import LAST_SECONDS
from tests.chaos.history.nemesis import Nemesis
from tests.chaos.history.record import Recorder, read
from tests.chaos.history.server import HistoryServer
from tests.chaos.history.witness import Witness
from tests.cluster.observation import make_settings
from tests.ray_cluster import RayCluster, program_environment, sigkill
from tests.servers import newest

TIMEOUTS = {"command": 6.0, "write": 1.0, "redis": 0.5, "attempt": 2.0, "poll": 2.0, "open": 10.0, "close": 2.0}
"""Seconds; short, so that much happens in a minute."""
CLIENTS = 3
CONVERSATIONS = 3


@dataclass(frozen=True)
class Report:
    """What one history was, and what is wrong with it."""

    seed: int
    seconds: float
    faults: Counter[str]
    figures: Counter[str]
    violations: list[str]

    def __str__(self) -> str:
        """Show all figures in three lines, and the violations."""
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        figures = ", ".join(f"{name} {count}" for name, count in self.figures.items())
        wrong = "".join(f"\n    {violation}" for violation in self.violations[:20])
        return (
            f"seed {self.seed}, {self.seconds:.0f} s: {figures}\n"
            f"  faults: {faults}\n  violations: {len(self.violations)}{wrong}"
        )


class Clients:
    """The client processes of one history; who is killed is followed by another."""

    def __init__(self, directory: Path, settings: Settings, conversations: list[str], *, dice: random.Random) -> None:
        """Nothing runs before `start`."""
        self._directory, self._conversations, self._dice = directory, conversations, dice
        self._environment = _environment(settings)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._count = 0

    def start(self, python_path: str = "") -> None:
        """Start another one."""
        if python_path:
            self._environment["PYTHONPATH"] = python_path
        self._count += 1
        name = f"client-{self._count}"
        command = [sys.executable, "-m", "tests.chaos.history.client", str(self._directory), name]
        with (self._directory / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*command, str(self._dice.random()), *self._conversations],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, cwd=self._directory,
            )  # fmt: skip

    def replace_one(self) -> None:
        """SIGKILL one, and start another."""
        name = self._dice.choice(sorted(self._running))
        sigkill(self._running.pop(name).pid)
        self.start()

    def awake_since(self) -> float:
        """When the one that was awake longest ago was awake."""
        return min(_last_seen(self._directory / f"{name}.jsonl") for name in self._running)

    async def finish(self) -> list[str]:
        """Have all of them end what they have begun; tell who did not."""
        (self._directory / "stop").touch()
        deadline = time.monotonic() + LAST_SECONDS + 20
        wrong = []
        for name, process in self._running.items():
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            if process.returncode != 0:
                wrong.append(f"{name} did not end well ({process.returncode}), see {self._directory / name}.log")
        return wrong

    def kill(self) -> None:
        """End all that run."""
        for process in self._running.values():
            sigkill(process.pid)
            process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    timeouts = {f"CONVERSATION_TIMEOUT_{name.upper()}": str(seconds) for name, seconds in TIMEOUTS.items()}
    return program_environment(
        CONVERSATION_REDIS_URL=settings.require_redis_url(),
        RAY_ADDRESS=str(settings.ray_address),
        CONVERSATION_HISTORY_ITEMS=str(settings.history.items),
        CONVERSATION_HISTORY_BYTES=str(settings.history.bytes),
        **timeouts,
    )


def _last_seen(path: Path) -> float:
    """When a process wrote its last whole line."""
    with suppress(FileNotFoundError, IndexError, ValueError):
        return float(path.read_text().splitlines()[-1].partition('"at": ')[2].partition(",")[0].rstrip("}"))
    return 0.0


async def play(
    cluster: RayCluster, directory: Path, *, seed: int, seconds: float,
    weights: dict[str, int] | None = None, python_path: str = "",
) -> Report:  # fmt: skip
    """Play one history, and judge it. The cluster is joined by this process."""
    binary = newest()
    assert binary is not None
    dice = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    lines = directory / "lines"
    lines.mkdir()
    conversations = [f"history-{seed}-{number}" for number in range(CONVERSATIONS)]
    recorder = Recorder(lines, "witness")
    started = time.monotonic()
    with HistoryServer(binary, directory) as server:
        settings = make_settings(server.url, cluster.address, timeouts=TIMEOUTS)
        clients = Clients(lines, settings, conversations, dice=random.Random(dice.random()))
        try:
            async with ConversationClient(settings) as client, Witness(client, recorder, conversations) as witness:
                for _ in range(CLIENTS):
                    clients.start(python_path)
                nemesis = Nemesis(
                    server, witness, recorder, dice=dice, kill_client=clients.replace_one,
                    awake_since=clients.awake_since, weights=weights,
                )  # fmt: skip
                await nemesis.rage(seconds)
                wrong = await clients.finish()
                await witness.finish()
        finally:
            clients.kill()
            _end_owners(conversations, settings)
            recorder.close()
    findings = check(read(lines))
    seconds = time.monotonic() - started
    return Report(seed, seconds, nemesis.counts, findings.figures, [*wrong, *findings.violations])


def _end_owners(conversations: list[str], settings: Settings) -> None:
    for conversation in conversations:
        with suppress(ValueError):
            ray.kill(ray.get_actor(actor_name(conversation, settings), namespace=NAMESPACE))
