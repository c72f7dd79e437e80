"""Joining Ray: once in a process, however many of its threads want to."""

import sys
import threading
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.runtime import cluster
from conversation_actors.settings import Settings, Timeouts
from tests.support.quick import QUICK


class Ray:
    """The part of Ray that joins a cluster, slowly."""

    def __init__(self) -> None:
        """Nobody has joined."""
        self.joined = 0
        self.begun, self.may_end = threading.Event(), threading.Event()

    def is_initialized(self) -> bool:
        """Whether this process is in a cluster."""
        return self.joined > 0

    def init(self, **_options: Any) -> None:
        """Join; Ray itself has no lock here."""
        self.begun.set()
        assert self.may_end.wait(10)
        self.joined += 1

    def put(self, _value: object) -> None:
        """Serialise something."""


def test_two_threads_join_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that begins while its process is being prepared waits for that, and does not join beside it."""
    ray = Ray()
    monkeypatch.setattr(cluster, "ray", ray)
    threads = [threading.Thread(target=cluster._join, args=(None,), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert ray.begun.wait(10)
    ray.may_end.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert ray.joined == 1


def test_a_ray_without_tokens_is_joined_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module for them is missing in an old Ray, and the function in one that is newer; neither is an error."""
    name = "ray._private.authentication"
    monkeypatch.setitem(sys.modules, name, None)
    cluster._use_own_token()
    package = ModuleType(name)
    package.authentication_token_setup = ModuleType("setup")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, package)
    cluster._use_own_token()


def test_what_others_joined_after_us_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """We could not join, or have left, and then the program itself has called `ray.init`: that is not ours to leave."""
    ray, places = Ray(), [""]
    ray.may_end.set()
    monkeypatch.setattr(cluster, "ray", ray)
    monkeypatch.setattr(cluster, "place", lambda: places[-1])
    monkeypatch.setattr(cluster, "_OURS", set())

    def fail(**_options: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(ray, "init", fail)
        with pytest.raises(ConnectionError):
            cluster._join(None)
    places.append("theirs")
    assert not cluster._is_ours()
    places.append("ours")
    cluster._join(None)
    assert cluster._is_ours()
    places.append("")
    assert cluster._is_ours()
    places.append("theirs")
    assert not cluster._is_ours()


class ForgetfulServer(Ray):
    """Ray's client server, whose forked servers die at their start, so many times in a row."""

    def __init__(self, failures: int) -> None:
        """Nobody was let in yet."""
        super().__init__()
        self.failures = failures
        self.may_end.set()

    def init(self, **options: Any) -> None:
        """Join, or not."""
        if self.failures:
            self.failures -= 1
            message = "Initialization failure from server:\nRuntimeError: Starting Ray client server failed."
            raise ConnectionAbortedError(message)
        super().init(**options)


async def test_a_client_server_that_lets_nobody_in_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it forks dies now and then, and the cluster is well."""
    ray = ForgetfulServer(failures=3)
    monkeypatch.setattr(cluster, "ray", ray)
    settings = Settings(redis_url="redis://x", ray_address="ray://127.0.0.1:1")
    await cluster.connect(settings, timing=replace(QUICK, join=(0.001, 0.002)))
    assert (ray.failures, ray.joined) == (0, 1)


async def test_a_client_server_that_lets_nobody_in_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what Ray has said, when there is no time for another attempt."""
    ray = ForgetfulServer(failures=10**9)
    monkeypatch.setattr(cluster, "ray", ray)
    timeouts = Timeouts(connect=timedelta(seconds=30))
    settings = Settings(redis_url="redis://x", ray_address="ray://127.0.0.1:1", timeouts=timeouts)
    with pytest.raises(ClusterUnavailableError, match="Starting Ray client server failed"):
        await cluster.connect(settings, timing=replace(QUICK, join=(90.0, 90.0)))
    assert ray.joined == 0
