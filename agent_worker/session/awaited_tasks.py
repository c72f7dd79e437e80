"""Keep the outcomes of the tasks that an agent's `on_enter` waits for, and give them back in the next job.

When `on_enter` runs again, ``await Task()`` returns at once if the task had an outcome. The first task that had none
goes on with what it knew. Tasks that a tool waits for are not kept.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from livekit.agents import Agent, AgentTask

from agent_worker.session.agent_classes import class_name
from agent_worker.session.had_the_word import DoneTask, HadTask, HadTasks, HadTheWord, Path
from agent_worker.session.outcomes import read_outcome, write_outcome
from agent_worker.session.record_fields import UnstorableError
from agent_worker.session.running_task import Follower, RunningTask, last_handoff, merge
from agent_worker.session.task_awaits import Plain, Scope, follow_awaits, scope_of_on_enter, until_over
from agent_worker.timing import TIMING

logger = logging.getLogger(__name__)

GiveBack = Callable[[Agent, HadTheWord], Awaitable[None]]
"""A function that gives an agent that has not entered yet what it knew."""


class AwaitedTasks:
    """What is known about the tasks that one agent's `on_enter` waits for."""

    def __init__(self, agent: Agent) -> None:
        """Begin without any tasks."""
        follow_awaits()
        self._agent = agent
        self._done: dict[Path, DoneTask] = {}
        self._pending: dict[Path, HadTask] = {}
        """The tasks that ran in the job before, and that this job has not reached yet."""
        self._running: dict[Path, RunningTask] = {}
        self._to_settle: list[RunningTask] = []
        self._give_back: GiveBack | None = None
        self._has_been_entered = False
        self._told: set[str] = set()
        self.is_closing = False
        """Whether a task was cancelled and none has begun since. The session may be closing then, and outcomes of tasks
        may come from that."""
        self.in_place = asyncio.Event()
        """An event that is set once it is known who has the word: the agent, or the task that had it."""
        self.in_place.set()
        self.listener: Callable[[], None] | None = None
        """A function that is called after each change."""
        self.timing = TIMING
        """How long a session may take to close. The listener sets it."""
        self.follower: Follower | None = None
        self.when_alive: Callable[[], None] | None = None
        """A function that is called once, when it is known that the session is not closing."""

    def go_on(self, had: HadTasks, give_back: GiveBack, *, is_entering: bool) -> None:
        """Give back, from now on, the outcomes that the tasks had in the job before."""
        self._done = {one.path: one for one in had.done}
        self._pending = {one.path: one for one in had.running}
        self._give_back = give_back
        if is_entering:
            self.in_place.clear()

    @property
    def done(self) -> list[DoneTask]:
        """The tasks that have ended, in order of their paths."""
        return [self._done[path] for path in sorted(self._done)]

    @property
    def running(self) -> list[RunningTask]:
        """The tasks that are running, each inside the one before it."""
        begun = (one for one in self._running.values() if one.has_begun)
        return sorted(begun, key=lambda one: one.path)

    @property
    def pending(self) -> list[HadTask]:
        """The tasks that ran in the job before and do not run in this one yet."""
        return [self._pending[path] for path in sorted(self._pending)]

    def forget(self) -> None:
        """Forget all tasks, those of the job before included."""
        self._done, self._pending, self._running, self._to_settle = {}, {}, {}, []

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Count the tasks that the enclosed block awaits as tasks of this agent."""
        if self._has_been_entered:  # the agent gets the word a second time in this job
            self.forget()
        self._has_been_entered = True
        token = scope_of_on_enter.set(Scope(self, (), self._agent, asyncio.current_task()))
        try:
            yield
            self._give_up_in(())
        finally:
            scope_of_on_enter.reset(token)
            self.in_place.set()
            self._settle()

    async def run(self, task: AgentTask[Any], scope: Scope) -> Any:
        """Do what ``await task`` does, or return (or raise) at once the outcome that the task had before."""
        path = scope.next_path()
        self._give_up_in(scope.path)
        await self._drop_others(path, task, scope.agent)
        done = self._done.get(path) or await self._completed(path, task, scope.agent)
        if done is not None and (given := self._given_again(done, task)) is not None:
            return given()
        running = RunningTask(path, task, scope.agent, task.instructions)
        await self._resume(running)
        self._follow(running)
        self._running[path] = running
        try:
            result = await Plain(task)
        except Exception as error:
            self._end(running, error)
            raise
        self._end(running, result)
        return result

    # The job before.

    async def _drop_others(self, path: Path, task: AgentTask[Any], parent: Agent) -> None:
        """Forget what was noted from here on if it belongs to another task, because the application has changed."""
        done, pending = self._done.get(path), self._pending.get(path)
        known = (done.agent_id, done.class_name) if done is not None else None
        if pending is not None:
            known = pending.had.agent_id, pending.had.class_name
        if known is None or known == (task.id, class_name(task)):
            return
        left = [self._pending.pop(one) for one in sorted(self._pending) if one >= path]
        self._done = {one: value for one, value in self._done.items() if one < path}
        details = {"agent_id": self._agent.id, "task_id": task.id, "noted": known[0]}
        logger.warning("on_enter waits for other tasks than it did: from here on they begin anew", extra=details)
        for one in left:
            scratch = Agent(instructions="")
            await self._give_all_back(scratch, one.had)
            await merge(parent, scratch)

    async def _completed(self, path: Path, task: AgentTask[Any], parent: Agent) -> DoneTask | None:
        """End a task that had completed before its agent got the outcome. Return None if there is no such task."""
        pending = self._pending.get(path)
        if pending is None or pending.outcome is None:
            return None
        await self._give_all_back(task, pending.had)
        await merge(parent, task)
        self._forget_below(path)
        self._done[path] = done = DoneTask(path, task.id, class_name(task), pending.outcome, pending.had.since)
        self._changed()
        if self.follower is not None:
            self.follower.ended(path[:-1])
        return done

    def _given_again(self, done: DoneTask, task: AgentTask[Any]) -> Callable[[], Any] | None:
        """Return a function that returns or raises the task's outcome, or None if the outcome cannot be restored."""
        try:
            result, error = read_outcome(done.outcome or {}, self._agent)
        except UnstorableError as unread:
            del self._done[done.path]
            self._tell_once("a task that had ended runs again: its result is lost", task, str(unread))
            return None
        if not task.done():
            AgentTask.complete(task, result if error is None else error)
        if self.follower is not None:
            self.follower.replayed(done.path[:-1], done.since)

        def give() -> Any:
            if error is not None:
                raise error
            return result

        return give

    async def _resume(self, running: RunningTask) -> None:
        """Give a task that ran in the job before what it knew, and its place in the call."""
        pending = self._pending.get(running.path)
        if pending is None:
            return
        running.had = had = pending.had
        running.since, running.has_entered = had.since, had.has_entered
        await self._give_all_back(running.task, had)
        if self.follower is not None and not self.in_place.is_set():
            self.follower.resumed(running.task, running.path, had)

    async def _give_all_back(self, task: Agent, had: HadTheWord) -> None:
        if self._give_back is None:
            return
        try:
            await self._give_back(task, had)
        except Exception as error:  # noqa: BLE001  # a task that knows nothing is better than an `on_enter` that raises
            self._tell_once("a task goes on without what it knew", task, type(error).__name__)

    # This job.

    def _follow(self, running: RunningTask) -> None:
        """Wrap a task's methods to follow when it enters, completes or is cancelled."""
        task = running.task
        enter, complete, cancel = task.on_enter, task.complete, task.cancel

        @functools.wraps(enter)
        async def on_enter() -> None:
            token = scope_of_on_enter.set(Scope(self, running.path, task, asyncio.current_task()))
            self._begin(running)
            with until_over(lambda: self._enter_is_over(running)):
                try:
                    await enter()
                finally:
                    scope_of_on_enter.reset(token)
                self._give_up_in(running.path)

        @functools.wraps(complete)
        def completed(result: Any) -> None:
            complete(result)
            self._complete(running, result)

        @functools.wraps(cancel)
        def cancelled() -> None:
            self.is_closing = True  # LiveKit cancels tasks when the session closes
            asyncio.get_running_loop().call_later(self.timing.task_closing, self._live_on)
            cancel()

        task.on_enter = on_enter  # type: ignore[method-assign]  # on this instance: there is no event
        task.complete = completed  # type: ignore[method-assign]
        task.cancel = cancelled  # type: ignore[method-assign]

    def _begin(self, running: RunningTask) -> None:
        """Note that a task has the word, so the session is not closing."""
        running.has_begun = True
        self._pending.pop(running.path, None)
        is_above = (one[: len(running.path)] == running.path for one in self._pending)
        if not any(is_above):
            self.in_place.set()
        self._live_on()

    def _live_on(self) -> None:
        """Note that the session is not closing."""
        self.is_closing = False
        self._settle()
        waiting, self.when_alive = self.when_alive, None
        if waiting is not None:
            waiting()

    def _enter_is_over(self, running: RunningTask) -> None:
        if not self.is_closing:
            running.has_entered = True
            self._changed()

    def _complete(self, running: RunningTask, result: object) -> None:
        """Keep a task's outcome. The agent that waits for the task gets it only after all speech has been played."""
        running.came_to, running.outcome = result, None
        try:
            running.outcome = write_outcome(result, self._agent)
        except UnstorableError as error:
            told = "what a task has come to cannot be stored: an agent that follows has to run it again"
            self._tell_once(told, running.task, str(error))
        self._changed()

    def _end(self, running: RunningTask, result: object) -> None:
        """Note that the agent that waited for a task goes on."""
        if not running.has_begun:  # the session was closing, or the application awaited the task wrongly
            self._running.pop(running.path, None)
            return
        if result is not running.came_to:
            self._complete(running, result)
        self._to_settle.append(running)
        if self.follower is not None:
            self.follower.ended(running.path[:-1])
        # a group merges the task's context, and the application takes the result, before anything else is awaited
        asyncio.get_running_loop().call_soon(self._settle)

    def _give_up_in(self, path: Path) -> None:
        """End with a timeout the tasks that the `on_enter` at `path` no longer waits for."""
        for one in list(self._running.values()):
            if one.path[:-1] == path and one not in self._to_settle:
                self._end(one, TimeoutError())

    def _settle(self) -> None:
        """Note the tasks that have ended with their outcomes. Do nothing while the session may be closing."""
        if self.is_closing:
            return
        ended, self._to_settle = self._to_settle, []
        for one in ended:
            if self._running.pop(one.path, None) is one:
                self._forget_below(one.path)
                self._done[one.path] = DoneTask(
                    one.path, one.task.id, class_name(one.task), one.outcome, last_handoff(one.parent)
                )
        self._changed()

    def _forget_below(self, path: Path) -> None:
        """Forget a task that has ended, and the tasks that ran inside it."""
        self._pending = {one: value for one, value in self._pending.items() if one[: len(path)] != path}
        self._done = {one: value for one, value in self._done.items() if one[: len(path)] != path}

    def is_told(self, path: Path) -> bool:
        """Tell whether the group has reported that task as completed."""
        return path in self._done and self._done[path].is_told

    def tell(self, path: Path) -> None:
        """Note that the group has reported that task as completed and does not do so again."""
        self._settle()
        if path in self._done:
            self._done[path] = replace(self._done[path], is_told=True)
            self._changed()

    def give_word(self, agent: Agent, handoff: str) -> RunningTask | None:
        """Note the handoff that gave the word to a task and return the task, or None if `agent` is not running here."""
        for one in self._running.values():
            if one.task is agent:
                one.since = one.since or handoff
                return one
        return None

    def _changed(self) -> None:
        if self.listener is not None:
            self.listener()

    def _tell_once(self, told: str, task: Agent, reason: str) -> None:
        if task.id not in self._told:
            self._told.add(task.id)
            logger.warning(told, extra={"agent_id": self._agent.id, "task_id": task.id, "reason": reason})
