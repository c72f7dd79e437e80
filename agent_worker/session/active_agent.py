"""Note which agent has the word and what it knows, so that the next job gives the word back to the same agent."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from livekit.agents import (
    Agent,
    AgentSession,
    AgentStateChangedEvent,
    AgentTask,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
)

from agent_worker.failures import Failures
from agent_worker.session.agent_classes import class_name, made_by_factory, made_by_itself
from agent_worker.session.entering import entrance_of
from agent_worker.session.fitting import fits, largest_of, size_of
from agent_worker.session.had_the_word import ACTIVE_AGENT, TASKS, HadTasks, HadTheWord
from agent_worker.session.handlers import total
from agent_worker.session.known_context import HeldHistory, KnownContext, Speaks
from agent_worker.session.notes import Noted, NoteTaker, look_up
from agent_worker.session.saved_state import latest_state, restore_itself
from agent_worker.session.told_tasks import ToldTasks
from agent_worker.timing import TIMING, Timing

logger = logging.getLogger(__name__)

MAX_BYTES = 48 << 10
"""The largest size of the attribute. A larger one is stored without the largest of the items that the application
brought into the context."""

Factory = Callable[..., Agent]
"""A function that makes an agent, either without an argument or from what the agent's `saved_state` returned (None if
it has none)."""


@dataclass(frozen=True, slots=True)
class Word:
    """The agent that a session is to be started with, and what is known about it."""

    agent: Agent
    had: HadTheWord | None
    """None if nothing is known. The whole history is the agent's context then."""


async def agent_with_the_word(
    first: Agent, noted: Noted, agents: Mapping[str, Factory], *, userdata: object = None
) -> Word:
    """Find or make the agent that had the word, and give it back its state and its instructions.

    If `first` was both the first agent and the one that had the word, return it. Otherwise try these in turn: the
    factory under the agent's id in `agents`, the agent with the same id and class in `userdata`, `first` if its id and
    class are the same, and the agent's own class if that needs no arguments. If none of these is possible, or making
    the agent raises, return `first`; the log says so in one sentence. Never raises.
    """
    had = HadTheWord.read(look_up(noted, ACTIVE_AGENT))
    if had is None:
        return Word(first, None)
    reason = "no factory for it, and its class cannot be made without arguments"
    try:
        agent = await _agent(first, had, agents, userdata)
    except Exception as error:  # noqa: BLE001  # the application's factory; the call goes on
        agent, reason = None, f"making it raised {type(error).__name__}"
    if agent is None:
        details = {"agent_id": had.agent_id, "class": had.class_name, "reason": reason}
        logger.warning("the first agent has the word again: name the other one in agents={id: factory}", extra=details)
        return Word(first, None)
    had = replace(had, tasks=HadTasks.read(look_up(noted, TASKS), had))
    await restore_itself(agent, had)
    return Word(agent, had)


async def _agent(first: Agent, had: HadTheWord, agents: Mapping[str, Factory], userdata: object) -> Agent | None:
    if had.is_first and first.id == had.agent_id:
        return first
    factory = agents.get(had.agent_id)
    if factory is not None:
        return await made_by_factory(factory, had.state)
    held = [one for one in _agents_in(userdata) if one.id == had.agent_id and class_name(one) == had.class_name]
    if len(held) == 1:
        return held[0]
    if first.id == had.agent_id and class_name(first) == had.class_name and type(first) is not Agent:
        return first
    made = made_by_itself(had.class_name, first)
    return made if made is not None and made.id == had.agent_id else None


def _agents_in(userdata: object) -> Iterator[Agent]:
    """Yield the agents that the application keeps in its userdata, or in a collection there."""
    fields = userdata if isinstance(userdata, Mapping) else getattr(userdata, "__dict__", {})
    for value in list(fields.values()):
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        yield from (one for one in inner if isinstance(one, Agent))


