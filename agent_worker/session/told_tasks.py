"""The tasks that an agent's `on_enter` waits for, as they are noted."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from livekit.agents import Agent, AgentSession

from agent_worker.failures import Failures
from agent_worker.session.agent_classes import class_name
from agent_worker.session.awaited_tasks import AwaitedTasks, RunningTask
from agent_worker.session.entering import entrance_of
from agent_worker.session.known_context import HeldHistory, KnownContext, Speaks
from agent_worker.session.saved_state import StateError, saved_state
from conversation_actors.errors import InvalidInputError
from conversation_actors.values import encode

logger = logging.getLogger(__name__)

MOST_BYTES = 48 << 10
"""Of the attribute; beyond that it goes without the largest of what was brought into contexts, then of the results."""


@dataclass(slots=True)
class _Told:
    """What is noted of one task that runs."""

    context: KnownContext
    state: Mapping[str, Any] | None = None


class ToldTasks:
    """What the attribute holds, while its agent has the word."""

    def __init__(self, session: AgentSession[Any], held: HeldHistory, failures: Failures) -> None:
        """Nobody has the word."""
        self._session, self._held, self._failures = session, held, failures
        self._agent: Agent | None = None
        self._tasks: AwaitedTasks | None = None
        self._running: dict[RunningTask, _Told] = {}
        self._last: dict[str, Any] | None = None
        self._warned: set[str] = set()

    @property
    def is_frozen(self) -> bool:
        """Whether what happens now may be the end of the session, and no news of the call."""
        return self._tasks is not None and self._tasks.is_closing

    @property
    def speaks(self) -> Speaks:
        """Who speaks for the agent while it is not its own turn."""
        return Speaks.TASK if self._tasks is not None and self._tasks.running else Speaks.LENT

    def take(self, agent: Agent, listener: Callable[[], None]) -> None:
        """Follow the tasks of an agent, and no other's."""
        if self._tasks is not None:
            self._tasks.listener = None
        self._agent, self._tasks, self._running, self._last = agent, entrance_of(agent).tasks, {}, None
        self._tasks.listener = listener

    def give_word(self, agent: Agent, handoff: str) -> None:
        """A task has got the word, or has it back."""
        running = None if self._tasks is None else self._tasks.give_word(agent, handoff)
        if running is not None:
            self._of(running).context.begin()

    def look(self, since: str | None, *, has_entered: bool) -> dict[str, Any] | None:
        """What is to be noted; None: there is nothing."""
        agent, tasks = self._agent, self._tasks
        if agent is None or tasks is None or tasks.is_closing:
            return self._last
        if has_entered and self._has_talked_since(tasks):
            tasks.forget()
        running, current = tasks.running, self._session.current_agent
        told = {
            "done": [one.to_dict() for one in tasks.done],
            "running": [self._look_at(one, current, is_last=one is running[-1]) for one in running]
            + [dict(one.noted) for one in tasks.pending],
        }
        owner = {"agent_id": agent.id, "class": class_name(agent), "since": since}
        self._last = self._within_bounds({**owner, **told}) if any(told.values()) else None
        return self._last

    def _has_talked_since(self, tasks: AwaitedTasks) -> bool:
        """Whether the agent itself has talked with the caller: then its `on_enter` does not run again."""
        since = {one.since for one in tasks.done}
        for item in reversed(self._session.history.items):
            if item.id in since:
                return False
            if item.type == "message" and item.role in {"assistant", "user"}:
                return True
        return True

    def _of(self, running: RunningTask) -> _Told:
        if running not in self._running:
            had = running.had
            told = self._running[running] = _Told(KnownContext(self._held), None if had is None else had.state)
            told.context.begin()
        return self._running[running]

    def _look_at(self, running: RunningTask, current: Agent, *, is_last: bool) -> dict[str, Any]:
        told, task = self._of(running), running.task
        speaks = Speaks.OWN if task is current else Speaks.LENT if is_last else Speaks.TASK
        try:
            told.state = saved_state(task)
        except StateError as error:
            self._warn(task, str(error))
        except Exception as error:  # noqa: BLE001  # the application's own
            self._failures.count("active_agent", error, "saved_state() failed")
        fields = {
            "path": list(running.path),
            "agent_id": task.id,
            "class": class_name(task),
            "state": told.state,
            "instructions": running.changed_instructions,
            "has_entered": running.has_entered,
            "since": running.since,
            "outcome": running.outcome,
            **told.context.look(task, speaks),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _within_bounds(self, told: dict[str, Any]) -> dict[str, Any]:
        """What can be stored of it: what was brought is the first to go, then what a task has come to."""
        while not _fits(told):
            running, done = told["running"], told["done"]
            with_more = [one for one in running if one.get("brought")]
            with_outcome = [one for one in [*done, *running] if one.get("outcome") is not None]
            if with_more:
                largest = max(with_more, key=lambda one: _size(one["brought"]))
                brought = list(largest["brought"])
                brought.remove(max(brought, key=_size))
                changed = {**largest, "brought": brought, "is_whole": False}
            elif with_outcome:
                largest = max(with_outcome, key=lambda one: _size(one["outcome"]))
                changed = {name: value for name, value in largest.items() if name != "outcome"}
            else:
                told = {**told, "done": done[: len(done) // 2], "running": []}
                continue
            for name in ("done", "running"):
                told = {**told, name: [changed if one is largest else one for one in told[name]]}
        if told["running"] and any(one.get("is_whole") is False for one in told["running"]):
            self._warn(self._agent, "what was put into a task's context cannot be stored")
        return told

    def _warn(self, agent: Agent | None, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            details = {"agent_id": "" if agent is None else agent.id, "reason": reason}
            logger.warning("not all of a task can come back", extra=details)


def _fits(told: Mapping[str, Any]) -> bool:
    try:
        encode(told, "tasks", limit=MOST_BYTES)
    except InvalidInputError:
        return False
    return True


def _size(value: object) -> float:
    """How large it is; what cannot be stored at all is the largest."""
    try:
        return len(encode(value, "tasks"))
    except InvalidInputError:
        return float("inf")
