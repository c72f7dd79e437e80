"""What an agent says without having been asked: a greeting, that it is back, and the answer that another one owed."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from livekit.agents import AgentSession
from livekit.agents.llm import ChatItem, ChatMessage, RealtimeModel
from livekit.agents.utils import is_given
from livekit.agents.voice import SpeechHandle

from agent_worker.call.opening_lines import OpeningLines
from agent_worker.session.notes import SETTLED, TRANSCRIPT, unanswered_item, unanswered_words
from agent_worker.tenure.conversation import CallConversation

logger = logging.getLogger(__name__)

_OPENING_SECONDS = 1.0
"""How long an agent that has not said anything yet may take to open the call by itself."""
_SPOKEN_BY_MODEL = "Say exactly this, and nothing else: {line}"
_SPOKEN_FIRST = "Say exactly this first: {line}\nThen answer what the caller said last."


class Speaking:
    """Says what a call calls for, in a session that listens."""

    def __init__(
        self, session: AgentSession[Any], conversation: CallConversation, opening: OpeningLines | None
    ) -> None:
        """Take the agent's own lines (`opening`), in a job that follows another one."""
        self._session, self._conversation, self._opening = session, conversation, opening
        self._words: str | None = None
        self._message: str | None = None
        self._is_unanswered = False
        self._is_told = asyncio.Event()

    def owe(self, settled: str | None = None) -> None:
        """Note what the agent before this one has left without an answer: the history's last message, and words.

        `settled`: the id of an item that is answered, as all is before it.
        """
        noted = self._conversation.noted(TRANSCRIPT)
        history = self._session.history.items
        last = _last_user_message(history)
        self._words = unanswered_words({TRANSCRIPT: noted}, "" if last is None else last.text_content or "")
        self._message = None if last is None else last.id
        item = unanswered_item(_behind(history, settled))
        self._is_unanswered = item is not None and item.id != self._conversation.noted(SETTLED)
        if noted is not None and self._words is None:
            self._conversation.note(TRANSCRIPT, None)
        self._is_told.set()

    async def say(self, line: str) -> None:
        """Say a line; one that cannot be spoken is left out."""
        if line:
            self._say(line, is_talk=True)

    def say_last(self, line: str) -> SpeechHandle | None:
        """Say a line, and return what says it; None if it cannot be spoken. Raises if the session has closed."""
        return self._say(line, is_talk=True)

    async def resume(self, line: str) -> None:
        """After a crash: say so, by a line, and answer what is unanswered; only that if the agent opens the call."""
        await self._is_told.wait()
        if self._opening is not None and await self._opening.begin(_OPENING_SECONDS):
            if not self._opening.has_asked:
                self.answer()
            return
        if line and self._is_speech_to_speech():
            # one reply: the model would take its own line for the answer
            self._reply(instructions=self._told(line, _SPOKEN_FIRST if self._is_answer_owed() else _SPOKEN_BY_MODEL))
            return
        if line:
            # not part of the talk: the model would take it for its answer
            self._say(line, is_talk=False)
        self.answer()

    def answer(self) -> SpeechHandle | None:
        """Answer what the agent before this one has left; None if there is nothing."""
        return self._reply() if self._is_answer_owed() else None

    def answer_lost(self, item_id: str) -> SpeechHandle | None:
        """Answer what the talk ends with still, which a model was asked for in vain; None if there is nothing."""
        item = unanswered_item(self._session.history.items)
        is_lost = item is not None and item.id == item_id and item_id != self._conversation.noted(SETTLED)
        if not is_lost or self._session.current_speech is not None:
            return None
        return self._session.generate_reply()

    def _is_answer_owed(self) -> bool:
        """Whether something is unanswered still: who has taken a turn since is answered by the session itself."""
        last = _last_user_message(self._session.history.items)
        is_latest = (None if last is None else last.id) == self._message
        return self._words is not None or (self._is_unanswered and is_latest)

    def _reply(self, **named: Any) -> SpeechHandle:
        words, self._words, self._is_unanswered = self._words, None, False
        if words is not None:
            if self._opening is not None:
                self._opening.own.add(words)
            named["user_input"] = words
        return self._session.generate_reply(**named)

    def _say(self, line: str, *, is_talk: bool) -> SpeechHandle | None:
        try:
            return self._session.say(line, add_to_chat_ctx=is_talk)
        except RuntimeError as error:
            if self._is_speech_to_speech():
                return self._session.generate_reply(instructions=self._told(line, _SPOKEN_BY_MODEL))
            logger.warning("a line was left out: it cannot be spoken", extra={"reason": type(error).__name__})
        return None

    @staticmethod
    def _told(line: str, form: str) -> str:
        """Return what a model is told; the plugin puts it after the agent's instructions, whose place it would take."""
        return form.format(line=line)

    def _is_speech_to_speech(self) -> bool:
        """Whether the agent speaks with a model that hears, and with no voice beside it."""
        agent, session = self._session.current_agent, self._session
        model = agent.llm if is_given(agent.llm) else session.llm
        voice = agent.tts if is_given(agent.tts) else session.tts
        return isinstance(model, RealtimeModel) and voice is None


def _behind(history: Sequence[ChatItem], item_id: str | None) -> Sequence[ChatItem]:
    place = next((index for index, item in enumerate(history, start=1) if item.id == item_id), 0)
    return history[place:]


def _last_user_message(history: Sequence[ChatItem]) -> ChatMessage | None:
    said = (item for item in reversed(history) if item.type == "message" and item.role == "user")
    return next(said, None)
