"""Having an agent come to the rooms of people who wait for one: it is asked for again until there is one.

A room's first token brings its agent only where a worker is registered when the room is made, and what LiveKit's
server was asked for it forgets when it starts anew. So whoever waits says so again and again, and is told what for.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from agent_worker.failures import Failures
from conversation_actors.errors import ConversationError

AGAIN_SECONDS = 10.0
"""How long an agent may take to come before the next one is asked for: most come within two seconds."""
_RETRY_SECONDS = 2.0
"""How long it is left at that nobody could be asked."""
_FORGOTTEN_SECONDS = 60.0
"""After which somebody who waits in a room is not the one who waited there before."""
_MAX_ROOMS = 1000
_OVERDUE_CALLS = 3


class Waiting(StrEnum):
    """What somebody waits for who has no agent."""

    WORKER = "worker"
    """No worker is registered: an agent is asked for as soon as one is."""
    AGENT = "agent"
    """An agent was asked for."""
    OVERDUE = "overdue"
    """An agent was asked for several times, and none has come."""
    UNANSWERED = "unanswered"
    """No agent could be asked for just now."""


@dataclass(slots=True)
class _Asked:
    """When an agent was asked for, for one room."""

    at: float
    seen: float
    calls: int = 1


class AgentCalls:
    """Asks for agents, never for two at a time in one room, as far as this process knows."""

    def __init__(
        self,
        call: Callable[[str], Awaitable[object]],
        is_registered: Callable[[], bool],
        *,
        failures: Failures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`call` asks for an agent if a room exists and has none; `is_registered`: whether a worker hears of it."""
        self._call, self._is_registered = call, is_registered
        self._failures, self._clock = failures or Failures(), clock
        self._asked: dict[str, _Asked] = {}

    def start_over(self) -> None:
        """Forget what was asked: a worker was registered, and what was asked of those before it is lost."""
        self._asked.clear()

    async def joining(self, room: str) -> None:
        """Note that somebody gets a token, which itself brings the agent to a room that does not exist yet.

        Raises as `call` does.
        """
        if not self._is_registered():
            return
        self._note(room, self._clock())
        await self._call(room)

    async def missing(self, room: str) -> Waiting:
        """Tell somebody who is in a room without an agent what is waited for.

        Never raises what Redis or LiveKit are to blame for.
        """
        now = self._clock()
        if not self._is_registered():
            return Waiting.WORKER
        asked = self._asked.get(room)
        if asked is None or now - asked.seen > _FORGOTTEN_SECONDS:
            asked = self._note(room, now)
        elif now - asked.at >= AGAIN_SECONDS:
            asked.at, asked.calls = now, asked.calls + 1
        else:
            asked.seen = now
            return self._patience(asked)
        asked.seen = now
        try:
            await self._call(room)
        except ConversationError as error:
            self._failures.count("missing", error, "an agent could not be called to the room", room=room)
            asked.at, asked.calls = now + _RETRY_SECONDS - AGAIN_SECONDS, asked.calls - 1
            return Waiting.UNANSWERED
        return self._patience(asked)

    def _patience(self, asked: _Asked) -> Waiting:
        return Waiting.OVERDUE if asked.calls >= _OVERDUE_CALLS else Waiting.AGENT

    def _note(self, room: str, now: float) -> _Asked:
        self._asked.pop(room, None)
        while len(self._asked) >= _MAX_ROOMS:
            del self._asked[next(iter(self._asked))]
        asked = self._asked[room] = _Asked(now, now)
        return asked
