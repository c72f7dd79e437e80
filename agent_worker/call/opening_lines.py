"""What an agent says of itself when it begins: once in a call, and not again by its successor.

A greeting stands in `on_enter`, or behind ``session.start`` in the entrypoint; a successor runs both again.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent, UserInputTranscribedEvent
from livekit.agents.llm import ChatMessage
from livekit.agents.voice import SpeechHandle

from agent_worker.session.notes import unanswered_words
from conversation_actors.items import Item

_ENTRYPOINT_SECONDS = 3.0
"""How long behind the session's start what the entrypoint says is an opening: in a successor its caller is there."""
_entering: ContextVar["OpeningLines | None"] = ContextVar("opening lines of the agent that enters", default=None)
"""Whose `on_enter` the running code belongs to; tasks that it begins are told too, and may outlive it."""


def has_begun(history: Iterable[Item], attributes: Mapping[str, Any], *, since: str | None = None) -> bool:
    """Whether the agent that has the word has said something since it got it, or was told something.

    `since` is the id of the handoff that gave it the word. Those behind it are of tasks, which speak in its name: a
    task that ends gives the word back, and that is a handoff like any other. None: the last handoff is taken for it.
    """
    for item in reversed(list(history)):
        if item.id == since or (since is None and item.type == "agent_handoff"):
            break
        if _is_talk(item):
            return True
    return unanswered_words(attributes, "") is not None


def has_talked(history: Iterable[Item]) -> bool:
    """Whether anything was said in a call, by whichever agent or to it."""
    return any(_is_talk(item) for item in history)


def _is_talk(item: Item) -> bool:
    return item.type == "message" and item.to_dict().get("role") in {"assistant", "user"}


class OpeningLines:
    """The lines that open a call, of a session in a job that follows another one.

    They are those that the agent's `on_enter` speaks or asks the model for until it has returned, and those of the
    entrypoint's own task until a moment after the session's start; and none once the caller has taken a turn. What
    another agent says that gets the word in this job is no opening.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        entrypoint: asyncio.Task[Any] | None,
        *,
        is_hushed: bool,
        is_call_hushed: bool,
        has_entered: bool = False,
        said: Iterable[str] = (),
    ) -> None:
        """`is_hushed`: the agent's own lines are not to be heard; `is_call_hushed`: the entrypoint's.

        `has_entered`: the agent's `on_enter` was over in an earlier job, and is not run by the start of this one.
        `said`: what the caller has said in the call so far.
        """
        self._session, self._said = session, frozenset(said)
        self._is_hushed, self._is_call_hushed, self._is_left_out_whole = is_hushed, is_call_hushed, has_entered
        self._entrypoint = entrypoint
        self._agent: Agent | None = None
        self._is_past = False
        self._entrypoint_until: float | None = None
        self.own: set[str] = set()
        """Ids of messages that repeat what the caller had said to the agent before this one."""
        self.has_spoken = False
        """Whether an opening line is heard, or asked for."""
        self.has_asked = False
        """Whether a model was asked for one: it knows what was said before, and answers that."""
        self.has_entered = asyncio.Event()
        """Set when `on_enter` has returned, or was left out."""

    def start(self, agent: Agent) -> None:
        """Follow what the session says, and what the agent does that it is about to start with."""
        self._agent = agent
        enter, say, reply = agent.on_enter, self._session.say, self._session.generate_reply

        @functools.wraps(enter)
        async def entered() -> None:
            if self.has_entered.is_set():  # it gets the word again, in this job
                await enter()
                return
            token = _entering.set(self)
            try:
                if not self._is_left_out_whole:
                    await enter()
            finally:
                _entering.reset(token)
                self.has_entered.set()

        @functools.wraps(say)
        def said(*arguments: Any, **named: Any) -> SpeechHandle:
            return self._silence(say) if self._is_left_out() else say(*arguments, **named)

        @functools.wraps(reply)
        def replied(*arguments: Any, **named: Any) -> SpeechHandle:
            if self._is_left_out(named.get("user_input")):
                return self._silence(say)
            self.has_asked = self.has_asked or self.has_spoken
            return reply(*arguments, **named)

        agent.on_enter = entered  # type: ignore[method-assign]  # on these instances: there is no event
        self._session.say = said  # type: ignore[method-assign]
        self._session.generate_reply = replied  # type: ignore[method-assign]
        self._session.on("user_input_transcribed", self._on_transcript)
        self._session.on("conversation_item_added", self._on_item)

    def session_started(self) -> None:
        """The session's start has returned, and the entrypoint goes on."""
        self._entrypoint_until = asyncio.get_running_loop().time() + _ENTRYPOINT_SECONDS

    async def begin(self, seconds: float) -> bool:
        """Whether opening lines are spoken, as soon as that can be known; it is waited for so long at most."""
        if self._is_hushed and self._is_call_hushed:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.has_entered.wait()
                # the entrypoint goes on behind the start, and may speak a moment later
                while self._may_still_speak():  # noqa: ASYNC110  # there is no event for what it does next
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        return self.has_spoken

    def _may_still_speak(self) -> bool:
        """Whether the entrypoint has not said anything yet, and could."""
        is_done = self._entrypoint is None or self._entrypoint.done()
        return not (self.has_spoken or self._is_call_hushed or is_done)

    def _is_left_out(self, user_input: object = None) -> bool:
        """Whether what is about to be said is an opening line that nobody is to hear."""
        is_entering, is_entrypoint = self._is_agents_own(), self._is_entrypoints_own()
        if self._is_past or not (is_entering or is_entrypoint):
            return False
        if is_entrypoint and user_input:
            text = user_input.text_content if isinstance(user_input, ChatMessage) else str(user_input)
            if text not in self._said:
                self._is_past = True
                return False
        is_left_out = self._is_hushed if is_entering else self._is_call_hushed
        self.has_spoken = self.has_spoken or not is_left_out
        return is_left_out

    def _is_agents_own(self) -> bool:
        """Whether the running code belongs to the agent's `on_enter`, which has not returned."""
        is_entering = _entering.get() is self and not self.has_entered.is_set()
        return is_entering and self._session.current_agent is self._agent

    def _is_entrypoints_own(self) -> bool:
        """Whether the running code is the entrypoint, at the beginning of the call."""
        until = self._entrypoint_until
        is_late = until is not None and asyncio.get_running_loop().time() > until
        return not is_late and _entering.get() is None and asyncio.current_task() is self._entrypoint

    @staticmethod
    def _silence(say: Any) -> SpeechHandle:
        """A speech that is over: no model is asked for it, and whoever awaits it goes on."""
        handle: SpeechHandle = say("", audio=_nothing(), add_to_chat_ctx=False)
        return handle.interrupt(force=True)

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        self._is_past = self._is_past or (event.is_final and bool(event.transcript.strip()))

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        is_turn = event.item.type == "message" and event.item.role == "user" and event.item.id not in self.own
        self._is_past = self._is_past or is_turn


async def _nothing() -> AsyncIterator[rtc.AudioFrame]:
    no_frames: tuple[rtc.AudioFrame, ...] = ()
    for frame in no_frames:
        yield frame
