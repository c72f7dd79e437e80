"""Workers that are forked: they are what Ray's own would be, and whatever happens to their server, actors start."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private.utils import get_num_cpus
from ray.autoscaler._private.constants import RAY_PROCESSES

from conversation_actors import ConversationClient
from conversation_actors.runtime import NAMESPACE, actor_name
from conversation_actors.runtime.fork_server import launcher
from tests.support.fork_servers import (
    NEEDS_FORKED_WORKERS,
    Asked,
    answer,
    connected_to,
    end,
    head,
    own_cluster,
    server_log,
    server_of,
    source_of,
    start_probe,
    zombies_of,
)
from tests.support.observation import user
from tests.support.probe import describe, is_forked, loaded
from tests.support.processes import is_alive, sigkill
from tests.support.ray_cluster import Node, RayCluster
from tests.support.servers import wait_for

__all__ = ["head", "own_cluster"]

pytestmark = [NEEDS_FORKED_WORKERS, pytest.mark.timeout(180)]

RUNTIME_ENVIRONMENT = {"env_vars": {"OF_A_TEST": "1"}}
GONE_SECONDS = 20.0
"""A worker asks every second whether its raylet is alive; the rest is for a busy machine."""


@pytest.fixture
def other_node(own_cluster: RayCluster, head: Node) -> Iterator[tuple[Node, list[Any]]]:
    """Make a node beside the head that a test may end, with a fork server and three actors; and the actors."""
    node = own_cluster.add_node(resources='{"other": 3}')
    actors = [start_probe(node, resources={"other": 1}) for _ in range(3)]
    assert all(answer([actor.is_forked.remote() for actor in actors]))
    server = server_of(node)
    assert {psutil.Process(answer(actor.pid.remote())).ppid() for actor in actors} == {server.pid}
    yield node, actors
    node.kill()
    own_cluster.nodes.remove(node)
    # until then the head would send the next test's actors there
    wait_for(lambda: sum(one["Alive"] for one in ray.nodes()) == len(own_cluster.nodes), "the head to miss the node")


@pytest.fixture(scope="module")
def ordinary(own_cluster: RayCluster) -> dict[str, Any]:
    """Return what a worker of the same node is like that was started the ordinary way, for the server was stopped."""
    own_cluster.join()
    node = own_cluster.nodes[0]
    end(start_probe(node))
    server = server_of(node)
    server.suspend()
    try:
        actor = start_probe(node)
        assert not answer(actor.is_forked.remote())
    finally:
        server.resume()
    found = {**answer(actor.describe.remote()), "descriptors": descriptors_of(answer(actor.pid.remote()))}
    end(actor)
    return found


def descriptors_of(pid: int) -> dict[int, str]:
    """Return what each open descriptor is of."""
    return {int(entry.name): str(entry.readlink()) for entry in Path("/proc", str(pid), "fd").iterdir()}


def kinds(descriptors: dict[int, str]) -> set[str]:
    """Return descriptors without what no two processes share: inodes, and the ids in the names of Ray's logs."""
    return {re.sub(r"\[\d+\]|[0-9a-f]{56}|(?<=[-_])\d+(?=\.(log|out|err)$)", "", of) for of in descriptors.values()}


def test_actors_and_tasks_are_forked(head: Node) -> None:
    """Whoever asks for a worker gets a forked one, a child of the one server; token authentication is on."""
    actors = [start_probe(head) for _ in range(3)]
    assert answer([actor.is_forked.remote() for actor in actors]) == [True] * 3
    server = server_of(head)
    assert {psutil.Process(answer(actor.pid.remote())).ppid() for actor in actors} == {server.pid}
    assert answer(actors[0].describe.remote())["environment"]["RAY_AUTH_MODE"] == "token"
    end(*actors)
    task = ray.remote(is_forked)
    assert answer([task.remote() for _ in range(3)]) == [True] * 3


@pytest.mark.asyncio
async def test_owner_loads_nothing_but_its_actor(
    cluster: RayCluster, client: ConversationClient, conversation_id: str
) -> None:
    """All that a conversation's owner runs is there before the fork, but for what takes SIGTERM over."""
    handle = await client.open(conversation_id)
    await handle.append(user("hello"))
    owner = ray.get_actor(actor_name(conversation_id), NAMESPACE)
    probe = start_probe(cluster.nodes[0])
    assert await probe.is_forked.remote()

    imported, read = await owner.__ray_call__.remote(loaded)
    before, read_before = await probe.__ray_call__.remote(loaded)
    assert imported - before == {"conversation_actors.runtime.actor"}
    assert read == read_before > 0
    end(probe)


