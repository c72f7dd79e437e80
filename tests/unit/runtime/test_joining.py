"""Joining Ray: once in a process, however many of its threads want to."""

import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from conversation_actors.runtime import cluster


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
