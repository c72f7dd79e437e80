"""The life of one session in one room: from the first word to whoever comes next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from livekit import rtc
from livekit.agents import (
    AgentSession,
    AgentStateChangedEvent,
    CloseEvent,
    CloseReason,
    SpeechCreatedEvent,
    get_job_context,
)
from livekit.agents.llm import ChatItem

from agent_worker.call.opening import NOT_FINISHED
from agent_worker.call.participants import Participants, is_human
from agent_worker.call.welcome import Welcome
from agent_worker.session.bounds import SessionBounds
from agent_worker.session.handlers import total
from agent_worker.session.notes import SessionNotes, unanswered_words
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import restore_late
from agent_worker.tenure.conversation import CallConversation

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.5
_QUIET_SECONDS = 0.75
"""Longer than the offline turn detection waits for the end of a turn; others commit within it or show words."""


class Call:
    """One session in one room, with the conversation that outlives it."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: CallConversation,
        recorder: Recorder,
        room: rtc.Room | None,
    ) -> None:
        self._session, self._conversation, self._recorder = session, conversation, recorder
        self._room = room
        self._was_open = conversation.is_open
        self._failures = conversation.failures
        self._notes = SessionNotes(session, conversation, self._failures)
        self._bounds = SessionBounds(session, conversation.settings.session_items, self._failures)
        self._participants = (
            None
            if room is None
            else Participants(room, conversation, on_welcome=self._on_welcome, on_empty=self._on_empty)
        )
        self._listening = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lingering: asyncio.Task[None] | None = None
        self._redials: asyncio.Task[None] | None = None
        self._has_resumed = False
        self._language: str | None = None
        self._is_over = False

    def start(self) -> None:
        """Follow the session, the conversation and the room from now on."""
        self._notes.start()
        self._bounds.start()
        self._session.on("agent_state_changed", self._on_agent_state)
        self._session.on("close", self._on_close)
        self._conversation.on_items_missed(self._record_again)
        if self._participants is not None and self._room is not None:
            self._participants.start()
            told = "the speaker was not followed"
            on_speakers = total(self._on_active_speakers, self._failures, "speakers", told)
            self._room.on("active_speakers_changed", on_speakers)
        self._follow("deposition", self._follow_deposition)
        self._follow("handover", self._follow_handover)
        self._redials = self._follow("redials", self._follow_redials)
        if not self._was_open:
            self._spawn("catch_up", self._catch_up())
        if self._conversation.is_waiting_for_handover:
            # it listens already, and hears nothing yet
            self._session.input.set_audio_enabled(False)
            self._session.on("speech_created", self._on_speech)

    # What is said without having been asked.

    def _on_welcome(self, wanted: Welcome, language: str | None) -> None:
        self._language = language
        if wanted is Welcome.RESUME and not self._conversation.is_planned_handover and not self._has_resumed:
            self._has_resumed = True
            self._spawn("resume", self._resume())
        elif wanted in {Welcome.FIRST, Welcome.BACK}:
            self._spawn("say", self._say(self._conversation.settings.line(wanted, language)))

    async def _say(self, line: str) -> None:
        await self._listening.wait()
        if line and not self._is_over:
            self._session.say(line)

    async def _resume(self) -> None:
        """After a crash: say so, in a word, and answer what is unanswered."""
        await self._listening.wait()
        if self._is_over:
            return
        line = self._conversation.settings.line(Welcome.RESUME, self._language)
        if line:
            # not part of the talk: the model would take it for its answer
            self._session.say(line, add_to_chat_ctx=False)
        self._answer_unanswered()

    def _answer_unanswered(self) -> None:
        history = self._session.history.items
        words = unanswered_words(self._conversation.attributes, _last_user_text(history))
        if words is not None:
            self._session.generate_reply(user_input=words)
        elif _is_unanswered(history):
            self._session.generate_reply()

    async def _catch_up(self) -> None:
        """The conversation opened late, or was given over: give the session what happened in it before."""
        await self._conversation.wait_open()
        await self._listening.wait()
        try:
            restored = await restore_late(self._session, self._conversation)
        finally:
            if self._conversation.is_planned_handover:
                self._session.input.set_audio_enabled(True)
                self._session.off("speech_created", self._on_speech)
        self._recorder.record(restored.interrupted_calls)
        logger.info("the conversation joined the call", extra={"items": restored.items})
        if self._conversation.is_planned_handover and not self._is_over:
            # the other agent may have had to go in the middle of something
            self._answer_unanswered()

    def _record_again(self, is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        """Give the conversation what it lacks of this session; nobody hears anything of that."""
        self._recorder.record_again(is_afresh=is_afresh, is_full=self._conversation.is_full)

    # Who is here.

    def _on_empty(self, is_empty: bool) -> None:  # noqa: FBT001  # a callback of one value
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if is_empty:
            self._lingering = self._follow("linger", self._leave_when_nobody_comes)
        elif self._is_over:
            # the session closed when its caller went, and somebody is here: the next agent is called
            self._end("somebody came back", is_clean=False)
        else:
            self._link_somebody()

    async def _leave_when_nobody_comes(self) -> None:
        await asyncio.sleep(self._conversation.settings.linger.total_seconds())
        self._end("nobody is in the room", is_clean=True)

    def _link_somebody(self, identity: str | None = None) -> None:
        """Listen to `identity`, or to anybody where the one who was listened to has left."""
        if self._participants is None or not self._listening.is_set():
            return
        room_io = self._session.room_io
        linked = room_io.linked_participant
        if identity is None:
            here = self._participants.present
            if (linked is not None and linked.identity in here) or not here:
                return
            identity = min(here)
        if linked is None or linked.identity != identity:
            room_io.set_participant(identity)

    def _on_active_speakers(self, speakers: list[rtc.Participant]) -> None:
        """Listen to whoever speaks, while nobody else does: LiveKit hears one participant at a time."""
        people = [one.identity for one in speakers if is_human(one)]
        linked = self._session.room_io.linked_participant if self._listening.is_set() else None
        if not people or linked is None or linked.identity in people or self._session.user_state == "speaking":
            return
        self._link_somebody(people[0])

    # How it ends.

    async def _follow_deposition(self) -> None:
        await self._conversation.deposed.wait()
        self._recorder.stop()
        self._end("another agent has taken over", is_clean=False)

    async def _follow_handover(self) -> None:
        """Give the call over when neither side is speaking."""
        await self._conversation.handover_asked.wait()
        await self._listening.wait()
        quiet_since = asyncio.get_running_loop().time()
        # Who has stopped speaking has not been answered yet: that takes as long as the end of a turn is waited for.
        while (now := asyncio.get_running_loop().time()) - quiet_since < _QUIET_SECONDS or self._is_busy:
            if self._is_busy:
                quiet_since = now
            await asyncio.sleep(_POLL_SECONDS)
        self._session.input.set_audio_enabled(False)
        await self._go("handed over")

    async def _follow_redials(self) -> None:
        """Let an agent in another room have the conversation, as soon as it asks while nobody is in this one."""
        while True:
            await self._conversation.redialled.wait()
            if self._participants is not None and self._participants.is_empty:
                break
            await self._conversation.refuse_redial()
        await self._go("the call goes on in another room")

    async def _go(self, reason: str) -> None:
        """Leave the call to the successor that waits for it."""
        self._stop()
        await self._conversation.hand_over()
        self._end(reason, is_clean=True)

    @property
    def _is_busy(self) -> bool:
        """Whether somebody speaks, or something that was said is not answered yet."""
        states = (self._session.agent_state, self._session.user_state)
        return states[0] != "listening" or states[1] == "speaking" or self._notes.has_unsettled_words

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening":
            self._listening.set()
            self._conversation.ready()

    @staticmethod
    def _on_speech(event: SpeechCreatedEvent) -> None:
        """Two agents are in the room: the one that has the call speaks."""
        try:
            event.speech_handle.interrupt(force=True)
        except RuntimeError as error:
            logger.warning("a speech could not be stopped", extra={"reason": str(error)})

    def _on_close(self, event: CloseEvent) -> None:
        self._stop()
        if event.reason is CloseReason.ERROR:
            self._end("the session failed", is_clean=False)
        elif event.reason is CloseReason.PARTICIPANT_DISCONNECTED and self._participants is not None:
            # the participants are still followed: somebody may come back
            self._on_empty(not self._participants.present)

    def _stop(self) -> None:
        """Record no more."""
        self._is_over = True
        self._recorder.stop()
        self._notes.stop()
        self._bounds.stop()

    def _end(self, reason: str, *, is_clean: bool) -> None:
        """End the job; not clean: in a way that has the next agent called."""
        self._stop()
        if self._participants is not None:
            self._participants.stop()
        if self._redials is not None:
            # who asks now gets the call when this job has ended, and must not be refused
            self._redials.cancel()
        context = get_job_context(required=False)
        if context is not None:
            logger.info("the job ends", extra={"reason": reason, "conversation_id": self._conversation.id})
            context.shutdown(reason if is_clean else NOT_FINISHED)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something once. What it raises is counted, and the call goes on without what it was to do."""
        return self._keep_task(self._failures.at_most_once(name, work))

    def _follow(self, name: str, step: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that the end of the call hangs on. What it raises is counted, and it is begun anew."""
        return self._keep_task(self._failures.until_done(name, step, pause=_RETRY_SECONDS))

    def _keep_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _last_user_text(history: Sequence[ChatItem]) -> str:
    said = (item for item in reversed(history) if item.type == "message" and item.role == "user")
    return next((item.text_content or "" for item in said), "")


def _is_unanswered(history: Sequence[ChatItem]) -> bool:
    """Whether the last thing that happened wants the agent to speak."""
    for item in reversed(history):
        if item.type == "message":
            return item.role == "user"
        if item.type in {"function_call", "function_call_output"}:
            return True
    return False
