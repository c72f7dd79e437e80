"""Session → conversation: one item as it is stored: with its pictures and remarks, and cut to size."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from livekit.agents import AgentSession
from livekit.agents.llm import ChatItem

from agent_worker.session.pictures import Pictures
from agent_worker.session.protocol import Conversation
from agent_worker.session.remarks import STANDS_BEFORE, STILL_RUNNING, is_report_of
from agent_worker.session.serialise import essentials, shortened, to_fields
from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.items import item_from_dict

logger = logging.getLogger(__name__)

MAX_IDS = 2000
"""Ids remembered of what was written; more than a session's history has."""


class ItemWriter:
    """Writes items of a session's history into the conversation, and their pictures when these are made."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: Conversation,
        pictures: Pictures,
        *,
        running: Mapping[str, bool],
        on_refused: Callable[[ChatItem, Exception], None],
    ) -> None:
        """Take the calls whose tools run, and whether they have reported, now and later (`running`).

        `on_refused` is told of an item whose pictures could not be written; `write` raises.
        """
        self._session, self._conversation, self._pictures = session, conversation, pictures
        self._running, self._on_refused = running, on_refused
        self._written: dict[str, None] = {}
        self._picturing: set[asyncio.Task[None]] = set()
        self._incomplete: dict[str, ChatItem] = {}
        """Messages whose pictures are being made, as they were written last."""
        self._is_stopped = False

    def stop(self) -> None:
        """Write no picture any more that is being made."""
        self._is_stopped = True

    def fields(self, item: ChatItem) -> dict[str, Any]:
        """Return the item as it is stored now."""
        return to_fields(item, self._pictures.form)

    def write(self, item: ChatItem) -> None:
        """Write the item now, and once more when its pictures are made: nobody waits for those."""
        self._send_whole(self.fields(item))
        self._incomplete.pop(item.id, None)
        if self._pictures.are_missing(item):
            self._incomplete[item.id] = item
            task = asyncio.get_running_loop().create_task(self._complete(item))
            self._picturing.add(task)
            task.add_done_callback(self._picturing.discard)

    def leave_out(self, item_ids: Collection[str]) -> None:
        """Count these items as not written, and write their pictures no more: they were taken out."""
        self.are_lost(item_ids)
        for item_id in item_ids:
            self._incomplete.pop(item_id, None)

    def are_lost(self, item_ids: Collection[str] | None = None) -> None:
        """Count these items as not written, or all of them: the conversation has lost them."""
        self._written = {} if item_ids is None else {one: None for one in self._written if one not in item_ids}

    async def _complete(self, item: ChatItem) -> None:
        try:
            await self._pictures.make(item)
            # it may have been taken out meanwhile, or have been replaced by another version of it
            if self._incomplete.get(item.id) is not item:
                return
            del self._incomplete[item.id]
            if not self._is_stopped:
                self._send_whole(self.fields(item))
        except Exception as error:  # noqa: BLE001  # the message is there, and says that it lacks its pictures
            self._on_refused(item, error)

    def _send_whole(self, fields: dict[str, Any]) -> None:
        """Record the item, without what nobody could read back."""
        try:
            self._send(fields)
        except ItemTooLargeError:
            raise
        except InvalidInputError as error:
            self._send(essentials(fields))
            logger.warning("an item lost its extras", extra={"item_id": fields["id"], "field": error.field})
        remember(fields["id"], self._written)

    def _send(self, fields: dict[str, Any]) -> None:
        """Record the item, cut to size if it is too large."""
        remarks = self._remarks(fields)
        try:
            self._conversation.record(item_from_dict(fields | remarks))
        except ItemTooLargeError as error:
            self._conversation.record(item_from_dict(shortened(fields, error.limit) | remarks))
            logger.warning("an item was shortened", extra={"item_id": fields["id"], "size": error.size})

    def _remarks(self, fields: dict[str, Any]) -> dict[str, str]:
        """Return what a successor has to know of the item beside what it is; see `agent_worker.session.remarks`."""
        remarks = {}
        before = self._next_written(fields["id"])
        if before is not None:
            remarks[STANDS_BEFORE] = before
        if fields["type"] == "function_call_output":
            reporting = (call for call, has_reported in self._running.items() if has_reported)
            base = next((call for call in reporting if is_report_of(fields["call_id"], call)), None)
            remarks |= {} if base is None else {STILL_RUNNING: base}
        return remarks

    def _next_written(self, item_id: str) -> str | None:
        """Return the next item of the session's history that was written here: only its own stamps are by one clock."""
        history = self._session.history.items
        if not history or history[-1].id == item_id:
            return None
        place = next((index for index, item in enumerate(history) if item.id == item_id), len(history))
        later = (item.id for item in history[place + 1 :])
        return next((one for one in later if one in self._written and one != item_id), None)


def remember(item_id: str, ids: dict[str, None]) -> None:
    """Add an id to those that are remembered, in place of the oldest if there are too many."""
    ids[item_id] = None
    if len(ids) > MAX_IDS:
        del ids[next(iter(ids))]
