"""Durations that a guarantee depends on go on while a machine is suspended."""

import ast
import inspect
import time
from collections.abc import Callable
from types import ModuleType

import pytest

import agent_worker.tenure.conversation
import agent_worker.tenure.vigil
import conversation_actors.activation.activation
import conversation_actors.activation.committer
import conversation_actors.activation.host
import conversation_actors.activation.listing
import conversation_actors.activation.passing_time
import conversation_actors.activation.patience
import conversation_actors.activation.retention
import conversation_actors.client.heartbeats
from conversation_actors import clock
from conversation_actors.activation import Activation
from conversation_actors.activation.passing_time import ForgottenRequests
from conversation_actors.client import Heartbeats

MEASURED = [
    agent_worker.tenure.conversation,
    agent_worker.tenure.vigil,
    conversation_actors.activation.activation,
    conversation_actors.activation.committer,
    conversation_actors.activation.listing,
    conversation_actors.activation.host,
    conversation_actors.activation.passing_time,
    conversation_actors.activation.patience,
    conversation_actors.activation.retention,
    conversation_actors.client.heartbeats,
]
"""What measures leases, retentions, the request memory, idleness, and whether somebody is silent."""


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="not on this platform: its clocks all go on")
def test_the_clock_is_the_one_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of suspension, in which CLOCK_MONOTONIC stood still, has passed."""
    suspended = 0.0
    read = time.clock_gettime

    def gettime(which: int) -> float:
        return read(which) + (suspended if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", gettime)
    before = clock.uptime()
    suspended = 3600.0
    assert clock.uptime() - before >= 3600.0


@pytest.mark.parametrize("module", MEASURED, ids=lambda module: module.__name__)
def test_nothing_there_is_measured_by_a_clock_that_stands_still(module: ModuleType) -> None:
    """No module that measures such a duration reads `time.monotonic`."""
    read = [
        node.lineno
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and node.attr in {"monotonic", "monotonic_ns", "perf_counter"}
    ]
    assert not read


@pytest.mark.parametrize(
    ("taker", "name"),
    [(Activation.recover, "elapsed"), (ForgottenRequests.__init__, "elapsed"), (Heartbeats.__init__, "clock")],
)
def test_it_is_the_clock_unless_a_test_brings_one(taker: Callable[..., object], name: str) -> None:
    """Leases, the request memory and signs of life are measured by it."""
    assert inspect.signature(taker).parameters[name].default is clock.uptime
