"""What a call has to do with a back end: asked at each turn, and told what is heard before it is final."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from livekit.agents import AgentSession

from agent_worker.session.interims import Interim, Interims
from agent_worker.session.turn_context import EndedTurn, Speaker, TurnContexts
from agent_worker.tenure.conversation import CallConversation
from conversation_actors.backend.client import BackendClient

_TASK = "backend"


class CallBackend:
    """The back end of one call, which waits for it no longer than ``CONVERSATION_BACKEND_CONTEXT_BUDGET``."""

    def __init__(
        self, session: AgentSession[Any], conversation: CallConversation, *, speaks: Speaker, has_spoken: Speaker
    ) -> None:
        """Ask and tell nothing before `start`. `speaks` gives who is heard now, `has_spoken` who ended the turn."""
        settings, failures = conversation.backend, conversation.failures
        self._conversation_id, self._failures = conversation.id, failures
        self._conversation = conversation
        self._client = BackendClient(settings, conversation.tenant)
        self.contexts: TurnContexts | None = None
        """Asked at each turn; None if the settings do not want it."""
        if settings.context:
            budget = settings.context_budget.total_seconds()
            self.contexts = TurnContexts([self], budget=budget, failures=failures, speaker=has_spoken)
        self._interims: Interims | None = None
        if settings.interim:
            self._interims = Interims(session, self._tell, failures, speaker=speaks, timing=conversation.timing)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Get ready to ask, and tell from now on."""
        self._begin(self._failures.at_most_once(_TASK, self._client.__aenter__))
        if self._interims is not None:
            self._interims.start()

    def stop(self) -> None:
        """Tell nothing more, and close what is connected; a turn that is asked for now goes on without."""
        if self._interims is not None:
            self._interims.stop()
        if self.contexts is not None:
            self.contexts.stop()
        self._begin(self._failures.at_most_once(_TASK, self._client.aclose))

    async def context(self, turn: EndedTurn) -> Sequence[str]:
        """See `TurnContext`. Raises `BackendUnavailableError`."""
        return await self._client.context(
            self._conversation_id, identity=turn.identity, text=turn.text, item_id=turn.item_id
        )

    async def _tell(self, interim: Interim) -> None:
        await self._client.transcribed(
            self._conversation_id,
            life=self._conversation.life,
            text=interim.text,
            identity=interim.identity,
            language=interim.language,
            at=interim.at,
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def backend_of(
    session: AgentSession[Any], conversation: CallConversation, *, speaks: Speaker, has_spoken: Speaker
) -> CallBackend | None:
    """Return what a call has to do with the back end of the settings; None if that is nothing."""
    settings = conversation.backend
    if settings.url is None or not (settings.context or settings.interim):
        return None
    return CallBackend(session, conversation, speaks=speaks, has_spoken=has_spoken)
