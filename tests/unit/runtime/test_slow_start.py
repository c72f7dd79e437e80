"""Owners that start the slow way: it is said, once a client."""

import logging

import pytest

from conversation_actors import ActivationInfo, Settings
from conversation_actors.runtime import ActorDirectory


def owner(*, is_forked: bool) -> ActivationInfo:
    """Return what an owner tells of itself."""
    return ActivationInfo("c", 1, 0, 1, "node", 0.0, 0, 0, 0.0, is_forked=is_forked)


def test_an_ordinary_worker_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first one says how to have it quicker; the others nothing."""
    directory = ActorDirectory(Settings(redis_url="redis://127.0.0.1:1"))
    for _ in range(3):
        directory.started(owner(is_forked=False), was_ready=False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "conversation-actors start" in caplog.text


def test_a_forked_worker_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    """All is as it should be."""
    ActorDirectory(Settings(redis_url="redis://127.0.0.1:1")).started(owner(is_forked=True), was_ready=True)
    assert caplog.records == []
