"""The tasks that an agent's `on_enter` waits for, as they are noted."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from livekit.agents import Agent, AgentSession

from agent_worker.failures import Failures
from agent_worker.session.agent_classes import class_name
from agent_worker.session.awaited_tasks import AwaitedTasks
from agent_worker.session.entering import entrance_of
from agent_worker.session.fitting import fits, largest_of, size_of
from agent_worker.session.known_context import HeldHistory, KnownContext, Speaks
from agent_worker.session.running_task import RunningTask
from agent_worker.session.saved_state import latest_state
from agent_worker.timing import TIMING, Timing

logger = logging.getLogger(__name__)

MOST_BYTES = 48 << 10
"""Of the attribute; beyond that it goes without the largest of what was brought into contexts, then of the results."""

_LISTS = ("done", "running")
_FIELD_BYTES = len('"outcome":')


@dataclass(slots=True)
class _Told:
    """What is noted of one task that runs."""

    context: KnownContext
    state: Mapping[str, Any] | None = None


class ToldTasks:
    """What the attribute holds, while its agent has the word."""

    def __init__(
        self, session: AgentSession[Any], held: HeldHistory, failures: Failures, *, timing: Timing = TIMING
    ) -> None:
        """Nobody has the word."""
        self._session, self._held, self._failures, self._timing = session, held, failures, timing
        self._agent: Agent | None = None
        self._tasks: AwaitedTasks | None = None
        self._running: dict[RunningTask, _Told] = {}
        self._whole: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        """What is noted, and as much of it as fits."""
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
        self._agent, self._tasks, self._running = agent, entrance_of(agent).tasks, {}
        self._whole = self._last = None
        self._tasks.listener, self._tasks.timing = listener, self._timing

    def give_word(self, agent: Agent, handoff: str) -> None:
        """Note that a task has got the word, or has it back."""
        running = None if self._tasks is None else self._tasks.give_word(agent, handoff)
        if running is not None:
            self._of(running).context.begin()

    def look(self, since: str | None, *, has_entered: bool) -> dict[str, Any] | None:
        """Return what is to be noted; None: there is nothing."""
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
        noted = {**owner, **told} if any(told.values()) else None
        if noted != self._whole:
            self._whole = noted
            self._last = None if noted is None else self._within_bounds(noted)
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
        told.state = latest_state(task, told.state, self._failures, tell=partial(self._warn, task))
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
        """Return what can be stored of it: what was brought is the first to go, then what a task has come to."""
        if fits(told, MOST_BYTES):
            return told
        for without in (_without_brought, _without_outcomes):
            told = without(told)
            if fits(told, MOST_BYTES):
                break
        while not fits(told, MOST_BYTES):
            told = {**told, "done": told["done"][: len(told["done"]) // 2], "running": []}
        if any(one.get("is_whole") is False for one in told["running"]):
            self._warn(self._agent, "what was put into a task's context cannot be stored")
        return told

    def _warn(self, agent: Agent | None, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            details = {"agent_id": "" if agent is None else agent.id, "reason": reason}
            logger.warning("not all of a task can come back", extra=details)


def _without_brought(told: dict[str, Any]) -> dict[str, Any]:
    """Without as much as has to go of what was brought into the contexts of tasks that run."""
    running = told["running"]
    bare = [{**one, "brought": [], "is_whole": False} if one.get("brought") else one for one in running]
    brought = [(number, one) for number, task in enumerate(running) for one in task.get("brought", ())]
    gone = largest_of([one for _, one in brought], MOST_BYTES - size_of({**told, "running": bare}))
    left: dict[int, list[Any]] = {}
    for place, (number, one) in enumerate(brought):
        if place not in gone:
            left.setdefault(number, []).append(one)
    whole = {number for number, _ in brought} - {brought[place][0] for place in gone}
    shorter = [
        running[number] if number in whole or one is running[number] else {**one, "brought": left.get(number, [])}
        for number, one in enumerate(bare)
    ]
    return {**told, "running": shorter}


def _without_outcomes(told: dict[str, Any]) -> dict[str, Any]:
    """Without as much as has to go of what tasks have come to."""
    tasks = [one for one in [*told["done"], *told["running"]] if one.get("outcome") is not None]
    bare = {id(one): {name: value for name, value in one.items() if name != "outcome"} for one in tasks}

    def with_bare(which: Collection[int]) -> dict[str, Any]:
        return {**told, **{name: [bare[id(one)] if id(one) in which else one for one in told[name]] for name in _LISTS}}

    room = MOST_BYTES - size_of(with_bare(bare)) - len(tasks) * _FIELD_BYTES
    gone = largest_of([one["outcome"] for one in tasks], room)
    return with_bare({id(tasks[place]) for place in gone})
