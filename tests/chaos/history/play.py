"""One history from its seed to the checker's findings: a server, clients, a witness and a nemesis on a Ray cluster."""

import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray

from conversation_actors import ConversationClient, ConversationError, Settings
from conversation_actors.runtime import actor_name
from conversation_actors.runtime.cluster import NAMESPACE
from tests.chaos.history.checker import check
from tests.chaos.history.clients import CLIENTS, Clients
from tests.chaos.history.nemesis import FAULTS, Nemesis
from tests.chaos.history.record import Recorder, read
from tests.chaos.history.server import HistoryServer
from tests.chaos.history.witness import Witness
from tests.support.faketime import REMEDY, can_fake, libfaketime
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster
from tests.support.servers import BINARIES, newest

TIMEOUTS = {"command": 6.0, "write": 1.0, "redis": 0.5, "attempt": 2.0, "poll": 2.0, "open": 10.0, "close": 2.0}
"""Seconds; short, so that much happens in a minute."""
CONVERSATIONS = 3
ACKNOWLEDGED = 4
"""Operations in a second of a history, at least; an idle machine with two cores has some five times as many."""


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


async def play(
    cluster: RayCluster, directory: Path, *, seed: int, seconds: float,
    weights: dict[str, int] | None = None, operations: Mapping[str, int] | None = None, python_path: str = "",
) -> Report:  # fmt: skip
    """Play one history, and judge it. The cluster is joined by this process.

    `weights` are of faults and `operations` of what clients do, where they are not the usual ones. A machine that
    is too busy for `ACKNOWLEDGED` operations in each of the `seconds` gets more time.
    """
    library = libfaketime()
    assert library is not None, REMEDY
    binary = next(path for path in (newest(), *BINARIES.values()) if path is not None and can_fake(path, library))
    dice = random.Random(seed)
    lines = _directory_of_lines(directory)
    conversations = [f"history-{seed}-{number}" for number in range(CONVERSATIONS)]
    recorder = Recorder(lines, "witness")
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    started = time.monotonic()
    with HistoryServer(binary, directory, library) as server:
        settings = make_settings(server.url, cluster.address, timeouts=TIMEOUTS)
        clients = Clients(
            lines, settings, conversations,
            dice=random.Random(dice.random()), python_path=python_path, operations=operations,
        )  # fmt: skip
        try:
            async with ConversationClient(settings) as client, Witness(client, recorder, conversations) as witness:
                for _ in range(CLIENTS):
                    clients.start()
                nemesis = Nemesis(
                    server, witness, recorder, clients, dice=dice, weights=weights or FAULTS, counts=counts
                )
                await nemesis.rage(seconds, operations=round(seconds * ACKNOWLEDGED))
                wrong += await clients.finish()
                await witness.finish()
        except (ConversationError, TimeoutError) as error:
            wrong.append(f"the test's own client met {error!r}")
        finally:
            clients.kill()
            _end_owners(conversations, settings)
            recorder.close()
    findings = check(read(lines))
    return Report(seed, time.monotonic() - started, counts, findings.figures, [*wrong, *findings.violations])


def _directory_of_lines(directory: Path) -> Path:
    lines = directory / "lines"
    lines.mkdir(parents=True)
    return lines


def _end_owners(conversations: list[str], settings: Settings) -> None:
    for conversation in conversations:
        with suppress(ValueError):
            ray.kill(ray.get_actor(actor_name(conversation, settings), namespace=NAMESPACE))
