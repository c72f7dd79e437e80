"""The fork server is killed again and again, in every state; and workers come and go by the hundred."""

import logging
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.support.fork_servers import (
    NEEDS_FORKED_WORKERS,
    answer,
    end,
    head,
    own_cluster,
    server_of,
    servers_of,
    start_probe,
    zombies_of,
)
from tests.support.probe import Probe
from tests.support.processes import is_alive, sigkill
from tests.support.ray_cluster import Node
from tests.support.servers import wait_for

__all__ = ["head", "own_cluster"]

pytestmark = [pytest.mark.chaos, NEEDS_FORKED_WORKERS, pytest.mark.timeout(240)]
log = logging.getLogger(__name__)

BURST = 10
CYCLES, AT_ONCE = 200, 5
WARM_UP_CYCLES = 20
RSS_SLACK_BYTES = 2 << 20
"""Of a server of some 90 MB; a leak of 10 kB a worker would take as much."""


def burst() -> list[Any]:
    """Ask for actors, all at once."""
    maker = ray.remote(Probe).options(num_cpus=0, resources={"conversation": 0.01})
    return [maker.remote() for _ in range(BURST)]


def pids_of(actors: list[Any]) -> list[int]:
    """Return the actors' process ids, when all have answered."""
    found: list[int] = answer([actor.pid.remote() for actor in actors])
    return found


def is_importing(server: psutil.Process) -> bool:
    """Tell whether it has begun, but listens to nobody yet: only then does it hold no other process's descriptor."""
    targets = []
    with suppress(OSError):
        targets = [str(entry.readlink()) for entry in Path("/proc", str(server.pid), "fd").iterdir()]
    return bool(targets) and not any("pidfd" in target for target in targets)


def assert_recovers(node: Node) -> None:
    """There is one server, soon, that forks an actor's worker."""
    end(start_probe(node))  # whose launcher starts a server where there is none
    actor = start_probe(node)
    assert answer(actor.is_forked.remote())
    assert psutil.Process(answer(actor.pid.remote())).ppid() == server_of(node).pid
    end(actor)


def test_burst_that_finds_the_fork_server_dead_starts(head: Node) -> None:
    """A burst of actors that finds the server dead: each starts, in a process of its own."""
    sigkill(server_of(head).pid)
    actors = burst()

    assert len(set(pids_of(actors))) == BURST
    end(*actors)
    assert_recovers(head)


def test_fork_server_killed_at_its_start_costs_ordinary_workers(head: Node) -> None:
    """Those who wait for a server that is killed at its start get ordinary workers, three times in a row."""
    sigkill(server_of(head).pid)
    actors = []
    for _ in range(3):
        actors += burst()
        wait_for(lambda: any(is_importing(server) for server in servers_of(head)), "a server that imports")
        sigkill(servers_of(head)[0].pid)

    assert len(set(pids_of(actors))) == 3 * BURST
    end(*actors)
    assert_recovers(head)


def test_fork_server_killed_during_a_burst_costs_no_actor(head: Node) -> None:
    """At whatever moment of a burst: all actors answer in the end, each from a process of its own."""
    seed = random.randrange(10**6)
    log.warning("seed %d", seed)  # shown when the test fails
    dice = random.Random(seed)
    for _ in range(6):
        server = server_of(head)
        killer = threading.Timer(dice.uniform(0, 0.4), sigkill, [server.pid])
        killer.start()
        actors = burst()
        assert len(set(pids_of(actors))) == BURST
        killer.join()
        assert not is_alive(server.pid)
        end(*actors)
        assert_recovers(head)


def test_killed_with_a_child_at_work(head: Node) -> None:
    """The server is killed as soon as it has forked: what it has forked goes on, or is started the ordinary way."""
    for _ in range(5):
        server = server_of(head)
        before = {child.pid for child in server.children()}
        actors = burst()
        deadline = time.monotonic() + 20
        while {child.pid for child in server.children()} <= before:  # as close as can be: no pause
            assert time.monotonic() < deadline
        sigkill(server.pid)
        assert len(set(pids_of(actors))) == BURST
        end(*actors)
        assert_recovers(head)


def test_fork_server_grows_by_nothing_over_many_actors(head: Node) -> None:
    """200 actors come and go: the server has no more descriptors, children and memory, the node no more processes."""
    server = server_of(head)

    def cycle() -> None:
        maker = ray.remote(Probe).options(num_cpus=0, resources={"conversation": 0.01})
        end(*[maker.remote() for _ in range(AT_ONCE)])

    def measure() -> dict[str, int]:
        wait_for(lambda: not zombies_of(server), "the dead to be reaped")
        return {
            "descriptors": server.num_fds(),
            "children": len(server.children()),
            "threads": server.num_threads(),
            "processes": len(head.processes()),
        }

    for _ in range(WARM_UP_CYCLES // AT_ONCE):
        cycle()
    before, bytes_before = measure(), server.memory_info().rss
    for _ in range(CYCLES // AT_ONCE):
        cycle()
    after, bytes_after = measure(), server.memory_info().rss
    log.warning("%s, %d kB; then %s, %d kB", before, bytes_before >> 10, after, bytes_after >> 10)

    assert server_of(head) == server
    assert {name: count for name, count in after.items() if count > before[name]} == {}
    assert bytes_after - bytes_before < RSS_SLACK_BYTES