def test_more_start_at_once(head: Node) -> None:
    """A node lets twice as many workers start at the same time as it has CPUs."""
    cpus = min(4, max(1, int(get_num_cpus())))  # `tests.support.ray_cluster` starts it with four
    variables = Path("/proc", str(head.raylet.pid), "environ").read_bytes().decode().split("\0")
    assert f"RAY_worker_maximum_startup_concurrency={2 * cpus}" in variables


def test_runtime_environment(head: Node) -> None:
    """What asks for a runtime environment of its own gets an ordinary worker, with that environment."""
    task = ray.remote(describe).options(runtime_env=RUNTIME_ENVIRONMENT)
    found = answer(task.remote())

    assert found["environment"]["OF_A_TEST"] == "1"
    assert launcher.FORKED not in found["environment"]
    actor = start_probe(head, runtime_env=RUNTIME_ENVIRONMENT)
    assert not answer(actor.is_forked.remote())
    end(actor)


def test_server_that_hangs(head: Node, ordinary: dict[str, Any]) -> None:
    """While it is stopped actors get ordinary workers; when it goes on, what it missed starts nothing twice."""
    assert launcher.FORKED not in ordinary["environment"]
    server = server_of(head)
    wait_for(lambda: "not forked: " in server_log(head), "a word on what was asked in vain")
    actor = start_probe(head)
    assert answer(actor.is_forked.remote())
    assert psutil.Process(answer(actor.pid.remote())).ppid() == server.pid
    end(actor)


def test_forked_worker_is_as_an_ordinary_one(head: Node, ordinary: dict[str, Any]) -> None:
    """Arguments, environment, module path, signals, limits, priority…: nothing differs but the mark of the fork."""
    actor = start_probe(head)
    forked = answer(actor.describe.remote())
    pid = str(answer(actor.pid.remote()))
    end(actor)

    for name in ("environment", "environment of its children"):
        assert forked[name].pop(launcher.FORKED) == pid
    assert {name: found for name, found in forked.items() if found != ordinary[name]} == {}
    assert forked.keys() == ordinary.keys() - {"descriptors"}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert forked["priority"][0] > own  # Ray adds to it by default: the comparison is of workers that have begun


def test_worker_has_nothing_of_the_server(head: Node, ordinary: dict[str, Any]) -> None:
    """No socket, no raylet's descriptor, no log of the server; only what an ordinary worker has, or less.

    (Raylets let logs of theirs slip through to ordinary workers.)
    """
    actor = start_probe(head)
    pid = answer(actor.pid.remote())
    its, servers = descriptors_of(pid), descriptors_of(server_of(head).pid)

    assert {target for target in its.values() if target.startswith("socket")}.isdisjoint(servers.values())
    assert not [target for target in its.values() if "pidfd" in target or "fork_server" in target]
    assert kinds(its) <= kinds(ordinary["descriptors"])
    assert [target for target in servers.values() if target.startswith("socket")]
    end(actor)


def test_what_a_worker_prints(own_cluster: RayCluster, head: Node) -> None:
    """It goes to the worker's own log among Ray's, standard output and error apart, and nowhere else."""
    actor = start_probe(head)
    answer(actor.say.remote("said by a forked worker"))
    pid = answer(actor.pid.remote())
    logs = [path for path in own_cluster._directory.glob("session_2*/logs/*") if path.is_file()]
    found = [path.name for path in logs if "said by a forked worker\n" in path.read_text(errors="replace")]

    assert sorted(Path(name).suffix for name in found) == [".err", ".out"]
    assert all(re.fullmatch(rf"worker-.*-{pid}\.(out|err)", name) for name in found)
    end(actor)


def test_nothing_drawn_at_random_is_drawn_twice(head: Node) -> None:
    """Ray's ids, UUIDs and random numbers of ten workers of one server are all different."""
    actors = [start_probe(head) for _ in range(10)]
    drawn = [value for actor in actors for value in answer(actor.draw.remote())]

    assert answer([actor.is_forked.remote() for actor in actors]) == [True] * 10
    assert len(set(drawn)) == len(drawn)
    end(*actors)


