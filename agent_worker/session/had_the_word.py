"""Read what an earlier job noted about the agent that had the word in it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Self

from agent_worker.session.context import Brought, Heard
from agent_worker.session.stored_items import to_livekit
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import item_from_dict

logger = logging.getLogger(__name__)

ACTIVE_AGENT = "livekit.active_agent"
"""The attribute that says who has the word, and what belongs to that agent. Its fields are those of `HadTheWord`."""
TASKS = "livekit.tasks"
"""The attribute with the tasks that the `on_enter` of that agent waits for: ``{agent_id, class, since, done: […],
running: […]}``. Tasks in ``done`` have the fields of `DoneTask`, tasks in ``running`` those of `HadTheWord` with
``path`` and ``outcome``."""


@dataclass(frozen=True, slots=True)
class HadTheWord:
    """What an earlier job noted about the agent that had the word."""

    agent_id: str
    class_name: str = ""
    is_first: bool = False
    """Whether it was the agent that the application started its session with."""
    heard: Heard = field(default_factory=Heard)
    brought: tuple[Brought, ...] = ()
    is_whole: bool = True
    """Whether everything that was brought was noted. If not, it was too much for the attribute."""
    has_entered: bool = False
    """Whether its `on_enter` was over, so that everything `on_enter` put into the context is there."""
    since: str | None = None
    """The id of the handoff that gave the agent the word, or None if that is not known."""
    instructions: str | None = None
    """None if the instructions are those that the agent is made with."""
    state: Mapping[str, Any] | None = None
    tasks: "HadTasks | None" = None
    """The tasks that its `on_enter` waits for, with their outcomes; None if there are none."""

    @property
    def given(self) -> str | None:
        """The id of the handoff that last gave the word to the agent, back to the agent, or to a task of the agent."""
        return self.since if self.tasks is None or not self.tasks.given else self.tasks.given

    @property
    def chain(self) -> tuple[str, ...]:
        """The ids of the agent and of the tasks that are to get the word, each task inside the one before it.

        The chain ends before a task that is complete, because its outcome is given back at once.
        """
        going_on = takewhile(lambda one: one.outcome is None, self.tasks.chain if self.tasks else ())
        return (self.agent_id, *(one.had.agent_id for one in going_on))

    @classmethod
    def read(cls, value: object) -> Self | None:
        """Read the attribute, which anybody may have written. Return None if it names no agent."""
        agent_id = value.get("agent_id") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(agent_id, str) or not agent_id:
            return None
        name, instructions, state = value.get("class"), value.get("instructions"), value.get("state")
        since = value.get("since")
        return cls(
            agent_id=agent_id,
            class_name=name if isinstance(name, str) else "",
            is_first=value.get("is_first") is True,
            heard=Heard.read(value.get("heard")),
            brought=_read_brought(value.get("brought")),
            is_whole=value.get("is_whole") is not False,
            has_entered=value.get("has_entered") is True,
            since=since if isinstance(since, str) else None,
            instructions=instructions if isinstance(instructions, str) else None,
            state=state if isinstance(state, Mapping) else None,
        )


Path = tuple[int, ...]
"""The place of a task: its number among the tasks that an agent's `on_enter` waits for.

If that agent is a task itself, the agent's own path comes before the number.
"""


@dataclass(frozen=True, slots=True)
class DoneTask:
    """A task that has ended."""

    path: Path
    agent_id: str
    class_name: str
    outcome: Mapping[str, Any] | None
    """See `write_outcome`. None if the outcome could not be stored; the task has to run again then."""
    since: str | None = None
    """The id of the handoff that gave the word back to the agent that waited for the task."""
    is_told: bool = False
    """Whether a group's `on_task_completed` has run."""

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which it is noted."""
        told = {"outcome": self.outcome, "since": self.since, "is_told": self.is_told or None}
        more = {name: value for name, value in told.items() if value is not None}
        return {"path": list(self.path), "agent_id": self.agent_id, "class": self.class_name, **more}


@dataclass(frozen=True, slots=True)
class HadTask:
    """A task that was running when the job before ended."""

    path: Path
    had: HadTheWord
    outcome: Mapping[str, Any] | None = None
    """What the task was completed with, if the agent that waits for the task did not have that yet."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """The task's fields as they are in the attribute."""


@dataclass(frozen=True, slots=True)
class HadTasks:
    """What an earlier job noted about the tasks that an agent's `on_enter` waits for."""

    done: tuple[DoneTask, ...] = ()
    running: tuple[HadTask, ...] = ()

    @property
    def chain(self) -> tuple[HadTask, ...]:
        """The tasks that ran inside each other; the last one had the word."""
        chain: list[HadTask] = []
        for one in self.running:
            if not chain or one.path[: len(chain[-1].path)] == chain[-1].path:
                chain.append(one)
        return tuple(chain)

    @property
    def given(self) -> str | None:
        """The id of the last known handoff to a task, or back from one."""
        handoffs = [one.had.since for one in self.chain] or [one.since for one in self.done]
        return next((one for one in reversed(handoffs) if one is not None), None)

    @property
    def is_settled(self) -> bool:
        """Whether nobody is owed an answer, because a task has just been completed or one has to run again."""
        is_ending = any(one.outcome is not None for one in self.running)
        return is_ending or any(one.outcome is None for one in self.done)

    @classmethod
    def read(cls, value: object, had: HadTheWord) -> Self | None:
        """Read the attribute, which anybody may have written.

        Return None if it is not about the agent that `had` the word, or is about another of its turns.
        """
        fields = value if isinstance(value, Mapping) else {}
        if (fields.get("agent_id"), fields.get("class")) != (had.agent_id, had.class_name):
            return None
        if fields.get("since") != had.since:
            return None
        done = (_read_done(one) for one in _listed(fields.get("done")))
        running = (_read_running(one) for one in _listed(fields.get("running")))
        return cls(
            tuple(sorted((one for one in done if one is not None), key=lambda one: one.path)),
            tuple(sorted((one for one in running if one is not None), key=lambda one: one.path)),
        )


def _listed(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def _read_done(value: Mapping[str, Any]) -> DoneTask | None:
    path, agent_id, name = _read_path(value.get("path")), value.get("agent_id"), value.get("class")
    if not path or not isinstance(agent_id, str) or not isinstance(name, str):
        return None
    outcome, since = value.get("outcome"), value.get("since")
    return DoneTask(
        path,
        agent_id,
        name,
        outcome if isinstance(outcome, Mapping) else None,
        since if isinstance(since, str) else None,
        is_told=value.get("is_told") is True,
    )


def _read_running(value: Mapping[str, Any]) -> HadTask | None:
    path, had, outcome = _read_path(value.get("path")), HadTheWord.read(value), value.get("outcome")
    if not path or had is None:
        return None
    return HadTask(path, had, outcome if isinstance(outcome, Mapping) else None, value)


def _read_path(value: object) -> Path:
    steps = value if isinstance(value, list | tuple) else ()
    is_path = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in steps)
    return tuple(steps) if is_path else ()


def _read_brought(value: object) -> tuple[Brought, ...]:
    brought = []
    for one in value if isinstance(value, list | tuple) else ():
        fields, after = (one.get("item"), one.get("after")) if isinstance(one, Mapping) else (None, None)
        try:
            item = to_livekit(item_from_dict(fields if isinstance(fields, Mapping) else {}))
        except InvalidInputError as error:
            logger.warning("an item of the agent's context cannot be restored", extra={"field": error.field})
            continue
        if item is not None:
            brought.append(Brought(after if isinstance(after, str) else None, item))
    return tuple(brought)
