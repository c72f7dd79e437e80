"""A conversation that only the back end has comes back into the store: what was said last, and nothing else.

It is a new life, of which the archive has no entry: an archiver takes its state over as it does of any such life.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conversation_actors.activation.retention import kept_for
from conversation_actors.calls.names import ROLE_FIELD
from conversation_actors.client.backend import ClientBackend
from conversation_actors.codec import stored_snapshot
from conversation_actors.errors import BackendUnavailableError, RefusedError
from conversation_actors.items import StoredItem, item_from_dict
from conversation_actors.settings import Settings
from conversation_actors.state import AppendItems, ConversationState, Entry, Limits, decide
from conversation_actors.store import Claim, Store

if TYPE_CHECKING:
    from conversation_actors.backend.models import Message

logger = logging.getLogger(__name__)

_OUTPUT = "function_call_output"
_CALL = "function_call"
_AT_ONCE = 200
"""Messages that are read between two turns of the event loop."""


class Refill:
    """Writes what the back end has of conversations into the store. Closes neither."""

    def __init__(self, store: Store, backend: ClientBackend, settings: Settings) -> None:
        self._store, self._backend, self._settings = store, backend, settings

    async def refill(self, conversation_id: str) -> bool:
        """Write a conversation that only the back end has into the store; return whether that was done.

        False if the store has it, or a tombstone of it, or if the back end has nothing that can be used. Of several who
        do this at once, one does it. Raises `BackendUnavailableError` and `StoreUnavailableError`.
        """
        found = await self._backend.messages(conversation_id)
        if not found:
            return False
        state = await self._state(found)
        if not len(state.window):
            return False
        settings, name = self._settings, secrets.token_hex(16)
        state.life, ttl = name, kept_for(state.retention, ttl=settings.ttl)
        left_by = Claim(conversation_id, 0, f"backend-{name}", name, settings.tenant)
        was_refilled = await self._store.revive(
            left_by, seq=state.seq, snapshot=stored_snapshot(state), ttl=ttl, participants=(), kept=ttl
        )
        if was_refilled:
            told = {"items": len(state.window), "left_out": len(found) - state.total_items}
            logger.info("a conversation was brought back from the back end", extra=told)
        return was_refilled

    async def _state(self, found: "Sequence[Message]") -> ConversationState:
        limits, now = self._settings.history.limits(), time.time()
        if len(found) <= _AT_ONCE:
            return state_of(found, limits, now=now)
        return await asyncio.to_thread(state_of, found, limits, now=now)


def state_of(found: "Sequence[Message]", limits: Limits, *, now: float) -> ConversationState:
    """Return the conversation as if these messages had just been appended, one by one.

    Left out are: what has no text any more, what is too large for a history, outputs of tools without their calls, and
    tools' calls of which the item is missing. Raises `BackendUnavailableError` for what is no item.
    """
    state = ConversationState(limits)
    calls: set[str] = set()
    for message in found:
        item = _item(message)
        if item is None or (item.type == _OUTPUT and item.call_id not in calls):
            continue
        if _append(state, item, now=now) and item.type == _CALL:
            calls.add(item.call_id)
    state.has_counted_all = False
    return state


def _append(state: ConversationState, item: StoredItem, *, now: float) -> bool:
    try:
        events = decide(state, AppendItems((item,)), now=now)
    except RefusedError as error:
        logger.warning("a message of the back end is left out", extra={"reason": type(error).__name__})
        return False
    for event in events:
        state.apply(Entry(state.seq + 1, 0, now, event))
    return True


def _item(message: "Message") -> StoredItem | None:
    """Return the item of a message; None if there is none."""
    fields = _fields(message)
    if fields is None or message.text is None:
        return None
    try:
        stored = item_from_dict(fields).to_stored()
    except RefusedError:
        what = "what is no item"
        raise _unfit(what) from None
    if (stored.id, stored.type) != (message.id, message.item_type):
        what = "an item of another id or type than its message"
        raise _unfit(what)
    return stored


def _fields(message: "Message") -> Mapping[str, Any] | None:
    if message.item is not None:
        return message.item
    if message.item_type != "message":
        return None
    known: dict[str, Any] = {"type": "message", "id": message.id, "role": message.role, "content": message.text}
    if message.created_at is not None:
        known["created_at"] = message.created_at
    if message.interrupted:
        known["interrupted"] = True
    if message.identity is not None:
        known["extra"] = {"participant": {"identity": message.identity, "device": None}}
    if message.agent_role is not None:
        known[ROLE_FIELD] = message.agent_role
    return known


def _unfit(what: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"the back end answered with what does not fit its document ({what})")
