"""What an agent says of itself when it begins: once in a call, and not again by its successor.

A greeting stands in `on_enter`, or after ``session.start`` in the entrypoint; a successor runs both again.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent, UserInputTranscribedEvent
from livekit.agents.llm import ChatMessage
from livekit.agents.voice import SpeechHandle

from agent_worker.session.active_agent import Word
from agent_worker.session.had_the_word import HadTheWord, Path
from agent_worker.session.notes import TRANSCRIPT, unanswered_words
from agent_worker.tenure.conversation import CallConversation
from agent_worker.timing import TIMING, Timing
from conversation_actors.items import Item


@dataclass(slots=True, eq=False)
class _Entering:
    """An agent that enters in this job, and may have done so before; or a task that its `on_enter` waits for."""

    lines: "OpeningLines"
    agent: Agent
    is_hushed: bool
    """Whether its lines are not to be heard."""
    is_left_out: bool
    """Whether its `on_enter` does not run."""
    is_past: bool = False
    """Whether what it does now was not done in the job before."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `on_enter` has returned, or was left out."""


_entering: ContextVar[_Entering | None] = ContextVar("the agent that enters", default=None)
"""Whose `on_enter` the running code belongs to; tasks that it begins are told too, and may outlive it."""


def apart() -> Context:
    """Return the running code's context, less who enters: what is said in it is no opening line."""
    context = copy_context()
    context.run(_entering.set, None)
    return context


