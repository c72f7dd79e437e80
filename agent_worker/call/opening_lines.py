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

_entering: ContextVar[Agent | None] = ContextVar("agent that enters", default=None)
"""Whose `on_enter` the running code belongs to; tasks that it begins are told too."""


def has_begun(history: Iterable[Item], attributes: Mapping[str, Any]) -> bool:
    """Whether the agent that has the word has said something since it got it, or was told something."""
    for item in reversed(list(history)):
        if item.type == "agent_handoff":
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

    They are those that the agent's `on_enter` speaks or asks the model for, and those of the entrypoint's own task,
    until the caller has taken a turn. What another agent says that gets the word in this job is no opening.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        entrypoint: asyncio.Task[Any] | None,
        *,
        is_hushed: bool,
        is_call_hushed: bool,
        said: Iterable[str] = (),
    ) -> None:
        """`is_hushed`: the agent's own lines are not to be heard; `is_call_hushed`: the entrypoint's.

        `said`: what the caller has said in the call so far.
        """
        self._session, self._said = session, frozenset(said)
        self._is_hushed, self._is_call_hushed = is_hushed, is_call_hushed
        self._entrypoint = entrypoint
        self._is_past = False
        self.own: set[str] = set()
        """Ids of messages that repeat what the caller had said to the agent before this one."""
        self.has_spoken = False
        """Whether an opening line is heard, or asked for."""
        self.has_entered = asyncio.Event()
        """Set when `on_enter` has returned."""

    def start(self, agent: Agent) -> None:
        """Follow what the session says, and what the agent does that it is about to start with."""
        enter, say, reply = agent.on_enter, self._session.say, self._session.generate_reply

        @functools.wraps(enter)
        async def entered() -> None:
            token = _entering.set(agent)
            try:
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
            return reply(*arguments, **named)

        agent.on_enter = entered  # type: ignore[method-assign]  # on these instances: there is no event
        self._session.say = said  # type: ignore[method-assign]
        self._session.generate_reply = replied  # type: ignore[method-assign]
        self._session.on("user_input_transcribed", self._on_transcript)
        self._session.on("conversation_item_added", self._on_item)

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
        entering = _entering.get()
        is_entering = entering is not None and self._session.current_agent is entering
        is_entrypoint = entering is None and asyncio.current_task() is self._entrypoint
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
