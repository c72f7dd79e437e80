"""A conversation that opens while the session runs already: the session is given what happened in it before."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import Agent, AgentSession, AgentTask

from agent_worker.session.active_agent import Word
from agent_worker.session.entering import entrance_of
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.late_note import AtStart, late_note
from agent_worker.session.notes import Noted
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import restore_late
from agent_worker.session.userdata import Userdata
from agent_worker.tenure.conversation import CallConversation

logger = logging.getLogger(__name__)

Choose = Callable[[Agent, Noted], Awaitable[Word]]
"""Chooses the agent that had the word, by what is noted of it; else the one given."""
WITHOUT = "a session starts without a part of what was before"


class LateJoining:
    """The restoration of a session that has started before its conversation was open."""

    def __init__(
        self, session: AgentSession[Any], conversation: CallConversation, recorder: Recorder, userdata: Userdata
    ) -> None:
        """Nothing is restored before `choose`."""
        self._session, self._conversation = session, conversation
        self._recorder, self._userdata = recorder, userdata
        self._failures = conversation.failures
        self._at_start: AtStart | None = None

    def remember(self, started: Agent) -> None:
        """Remember what the application has at the start, so that its own changes are told from what is restored."""
        self._userdata.remember()
        self._at_start = AtStart.of(started)

    async def choose(self, word: Word, choose: Choose, on_new_agent: Callable[[Word], None]) -> Word:
        """Return who has the word, now that it is known who had it; tell of an agent before it gets the word."""
        if not self._conversation.is_restart:
            return word
        taking = self._take_word(word, choose, on_new_agent)
        word = await self._failures.value_or(word, "active_agent", taking, told=WITHOUT)
        restoring = self._userdata.restore_late(self._conversation.noted)
        await self._failures.value_or(None, "userdata", restoring, told=WITHOUT)
        return word

    async def restore(self, word: Word) -> None:
        """Give the session the history, before what has been said in it since its start."""
        running = self._recorder.running_calls
        restored = await restore_late(self._session, self._conversation, word.agent, had=word.had, running=running)
        self._recorder.record(restored.made_up)
        logger.info("the conversation joined the call", extra={"items": restored.items})

    async def _take_word(self, word: Word, choose: Choose, on_new_agent: Callable[[Word], None]) -> Word:
        """Give the word, in a session that runs, to the agent that had it, unless that would undo anything.

        An agent that got the word in this job keeps it, and so does one that the caller has talked to in this job.
        """
        current, started = self._session.current_agent, word.agent
        noted = late_note(started, self._conversation.noted(ACTIVE_AGENT), self._at_start)
        is_its_own = noted.get("is_first") is True and noted.get("agent_id") == started.id
        has_turned = any(item.role == "user" for item in self._session.history.messages())
        if current is not started or (has_turned and not is_its_own):
            # a task speaks in the name of the agent that waits for it
            return Word(started if isinstance(current, AgentTask) else current, None)
        chosen = await choose(started, {ACTIVE_AGENT: noted})
        if chosen.agent is not self._session.current_agent:
            on_new_agent(chosen)
            entrance_of(chosen.agent)
            self._session.update_agent(chosen.agent)
        return chosen
