"""Who hangs is found out, and only who hangs."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, RpcError

from conversation_actors.runtime import hang
from conversation_actors.runtime.hang import HangWatch, Lodging

HERE = Lodging(pid=7, node_id="n", restarts=0)


class Owner:
    """An owner's process, as somebody sees it who looks whether it hangs."""

    def __init__(self) -> None:
        """It runs, and hangs."""
        self.answer: Any = asyncio.get_running_loop().create_future()
        self.seen: list[Lodging | None] = []
        self.examined = 0
        self.looked = 0
        self.error: Exception | None = None
        self.ping = SimpleNamespace(remote=lambda: self.answer)

    async def lodging(self, _actor: object) -> Lodging | None:
        """Where it is, by and by."""
        self.looked += 1
        if self.error is not None:
            raise self.error
        return self.seen.pop(0) if self.seen else HERE

    async def examine(self, _actor: object, _found: Lodging) -> bool:
        """Kill it."""
        self.examined += 1
        return True


@pytest.fixture
async def hung(monkeypatch: pytest.MonkeyPatch) -> Owner:
    """An owner that hangs."""
    made = Owner()
    monkeypatch.setattr(hang, "lodging", made.lodging)
    monkeypatch.setattr(hang, "_examine_there", made.examine)
    return made


async def look(owner: Owner, *, suspicions: int = 1) -> None:
    """Have it looked at, to the end."""
    watch = HangWatch("c", seconds=0.01)
    for _ in range(suspicions):
        watch.suspect(owner)
    assert watch._look is not None
    await watch._look


async def test_who_gives_no_sign_of_life_is_killed_once(hung: Owner, caplog: pytest.LogCaptureFixture) -> None:
    """However many calls wait for it; and that is told."""
    await look(hung, suspicions=5)
    assert hung.examined == 1
    assert "hung, and was killed" in caplog.text


async def test_who_answers_is_left_alone(hung: Owner) -> None:
    """It may be slow, or wait for Redis: it lives."""
    hung.answer.set_result(None)
    await look(hung)
    assert not hung.examined


@pytest.mark.parametrize("error", [ActorDiedError(), AttributeError("ping")])
async def test_who_is_dead_or_cannot_be_asked_is_left_alone(hung: Owner, error: Exception) -> None:
    """Ray replaces the one; the other is of an older version."""
    hung.answer.set_exception(error)
    await look(hung)
    assert not hung.examined


@pytest.mark.parametrize("seen", [[None], [HERE, None], [HERE, Lodging(8, "n", 1)]])
async def test_who_starts_or_was_replaced_is_left_alone(hung: Owner, seen: list[Lodging | None]) -> None:
    """A process that has not run all the time has had no time to answer."""
    hung.seen = seen
    await look(hung)
    assert not hung.examined


async def test_without_the_head_nobody_is_killed(hung: Owner, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows where the process is; that is told, and the next call looks again."""
    hung.error = RpcError("no head")
    await look(hung)
    assert not hung.examined
    assert "cannot be looked at" in caplog.text


async def test_an_actor_of_a_cluster_that_was_left_is_not_looked_at(
    hung: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray refuses its handle; that is a line in the log, and no traceback of a task that nobody waits for."""

    def refuse() -> None:
        message = "Failed to submit task to actor"
        raise Exception(message)  # noqa: TRY002  # as Ray does

    monkeypatch.setattr(hung, "ping", SimpleNamespace(remote=refuse))
    await look(hung)
    assert not hung.examined
    assert "cannot be looked at" in caplog.text


class Ray:
    """Asks an owner from its own node."""

    def __init__(self, error: Exception | None) -> None:
        """The owner answers, or what comes instead."""
        self._error = error

    def get(self, _asked: object, *, timeout: float) -> None:
        """See `ray.get`."""
        assert timeout == 1.0
        if self._error is not None:
            raise self._error


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process below this one."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


class Process:
    """What is known of a process: its parents and its name."""

    def __init__(self, *parents: "Process", name: str = "") -> None:
        """It runs."""
        self._parents, self._name, self.is_killed = parents, name, False

    def parents(self) -> list["Process"]:
        """Its parents."""
        return list(self._parents)

    def name(self) -> str:
        """Its name."""
        return self._name

    def kill(self) -> None:
        """It is killed."""
        self.is_killed = True


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_only_a_worker_of_this_node_is_killed(monkeypatch: pytest.MonkeyPatch, is_here: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """A process that has got the number since, and is no worker of this node's raylet, is left alone."""
    raylet, another = Process(name="raylet"), Process(name="raylet")
    worker = Process(raylet if is_here else another)
    monkeypatch.setattr(psutil, "Process", lambda pid=None: Process(raylet) if pid is None else worker)
    monkeypatch.setattr(hang, "ray", Ray(GetTimeoutError()))
    actor = SimpleNamespace(ping=SimpleNamespace(remote=lambda: None))
    assert hang.examine(actor, 4711, 1.0) is is_here
    assert worker.is_killed is is_here


@pytest.mark.parametrize("error", [None, ActorDiedError()])
def test_who_answers_on_its_own_node_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, child: "subprocess.Popen[bytes]", error: Exception | None
) -> None:
    """It was the way there that was interrupted; or the process is dead already."""
    monkeypatch.setattr(hang, "ray", Ray(error))
    actor = SimpleNamespace(ping=SimpleNamespace(remote=lambda: None))
    assert not hang.examine(actor, child.pid, 1.0)
    assert child.poll() is None


def test_a_process_that_is_gone_was_not_killed(
    monkeypatch: pytest.MonkeyPatch, child: "subprocess.Popen[bytes]"
) -> None:
    """Somebody else who looked was quicker."""
    child.kill()
    child.wait()
    monkeypatch.setattr(hang, "ray", Ray(GetTimeoutError()))
    assert not hang.examine(SimpleNamespace(ping=SimpleNamespace(remote=lambda: None)), child.pid, 1.0)
