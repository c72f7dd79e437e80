"""What a speaker is heard to say before it is final, told to somebody else while it is said: best effort."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from livekit.agents import AgentSession, UserInputTranscribedEvent

from agent_worker.failures import Failures, Outage
from agent_worker.session.handlers import total
from agent_worker.session.turn_context import Speaker
from agent_worker.timing import TIMING, Timing
from conversation_actors.backoff import Backoff

_TASK = "interim"
_TOLD = "what is heard before it is final is told to nobody for now"


@dataclass(frozen=True, slots=True)
class Interim:
    """What a speaker was heard to say so far; the next one replaces it."""

    text: str
    identity: str | None
    language: str | None
    at: float
    """Seconds since the epoch."""


Tell = Callable[[Interim], Awaitable[object]]
"""Tells of what is heard. It raises if nobody takes it."""


class Interims:
    """The interim transcripts of a session, told one at a time, the newest first: what it replaces is told to nobody.

    While nobody takes them they are dropped, and tried again after pauses. Nothing in the call waits for any of it.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        tell: Tell,
        failures: Failures,
        *,
        speaker: Speaker = lambda: None,
        timing: Timing = TIMING,
    ) -> None:
        """Follow nothing before `start`. Each one that nobody takes is counted in `failures`, under ``interim``."""
        self._session, self._tell, self._speaker = session, tell, speaker
        self._failures, self._outage = failures, Outage(failures, _TASK, _TOLD)
        self._backoff = Backoff(timing.interim)
        self._newest: Interim | None = None
        self._is_there = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._on_transcript = total(self._hear, failures, _TASK, "what was heard before it is final was not followed")

    def start(self) -> None:
        """Tell from now on."""
        self._session.on("user_input_transcribed", self._on_transcript)
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    def stop(self) -> None:
        """Tell nothing more, also what waits."""
        self._session.off("user_input_transcribed", self._on_transcript)
        if self._task is not None:
            self._task.cancel()

    def _hear(self, event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            self._newest = None  # it is known from the history
            self._is_there.clear()
        elif event.transcript.strip():
            language = None if event.language is None else str(event.language)
            self._newest = Interim(event.transcript, self._speaker(), language, event.created_at)
            self._is_there.set()

    async def _go_on(self) -> None:
        while True:
            await self._is_there.wait()
            self._is_there.clear()
            newest, self._newest = self._newest, None
            if newest is not None and not await self._is_told(newest):
                await self._backoff.wait()
                self._newest = None  # what was said meanwhile is old
                self._is_there.clear()

    async def _is_told(self, interim: Interim) -> bool:
        try:
            await self._tell(interim)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next one may be taken
            self._outage.failed(error)
            return False
        self._outage.succeeded()
        self._backoff.reset()
        return True
