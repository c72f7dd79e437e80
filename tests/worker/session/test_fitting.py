"""What goes where an attribute has too little room."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import Agent, AgentSession

from agent_worker.failures import Failures
from agent_worker.session import fitting
from agent_worker.session.active_agent import MOST_BYTES, ActiveAgent
from agent_worker.session.fitting import largest_of, size_of
from agent_worker.session.known_context import HeldHistory
from agent_worker.session.told_tasks import ToldTasks
from conversation_actors.values import encode
from tests.support.sessions.jobs import NotedConversation

_MANY = 800


def _brought() -> list[dict[str, Any]]:
    return [{"after": None, "item": {"id": f"i{number}", "content": ["x" * 300]}} for number in range(_MANY)]


def _of_agent(brought: list[dict[str, Any]]) -> Any:
    active = ActiveAgent(AgentSession(), NotedConversation(), first=Agent(instructions="x"))
    return active._within_bounds({"agent_id": "a", "brought": brought})


def _of_task(brought: list[dict[str, Any]]) -> Any:
    session: AgentSession[Any] = AgentSession()
    told = ToldTasks(session, HeldHistory(session), Failures())
    running = {"path": [0], "agent_id": "t", "class": "m:T", "brought": brought}
    return told._within_bounds({"agent_id": "a", "done": [], "running": [running]})["running"][0]


@pytest.mark.parametrize("noted", [_of_agent, _of_task])
async def test_each_item_of_a_large_context_is_measured_once(
    noted: Callable[[list[dict[str, Any]]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item is measured once, and as many as fit are kept, in their order."""
    measured: list[int] = []

    def counted(value: object, field: str, **named: Any) -> bytes:
        measured.append(1)
        return encode(value, field, **named)

    monkeypatch.setattr(fitting, "encode", counted)
    brought = _brought()
    told = noted(brought)
    assert len(measured) < _MANY + 10
    assert told["is_whole"] is False
    kept = [brought.index(one) for one in told["brought"]]
    assert kept == sorted(kept)
    assert MOST_BYTES * 0.97 < size_of(told) <= MOST_BYTES


@given(st.lists(st.text(max_size=40) | st.just(float("nan"))), st.integers(0, 200))
def test_the_largest_items_are_left_out_first(values: list[Any], most: int) -> None:
    """Those that cannot be stored first; no more than have to, and what is left is no larger than what went."""
    gone = largest_of(values, most)
    left = [value for place, value in enumerate(values) if place not in gone]
    sizes = [size_of(value) for value in left]
    assert sum(size + 1 for size in sizes) <= most
    went = [size_of(values[place]) for place in gone]
    assert max(sizes, default=0) <= min(went, default=float("inf"))
    storable = [size for size in went if size < float("inf")]
    assert not storable or sum(size + 1 for size in [*sizes, min(storable)]) > most


async def test_results_are_left_out_after_what_was_brought() -> None:
    """The largest of them; the task has to run again, and the others do not."""
    session: AgentSession[Any] = AgentSession()
    told = ToldTasks(session, HeldHistory(session), Failures())
    done = [
        {"path": [number], "agent_id": "t", "class": "m:T", "outcome": {"result": "x" * size}}
        for number, size in enumerate((10, 16000, 15000, 15500, 20, 10000))
    ]
    running = {"path": [6], "agent_id": "t", "class": "m:T", "brought": _brought()[:3]}
    noted = told._within_bounds({"agent_id": "a", "done": done, "running": [running]})
    assert [one["path"] for one in noted["done"] if "outcome" not in one] == [[1]]
    assert noted["running"][0]["brought"] == []