def has_begun(history: Iterable[Item], attributes: Mapping[str, Any], *, since: str | None = None) -> bool:
    """Whether the agent that has the word has said something since it got it, or was told something.

    `since` is the id of the handoff that gave it the word. Those after it are of tasks, which speak in its name: a
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


def said_by_callers(items: Iterable[Item]) -> list[str]:
    """Return the texts of the user messages in a history."""
    told = (item.to_dict() for item in items if item.type == "message")
    parts = (fields.get("content") for fields in told if fields.get("role") == "user")
    return ["\n".join(one for one in part if isinstance(one, str)) for part in parts if isinstance(part, list)]


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
        has_begun_since: Callable[[str | None], bool] | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """`is_hushed`: the agent's own lines are not to be heard; `is_call_hushed`: the entrypoint's.

        `has_entered`: the agent's `on_enter` was over in an earlier job, and is not run by the start of this one.
        `said`: what the caller has said in the call so far. `has_begun_since`: whether anything was said since the
        handoff of that id.
        """
        self._session, self._said = session, frozenset(said)
        self._is_hushed, self._is_call_hushed, self._is_left_out_whole = is_hushed, is_call_hushed, has_entered
        self._entrypoint, self._timing = entrypoint, timing
        self._has_begun_since = has_begun_since or (lambda _since: is_hushed)
        self._enterings: dict[Path, _Entering] = {}
        self._is_past = False
        self._entrypoint_until: float | None = None
        self.own: set[str] = set()
        """Ids of messages that repeat what the caller had said to the agent before this one."""
        self.has_spoken = False
        """Whether an opening line is heard, or asked for."""
        self.has_asked = False
        """Whether a model was asked for one: it knows what was said before, and answers that."""

    def start(self, agent: Agent) -> None:
        """Follow what the session says, and what the agent does that it is about to start with."""
        self._follow((), _Entering(self, agent, self._is_hushed, self._is_left_out_whole))
        say, reply = self._session.say, self._session.generate_reply

        @functools.wraps(say)
        def said(*arguments: Any, **named: Any) -> SpeechHandle:
            return self._silence(say) if self._is_left_out() else say(*arguments, **named)

        @functools.wraps(reply)
        def replied(*arguments: Any, **named: Any) -> SpeechHandle:
            if self._is_left_out(named.get("user_input")):
                return self._silence(say)
            self.has_asked = self.has_asked or self.has_spoken
            return reply(*arguments, **named)

        self._session.say = said  # type: ignore[method-assign]  # on this instance: there is no event
        self._session.generate_reply = replied  # type: ignore[method-assign]
        self._session.on("user_input_transcribed", self._on_transcript)
        self._session.on("conversation_item_added", self._on_item)

    def _follow(self, path: Path, entering: _Entering) -> None:
        self._enterings[path] = entering
        enter = entering.agent.on_enter

        @functools.wraps(enter)
        async def entered() -> None:
            if entering.is_over.is_set():  # it gets the word again, in this job
                await enter()
                return
            token = _entering.set(entering)
            try:
                if not entering.is_left_out:
                    await enter()
            finally:
                _entering.reset(token)
                entering.is_over.set()

        entering.agent.on_enter = entered  # type: ignore[method-assign]  # on this instance: there is no event

    # See `Follower`: what the agent's `on_enter` waits for.

    def replayed(self, path: Path, since: str | None) -> None:
        """Leave out what is said after a task that was over, if something was said after it before."""
        entering = self._enterings.get(path)
        if entering is not None and since is not None:
            entering.is_hushed = self._has_begun_since(since)

    def resumed(self, task: Agent, path: Path, had: HadTheWord) -> None:
        """Follow a task that goes on as an agent that enters."""
        has_begun = self._has_begun_since(had.since)
        self._follow(path, _Entering(self, task, has_begun, had.has_entered and has_begun))

    def ended(self, path: Path) -> None:
        """Whoever has waited for a task that has ended in this job goes on where the job before never was."""
        for own, entering in self._enterings.items():
            if path[: len(own)] == own:
                entering.is_past = True

    def session_started(self) -> None:
        """Note that the session's start has returned, and the entrypoint goes on."""
        self._entrypoint_until = asyncio.get_running_loop().time() + self._timing.entrypoint

    async def begin(self, seconds: float) -> bool:
        """Whether opening lines are spoken, as soon as that can be known; it is waited for so long at most."""
        if self._is_call_hushed and all(one.is_hushed for one in self._enterings.values()):
            return False
        try:
            async with asyncio.timeout(seconds):
                await list(self._enterings.values())[-1].is_over.wait()
                # the entrypoint goes on after the start, and may speak a moment later
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
        entering, is_entrypoint = self._entering(), self._is_entrypoints_own()
        if self._is_past or (entering is None and not is_entrypoint):
            return False
        if is_entrypoint and user_input:
            text = user_input.text_content if isinstance(user_input, ChatMessage) else str(user_input)
            if text not in self._said:
                self._is_past = True
                return False
        is_left_out = self._is_call_hushed if entering is None else entering.is_hushed
        self.has_spoken = self.has_spoken or not is_left_out
        return is_left_out

    def _entering(self) -> _Entering | None:
        """Whose `on_enter` the running code belongs to; None if it has returned, or does what is new."""
        entering = _entering.get()
        if entering is None or entering.lines is not self or entering.is_over.is_set() or entering.is_past:
            return None
        return entering if self._session.current_agent is entering.agent else None

    def _is_entrypoints_own(self) -> bool:
        """Whether the running code is the entrypoint, at the beginning of the call."""
        until = self._entrypoint_until
        is_late = until is not None and asyncio.get_running_loop().time() > until
        return not is_late and _entering.get() is None and asyncio.current_task() is self._entrypoint

    @staticmethod
    def _silence(say: Any) -> SpeechHandle:
        """Return a speech that is over: no model is asked for it, and whoever awaits it goes on."""
        handle: SpeechHandle = say("", audio=_nothing(), add_to_chat_ctx=False)
        return handle.interrupt(force=True)

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        self._is_past = self._is_past or (event.is_final and bool(event.transcript.strip()))

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        is_turn = event.item.type == "message" and event.item.role == "user" and event.item.id not in self.own
        self._is_past = self._is_past or is_turn


def opening_lines_of(
    session: AgentSession[Any], conversation: CallConversation, word: Word, entrypoint: asyncio.Task[Any] | None
) -> OpeningLines | None:
    """Return the lines that the agent with the word would say again; None in a job that follows nobody."""
    if not conversation.is_restart:
        return None
    words = {TRANSCRIPT: conversation.noted(TRANSCRIPT)}
    items, had = conversation.items, word.had

    def has_talked_since(since: str | None) -> bool:
        return has_begun(items, words, since=since)

    is_hushed = not conversation.is_open or has_talked_since(None if had is None else had.since)
    return OpeningLines(
        session,
        entrypoint,
        is_hushed=is_hushed,
        # the entrypoint opens the call, and not the part of an agent that had the word later
        is_call_hushed=is_hushed or has_talked(conversation.items),
        # who entered and was never heard has lost its first words with its process, and enters again
        has_entered=had is not None and had.has_entered and has_talked_since(had.given),
        said=said_by_callers(conversation.items),
        has_begun_since=has_talked_since,
        timing=conversation.timing,
    )


async def _nothing() -> AsyncIterator[rtc.AudioFrame]:
    no_frames: tuple[rtc.AudioFrame, ...] = ()
    for frame in no_frames:
        yield frame
