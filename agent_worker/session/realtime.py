"""The boundary to a realtime model's provider: there, items have ids that the provider takes; here, LiveKit's own.

LiveKit's pipeline makes ids with a slash, and reads them; OpenAI's Realtime API takes at most 32 letters, digits,
underscores and dashes, and each item says after which other one it stands: one refused item takes all after it along.
So an id is translated when a context is given to a provider, and back when LiveKit is told what the provider has.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent
from livekit.agents.llm import ChatContext, ChatItem, RealtimeError, RealtimeModel, RealtimeSession
from livekit.agents.utils import is_given

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.recorder import RESERVED_PREFIX

logger = logging.getLogger(__name__)

LONGEST = 32
_FITTING = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST}}}")
_MOST_REFUSALS = 24
"""Of one update: each costs the provider's answer once more."""
_THERE_ALREADY = "item_create_duplicate_item_id"
_FAILURE = "a provider's session was not followed"
_MARK = "guarded_by"
"""Attribute of what makes sessions: what it stands for, and who guards it."""


def fitting_id(given: str, kind: str) -> str:
    """Return the id under which a provider knows something: the same in every call; itself if the provider takes it."""
    if _FITTING.fullmatch(given):
        return given
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kind}_{digest}"[:LONGEST]


class RealtimeModels:
    """Stands between a session and the providers of its realtime models, and of each agent's that gets the word."""

    def __init__(
        self, session: AgentSession[Any], failures: Failures, *, on_reconnected: Callable[[], None] | None = None
    ) -> None:
        """Nothing is guarded before `start`. `on_reconnected`: a provider's session was begun anew, by the plugin."""
        self._session, self._failures, self._on_reconnected = session, failures, on_reconnected
        self._told: set[str] = set()
        self._handler = total(self._on_item, failures, "realtime", _FAILURE)

    def start(self, agent: Agent) -> None:
        """Guard the models that are there, before the session starts with this agent, and from now on each new one."""
        self._guard(self._session.llm)
        self._guard_of(agent)
        self._session.on("conversation_item_added", self._handler)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if event.item.type == "agent_handoff":
            # its activity begins after this handler, and asks its model for a session
            self._guard_of(self._session.current_agent)

    def _guard_of(self, agent: Agent) -> None:
        if is_given(agent.llm):
            self._guard(agent.llm)

    def _guard(self, model: object) -> None:
        if not isinstance(model, RealtimeModel):
            return
        original, guard = getattr(model.session, _MARK, (model.session, None))
        if guard is self:
            return

        def session(*arguments: Any, **named: Any) -> RealtimeSession[Any]:
            made: RealtimeSession[Any] = original(*arguments, **named)
            _Boundary(made, self._told).start()
            made.on("session_reconnected", total(self._reconnected, self._failures, "realtime", _FAILURE))
            return made

        setattr(session, _MARK, (original, self))
        model.session = session  # type: ignore[method-assign]  # on this instance: there is no event

    def _reconnected(self, *_event: object) -> None:
        if self._on_reconnected is not None:
            self._on_reconnected()


class _Boundary:
    """One session with a provider."""

    def __init__(self, session: RealtimeSession[Any], told: set[str]) -> None:
        self._session, self._told = session, told
        self._update, self._emit, self._close = session.update_chat_ctx, session.emit, session.aclose
        self._own: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._refused: set[str] = set()
        self._lock = asyncio.Lock()

    def start(self) -> None:
        self._session.update_chat_ctx = self.update  # type: ignore[method-assign]  # on this instance
        self._session.emit = self.emit  # type: ignore[method-assign]
        self._session.aclose = self.close  # type: ignore[method-assign]

    async def close(self) -> None:
        """See `RealtimeSession.aclose`; never raises.

        LiveKit's own raises, once more, what its connection has ended with. Then the agent's session never tells that
        it has closed, the room stays as it is, and nobody is called to the caller's help.
        """
        try:
            await self._close()
        except Exception as error:  # noqa: BLE001  # told already, as an error of the session
            details = {"reason": type(error).__name__}
            logger.warning("a realtime model's session had ended by an error before it was closed", extra=details)

    async def update(self, chat_ctx: ChatContext) -> None:
        """See `RealtimeSession.update_chat_ctx`; what the provider refuses is left out, and the rest goes on."""
        async with self._lock:
            items = [one for one in map(self._fitting, chat_ctx.items) if one.id not in self._refused]
            for tried in range(_MOST_REFUSALS + 1):
                self._asked, self._errors = {}, {}
                error = await self._tried(ChatContext(items))
                refused = next((one for one in items if one.id in self._errors), None)
                if refused is None:
                    if error is not None:
                        raise error
                    return
                # what stands after a refused item may be refused only for that
                self._refuse(refused)
                if tried == _MOST_REFUSALS:
                    logger.warning("the realtime model's provider refuses more items: what follows them may be missing")
                items.remove(refused)

    async def _tried(self, chat_ctx: ChatContext) -> RealtimeError | None:
        try:
            await self._update(chat_ctx)
        except RealtimeError as error:  # older versions wait in vain for an item that was refused
            return error
        return None

    def _refuse(self, item: ChatItem) -> None:
        self._refused.add(item.id)
        if item.id not in self._told:
            self._told.add(item.id)
            details = {"item_id": self._own.get(item.id, item.id), "type": item.type, "code": self._errors[item.id]}
            logger.warning("the realtime model's provider refused an item: it goes on without it", extra=details)

    def _fitting(self, item: ChatItem) -> ChatItem:
        # LiveKit's own items do not get there, and are known by their ids
        own = item.id
        there = own if own.startswith(RESERVED_PREFIX) else fitting_id(own, "item")
        changed: dict[str, Any] = {} if there == own else {"id": there}
        if item.type in {"function_call", "function_call_output"}:
            call_id = fitting_id(item.call_id, "call")
            changed |= {} if call_id == item.call_id else {"call_id": call_id}
        if not changed:
            return item
        self._own[there] = own
        return item.model_copy(update=changed)

    def emit(self, event: Any, *arguments: Any) -> None:
        """Tell LiveKit of an item by the id that it has here; else it would take it for another one."""
        match event, arguments:
            case "remote_item_added", (added, *_):
                previous, item = added.previous_item_id, added.item
                if item.id in self._own or previous in self._own:
                    own = item.model_copy(update={"id": self._own.get(item.id, item.id)})
                    arguments = (replace(added, previous_item_id=self._own.get(previous, previous), item=own),)
            case "openai_client_event_queued", (told, *_):
                self._note_asked(told)
            case "openai_server_event_received", (told, *_):
                self._note_error(told)
        self._emit(event, *arguments)

    def _note_asked(self, told: Any) -> None:
        if isinstance(told, dict) and told.get("type") == "conversation.item.create":
            item_id = (told.get("item") or {}).get("id")
            if told.get("event_id") and item_id:
                self._asked[told["event_id"]] = item_id

    def _note_error(self, told: Any) -> None:
        if not isinstance(told, dict) or told.get("type") != "error":
            return
        error = told.get("error") or {}
        item_id = self._asked.get(error.get("event_id") or "")
        if item_id is not None and error.get("code") != _THERE_ALREADY:
            self._errors[item_id] = str(error.get("code"))
