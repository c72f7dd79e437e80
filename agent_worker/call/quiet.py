"""Moments in which a session can be left: nobody speaks, and nothing that was said is unanswered."""

import asyncio
from typing import Any

from livekit.agents import AgentSession

from agent_worker.session.notes import SessionNotes
from agent_worker.timing import TIMING, Timing


class Quiet:
    """Tells whether a session is quiet, and waits until it has been quiet for a while."""

    def __init__(self, session: AgentSession[Any], notes: SessionNotes, *, timing: Timing = TIMING) -> None:
        """Ask the session's `notes` for words that are not settled."""
        self._session, self._notes, self._timing = session, notes, timing
        self._is_over = False

    def end(self) -> None:
        """Count the session as quiet from now on: its call is over."""
        self._is_over = True

    @property
    def is_busy(self) -> bool:
        """Whether somebody speaks, or something that was said is not answered yet."""
        states = (self._session.agent_state, self._session.user_state)
        is_quiet = states[0] == "listening" and states[1] != "speaking" and not self._notes.has_unsettled_words
        return not (is_quiet or self._is_over)

    async def lasts(self, seconds: float) -> None:
        """Return when the session has been quiet for so long."""
        quiet_since = asyncio.get_running_loop().time()
        # Who has stopped speaking has not been answered yet: that takes as long as the end of a turn is waited for.
        while (now := asyncio.get_running_loop().time()) - quiet_since < seconds or self.is_busy:
            if self.is_busy:
                quiet_since = now
            await asyncio.sleep(self._timing.room_poll)