def test_orderly_end(head: Node, tmp_path: Path) -> None:
    """An actor that is told to finish runs what was registered for the interpreter's end, and is gone."""
    actor = start_probe(head)
    pid = answer(actor.pid.remote())
    answer(actor.write_at_exit.remote(str(tmp_path / "ended")))
    actor.__ray_terminate__.remote()
    wait_for(lambda: not psutil.pid_exists(pid), "the worker to be gone")

    assert (tmp_path / "ended").read_text() == str(pid)


def test_killed_workers_leave_nothing(head: Node) -> None:
    """Ten forked workers are killed: each is gone for good, none stays as the server's zombie."""
    actors = [start_probe(head) for _ in range(10)]
    pids = answer([actor.pid.remote() for actor in actors])
    server = server_of(head)
    assert set(pids) <= {child.pid for child in server.children()}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "all to be reaped")

    assert zombies_of(server) == []
    assert server_of(head) == server


def test_ray_stop_finds_a_forked_worker(head: Node) -> None:
    """By the rule that `ray stop` has; a worker's title does not tell how it was started."""
    actor = start_probe(head)
    process = psutil.Process(answer(actor.pid.remote()))
    command = " ".join(process.cmdline())

    assert [word for word, by_name in RAY_PROCESSES if word in (process.name() if by_name else command)] == ["ray::"]
    end(actor)


def test_server_killed(head: Node) -> None:
    """The next actor starts; a new server is there then, and forks the following one. Earlier workers live on."""
    survivor = start_probe(head)
    pid = answer(survivor.pid.remote())
    killed = server_of(head)
    sigkill(killed.pid)
    first = start_probe(head)
    assert answer(first.pid.remote()) != pid
    assert server_of(head).pid != killed.pid
    second = start_probe(head)
    assert answer(second.is_forked.remote())
    assert psutil.Process(answer(second.pid.remote())).ppid() == server_of(head).pid
    assert answer(survivor.pid.remote()) == pid
    end(survivor, first, second)


def test_environment_differs(head: Node) -> None:
    """Asked for a worker with another environment, the server of a real node refuses, says why, and goes on."""
    server = server_of(head)
    environment = Path("/proc", str(server.pid), "environ").read_bytes().split(b"\0")
    variables = dict(entry.split(b"=", 1) for entry in environment if entry)
    program = str(Path(ray.__file__).parent / "_private/workers/default_worker.py")
    same = Asked(connected_to(head.raylet.pid), [program, "--help"], variables)
    assert same.answer() == launcher.READY
    same.leave().output()
    assert Asked(connected_to(head.raylet.pid), [program, "--help"], {**variables, b"ELSE": b"1"}).is_refused()
    wait_for(lambda: "the environment differs in ELSE" in server_log(head), "the log")
    assert server_of(head) == server


def test_code_changed(head: Node) -> None:
    """A file that the server has imported changes on disk: it ends, and a new one forks the workers from then on."""
    before = server_of(head)
    changed = source_of(before) / "store" / "__init__.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    first = start_probe(head)
    answer(first.pid.remote())  # this one may be an ordinary one
    wait_for(lambda: not before.is_running(), "the old server to be gone")
    second = start_probe(head)
    assert answer(second.is_forked.remote())
    assert psutil.Process(answer(second.pid.remote())).ppid() == server_of(head).pid != before.pid
    assert "changed on disk" in server_log(head)
    end(first, second)


def test_raylet_killed(other_node: tuple[Node, list[Any]]) -> None:
    """The raylet alone is killed: fork server and workers are gone soon, by themselves."""
    node, actors = other_node
    pids = [server_of(node).pid, *answer([actor.pid.remote() for actor in actors])]
    sigkill(node.raylet.pid)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "server and workers to go", patience=GONE_SECONDS)


def test_node_terminated(other_node: tuple[Node, list[Any]]) -> None:
    """SIGTERM to `start --block`: all that belonged to the node is gone soon, by itself.

    No actor is there any more, but workers are: Ray waits 30 s for actors first, with ordinary workers as well.
    """
    node, actors = other_node
    end(*actors)
    task = ray.remote(is_forked).options(num_cpus=0, resources={"other": 1})
    assert answer([task.remote() for _ in range(3)]) == [True] * 3
    workers = server_of(node).children()
    assert workers
    pids = [process.pid for process in {*node.processes(), *workers}]
    assert node._process is not None
    node._process.terminate()
    node._process.wait(GONE_SECONDS)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the node's processes to go", patience=GONE_SECONDS)
