"""Data messages on their way into a conversation: held here until they are durable there, and recorded again."""

import asyncio
from collections import OrderedDict

from agent_worker.call.data_payloads import payload_size, without_payload
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import DataMessage, ItemTooLargeError

NOT_KEPT = "a data message was not kept"
MAX_HELD, MAX_HELD_BYTES = 200, 1 << 20
"""Messages held, and bytes of them: they are recorded again if the conversation has lost them."""
MAX_UNSURE, MAX_UNSURE_BYTES = 10_000, 4 << 20
"""Messages that are not durable yet, as many as a conversation lets wait, and bytes of their payloads.

Beyond that only the facts of a message are kept.
"""
_DURABLE_SECONDS = 30.0


class HeldData:
    """Records data messages, and holds them as long as the conversation may lose them. Raises nothing."""

    def __init__(self, conversation: CallConversation) -> None:
        """Nothing is held."""
        self._conversation = conversation
        self._acknowledging: asyncio.Task[None] | None = None
        self._held: OrderedDict[str, DataMessage] = OrderedDict()
        self._unsure: dict[str, int] = {}

    @property
    def are_durable(self) -> bool:
        """Whether all that was recorded is known to be durable."""
        return not self._unsure

    def stop(self) -> None:
        """Learn no more of what is durable."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()

    def record(self, item: DataMessage) -> None:
        """Record a message, without its payload if there is no room for that."""
        if sum(self._unsure.values()) + item.size > MAX_UNSURE_BYTES:
            item = without_payload(item)
        try:
            try:
                self._conversation.record(item)
            except ItemTooLargeError:
                item = without_payload(item)
                self._conversation.record(item)
        except Exception as error:  # noqa: BLE001  # one that is refused costs only itself
            self._conversation.failures.count("data", error, NOT_KEPT)
        self._hold(item)

    def record_again(self, *, is_afresh: bool) -> None:
        """Record what the conversation lacks: all that is held, or what nobody knows to be durable."""
        there = {item.id for item in self._conversation.items}
        for item in list(self._held.values()):
            if item.id not in there and (is_afresh or item.id in self._unsure):
                self.record(item)

    def forget(self, item_ids: frozenset[str]) -> None:
        """Hold nothing of what somebody has taken out of the conversation."""
        for item_id in item_ids & self._held.keys():
            del self._held[item_id]
            self._unsure.pop(item_id, None)

    def _hold(self, item: DataMessage) -> None:
        """Hold a message, and learn whether it is durable."""
        self._held[item.id] = item
        while len(self._held) > MAX_HELD or sum(map(payload_size, self._held.values())) > MAX_HELD_BYTES:
            self._held.popitem(last=False)
        self._unsure[item.id] = payload_size(item)
        if len(self._unsure) > MAX_UNSURE:
            del self._unsure[next(iter(self._unsure))]
        if self._acknowledging is None or self._acknowledging.done():
            self._acknowledging = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Learn which messages are durable: those are not recorded again, though they leave the history."""
        while self._unsure and not self._conversation.deposed.is_set():
            asked = list(self._unsure)
            if await self._conversation.is_durable(_DURABLE_SECONDS):
                for known in asked:
                    self._unsure.pop(known, None)
            else:
                await asyncio.sleep(self._conversation.timing.data_pause)