class ActiveAgent:
    """The attribute that says who has the word.

    It is updated at each handoff, after `on_enter`, at the end of each turn and after each tool. An `AgentTask` speaks
    in the name of the agent that waits for it; that agent is the one noted.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: NoteTaker,
        failures: Failures | None = None,
        *,
        first: Agent | None = None,
        had: HadTheWord | None = None,
        keep: Callable[[], None] | None = None,
        taken: Collection[str] = frozenset(),
        timing: Timing = TIMING,
    ) -> None:
        """Note nothing before `start`.

        `first` is the agent that the application started, and `had` is that of `Word`. `keep` notes what else the
        application has; it runs before the agent's own progress is noted. `taken` holds the ids of the items that were
        taken out of the conversation: they are never noted, even if an agent still has them.
        """
        self._session, self._conversation = session, conversation
        self._failures = failures or Failures()
        self._first, self._had, self._keep = first, had, keep
        self._agent: Agent | None = None
        self._is_taken_over = had is not None
        self._instructions: object = None
        self._has_entered = self._is_stopped = False
        self._since: str | None = None
        self._held = HeldHistory(session, taken)
        self._context = KnownContext(self._held)
        self._tasks = ToldTasks(session, self._held, self._failures, timing=timing)
        # if an earlier job noted tasks, that note stays until another one replaces it
        self._tasks_noted: dict[str, Any] | None = None if had is None or had.tasks is None else {}
        self._state: Mapping[str, Any] | None = had.state if had is not None else None
        self._noted: dict[str, Any] | None = None
        self._told: set[str] = set()
        handlers: dict[Any, Callable[[Any], None]] = {
            "conversation_item_added": self._on_item,
            "agent_state_changed": self._on_agent_state,
            "function_tools_executed": self._on_tools_executed,
        }
        told = "who has the word was not noted"
        self._handlers = {
            name: total(handler, self._failures, "active_agent", told) for name, handler in handlers.items()
        }
        self._look_safely = total(self._keep_and_look, self._failures, "active_agent", told)
        self._on_entered_safely = total(self._on_entered, self._failures, "active_agent", told)
        self._take_safely = total(self._take_current, self._failures, "active_agent", told)

    def start(self) -> None:
        """Note who has the word now, and every change from now on. Call this after the attribute has been read."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)
        self._take_safely()

    def stop(self) -> None:
        """Look a last time, then stop following the session."""
        for name, handler in self._handlers.items():
            self._session.off(name, handler)
        self._look_safely()
        self._is_stopped = True

    def look(self) -> None:
        """Look now, because an item must no longer be noted and the earlier notes are about to be forgotten."""
        self._look_safely()

    def _take_current(self) -> None:
        try:
            agent = self._session.current_agent
        except RuntimeError:  # the session has not started; its first handoff will tell who has the word
            return
        # LiveKit does not say which agent a task speaks for, so it is taken to be the first one
        taken = self._first if isinstance(agent, AgentTask) and self._first is not None else agent
        handoffs = (item for item in reversed(self._session.history.items) if item.type == "agent_handoff")
        entrance = entrance_of(taken)
        self._take(taken, next((item.id for item in handoffs if item.new_agent_id == taken.id), None))
        self._has_entered = self._has_entered or entrance.is_over
        self._look()

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if event.item.type == "agent_handoff":
            self._take(self._session.current_agent, event.item.id)

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state in {"listening", "thinking"}:  # the context may have been cut between these states
            self._look()

    def _on_tools_executed(self, _event: FunctionToolsExecutedEvent) -> None:
        self._look()

    def _take(self, agent: Agent, handoff: str | None) -> None:
        if isinstance(agent, AgentTask) and self._agent is not None:
            if handoff is not None:
                self._tasks.give_word(agent, handoff)
            return
        if agent is not self._agent:
            self._is_taken_over = self._agent is None and self._had is not None
            self._agent, self._state = agent, self._state if self._is_taken_over else None
            self._instructions = agent.instructions
            had = self._had if self._is_taken_over else None
            self._has_entered = had is not None and had.has_entered
            self._since = handoff if had is None else had.since
            entrance_of(agent).tell(self._on_entered_safely)
            self._context = KnownContext(self._held)
            self._tasks.take(agent, self._look_safely)
        self._context.begin()
        self._look()

    def _on_entered(self, agent: Agent) -> None:
        if agent is self._agent and not self._is_stopped:
            self._has_entered = True
            self._keep_and_look()

    def _keep_and_look(self) -> None:
        if self._keep is not None:
            self._keep()
        self._look()

    def _look(self) -> None:
        agent = self._agent
        if agent is None or self._tasks.is_frozen or self._is_stopped:
            return
        self._state = latest_state(agent, self._state, self._failures, tell=self._tell_once)
        speaks = Speaks.OWN if agent is self._session.current_agent else self._tasks.speaks
        told = {
            "agent_id": agent.id,
            "class": class_name(agent),
            "is_first": agent is self._first,
            "state": self._state,
            "instructions": self._own_instructions(agent),
            "has_entered": self._has_entered,
            "since": self._since,
            **self._context.look(agent, speaks),
        }
        # a task's outcome is noted after what its agent's context has of it
        self._note({name: value for name, value in told.items() if value is not None})
        self._note_tasks(self._tasks.look(self._since, has_entered=self._has_entered))

    def _own_instructions(self, agent: Agent) -> str | None:
        """Return the instructions to note, or None if the agent has them by itself or they are not text.

        The first agent has its instructions by itself as long as nobody changes them.
        """
        had = self._had if self._is_taken_over else None
        are_its_own = agent is self._first and agent.instructions == self._instructions
        if are_its_own and (had is None or had.instructions is None):
            return None
        return agent.instructions if isinstance(agent.instructions, str) else None

    def _note(self, told: dict[str, Any]) -> None:
        if told == self._noted:
            return
        self._noted = told
        self._conversation.note(ACTIVE_AGENT, self._within_bounds(told))

    def _note_tasks(self, told: dict[str, Any] | None) -> None:
        if told != self._tasks_noted:
            self._tasks_noted = told
            self._conversation.note(TASKS, told)

    def _within_bounds(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return as much of `told` as can be stored. The next agent keeps the rest as it was made with."""
        if fits(told, MAX_BYTES):
            return told
        self._tell_once("what was put into the agent's context, or its instructions, cannot be stored")
        brought = list(told.get("brought", ()))
        room = MAX_BYTES - size_of({**told, "brought": [], "is_whole": False})
        gone = largest_of(brought, room)
        left = [one for place, one in enumerate(brought) if place not in gone]
        if brought and fits(shorter := {**told, "brought": left, "is_whole": False}, MAX_BYTES):
            return shorter
        for name in ("brought", "instructions", "heard"):
            told = {key: value for key, value in told.items() if key != name} | {"is_whole": False}
            if fits(told, MAX_BYTES):
                break
        return told

    def _tell_once(self, reason: str) -> None:
        agent_id = self._agent.id if self._agent is not None else ""
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("not all of the agent can come back", extra={"agent_id": agent_id, "reason": reason})
