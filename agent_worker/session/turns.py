"""Turns that no message comes of: refused by the application, taken back by it, or skipped by LiveKit.

LiveKit has no event for any of them. Words that a refused turn leaves would be answered by the next agent.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent
from livekit.agents.llm import ChatContext, ChatMessage
from livekit.agents.voice.events import ToolCallEnded, ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.notes import SessionNotes, unanswered_item
from agent_worker.session.turn_context import TurnContexts, keep_out, takes_context, without_turn_context
from agent_worker.timing import TIMING, Timing

_WATCHED = "watched_by_turns"
_FAILURE = "a turn was not followed"


class Turns:
    """The turns of a session: its notes forget words that no message comes of. Handlers never raise and never wait."""

    def __init__(
        self,
        session: AgentSession[Any],
        notes: SessionNotes,
        failures: Failures | None = None,
        *,
        contexts: TurnContexts | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Nothing is watched before `start`. What goes wrong in a handler is counted in `failures`.

        `contexts`: asked at each turn, before the application decides about it, what the agent is to know for it.
        """
        counted = failures or Failures()

        def safely(handler: Callable[..., None]) -> Callable[..., None]:
            return total(handler, counted, "turns", _FAILURE)

        self._safely = safely
        self._session, self._notes, self._timing = session, notes, timing
        self._contexts, self._failures = contexts, counted
        self._cleaning: set[asyncio.Task[None]] = set()
        self._completing = 0
        self._running: set[str] = set()
        self._is_reply_skipped = self._has_failed = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "conversation_item_added": safely(self._on_item),
            "function_tools_executed": safely(self._look_later),
            "tool_execution_updated": safely(self._on_tool),
            "error": safely(self._on_error),
            "user_input_transcribed": safely(self._look_later),
            "user_state_changed": safely(self._look_later),
            "agent_state_changed": safely(self._look_later),
        }

    def start(self) -> None:
        """Watch from now on, each agent that gets the word; before the session starts."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)
        clear = self._session.clear_user_turn

        @functools.wraps(clear)
        def cleared() -> None:
            clear()
            if not self._is_stopped:
                self._notes.cancel_turn()

        commit = self._session.commit_user_turn

        @functools.wraps(commit)
        def committed(**named: Any) -> asyncio.Future[str]:
            self._is_reply_skipped = named.get("skip_reply") is True
            return commit(**named)

        self._session.clear_user_turn = cleared  # type: ignore[method-assign]  # on this instance: there is no event
        self._session.commit_user_turn = committed  # type: ignore[method-assign]

    def stop(self) -> None:
        """Watch no more."""
        self._is_stopped = True
        for name, handler in self._handlers.items():
            self._session.off(name, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if event.item.type == "agent_handoff":
            # it has the word, and has not begun
            self._watch(self._session.current_agent)
        elif event.item.type == "message":
            self._has_failed = False
            if event.item.role == "user" and self._is_reply_skipped:
                self._is_reply_skipped = False
                self._notes.settle(event.item.id)
        self._look_later()

    def _on_tool(self, event: ToolExecutionUpdatedEvent) -> None:
        """Know which tools run, also in the background: what comes of them is not known yet."""
        if isinstance(event.update, ToolCallStarted):
            self._running.add(event.update.function_call.call_id)
        elif isinstance(event.update, ToolCallEnded):
            self._running.discard(event.update.call_id)
        self._look_later()

    def _on_error(self, _event: object) -> None:
        """Note that a model has failed: what it did not answer is a question still."""
        self._has_failed = True

    def _watch(self, agent: Agent) -> None:
        """Learn what an agent decides about a turn that has ended."""
        decide = agent.on_user_turn_completed
        if getattr(decide, _WATCHED, None) is self:
            return
        if self._contexts is not None:
            self._keep_context_out(agent)

        @functools.wraps(decide)
        async def decided(*arguments: Any, **named: Any) -> None:
            if self._is_stopped:
                await decide(*arguments, **named)
                return
            message = named.get("new_message", arguments[-1] if arguments else None)
            self._notes.complete_turn(getattr(message, "text_content", None) or "")
            self._completing += 1
            try:
                await self._add_context(agent, named.get("turn_ctx", arguments[0] if arguments else None), message)
                await decide(*arguments, **named)
            except Exception:
                self._notes.refuse_turn()
                raise
            finally:
                self._completing -= 1
                self._look_later()

        setattr(decided, _WATCHED, self)
        agent.on_user_turn_completed = decided  # type: ignore[method-assign]  # on this instance: there is no event

    async def _add_context(self, agent: Agent, turn_ctx: object, message: object) -> None:
        """Tell the agent what others know, if they say it in time."""
        if self._contexts is None or not isinstance(turn_ctx, ChatContext) or not isinstance(message, ChatMessage):
            return
        if takes_context(agent, self._session):
            await self._contexts.add(turn_ctx, message)

    def _keep_context_out(self, agent: Agent) -> None:
        """Have an agent keep nothing of what was added to one turn, also if it was made from that turn's context."""
        keep_out(agent)
        if without_turn_context(agent.chat_ctx) is not agent.chat_ctx:
            work = functools.partial(agent.update_chat_ctx, agent.chat_ctx, exclude_invalid_function_calls=False)
            task = asyncio.get_running_loop().create_task(self._failures.at_most_once("turns", work))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)

    def _look_later(self, _event: object = None) -> None:
        """Look when the turn must have ended, if nothing happens until then."""
        # the notes may hear of the event after this: not every version of LiveKit calls handlers in their order
        asyncio.get_running_loop().call_soon(self._safely(self._set_timer))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        is_open = self._notes.has_unsettled_words or unanswered_item(self._session.history.items) is not None
        if is_open and not self._is_stopped:
            self._timer = asyncio.get_running_loop().call_later(self._longest_wait(), self._safely(self.look))

    def _longest_wait(self) -> float:
        """Seconds after which words without a message will have none."""
        own = self._session.current_agent.max_endpointing_delay
        waited = float(own) if isinstance(own, int | float) else self._session.options.endpointing["max_delay"]
        return waited + self._timing.turn_slack

    def look(self) -> None:
        """Settle what nobody has answered, and drop the words that no message has come of, if nothing goes on."""
        is_quiet = self._session.agent_state in {"listening", "idle"} and self._session.user_state != "speaking"
        if not is_quiet or self._completing or self._session.current_speech is not None:
            return
        if self._notes.has_unsettled_words and not self._is_manual():
            self._notes.drop_words()
        item = unanswered_item(self._session.history.items)
        if item is not None and not (self._has_failed or self._running):
            self._notes.settle(item.id)

    def _is_manual(self) -> bool:
        """Whether the application says when a turn ends: it may take its time."""
        return "manual" in (self._session.current_agent.turn_detection, self._session.turn_detection)
