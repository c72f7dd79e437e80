"""Put out the messages and calls of a response of the offline Realtime model, as the events that report them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from agent_worker.offline.realtime_items import Event, Held, Items
from agent_worker.offline.realtime_responses import Response, spoken, written

Send = Callable[[Event], Awaitable[None]]
Fresh = Callable[[str], str]
"""A function that makes a new id of the given kind."""


async def tell_added(send: Send, items: Items, held: Held) -> None:
    """Tell the client that an item is in the conversation, and also that it is done unless it is in progress."""
    where = {"previous_item_id": items.before(held.id), "item": held.item}
    await send({"type": "conversation.item.added", **where})
    if held.item.get("status") != "in_progress":
        await send({"type": "conversation.item.done", **where})


class Output:
    """The output of a session: it is added to the session's items, and the client is told of each step."""

    def __init__(self, items: Items, send: Send, fresh: Fresh) -> None:
        """Add output to `items`, send each event with `send`, and take new ids from `fresh`."""
        self._items, self._send, self._fresh = items, send, fresh

    async def say_words(self, response: Response, text: str) -> None:
        """Say a message, in sound or in writing as the response wants it."""
        item = {
            "id": self._fresh("item"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        held = await self._begin(response, item)
        events = spoken(response, held, text) if response.is_spoken else written(response, held, text)
        for event in events:
            await self._send(event)
            # other tasks go on while the model speaks, and may interrupt it
            await asyncio.sleep(0)
        await self.finish(response, held)

    async def say_call(self, response: Response, call: Mapping[str, str]) -> None:
        """Put out a call of a function."""
        item = {"id": self._fresh("item"), "type": "function_call", "status": "in_progress", **call, "arguments": ""}
        held = await self._begin(response, item)
        held.call = call
        held.item["arguments"] = call["arguments"]
        place = response.place(held)
        told = {"call_id": call["call_id"], "name": call["name"], "arguments": call["arguments"]}
        await self._send({"type": "response.function_call_arguments.done", **place, **told})
        await self.finish(response, held)

    async def _begin(self, response: Response, item: Event) -> Held:
        held = Held(item, call={"call_id": "", "name": "", "arguments": ""} if item["type"] == "function_call" else {})
        response.output.append(held)
        await self._send({"type": "response.output_item.added", **response.place(held, is_item=True)})
        self._items.append(held)
        await tell_added(self._send, self._items, held)
        return held

    async def finish(self, response: Response, held: Held, status: str = "completed") -> None:
        """Tell the client that an item is complete, or that it stays incomplete (`status`)."""
        held.item["status"] = status
        await self._send({"type": "response.output_item.done", **response.place(held, is_item=True)})
        if self._items.find(held.id) is not None:
            where = {"previous_item_id": self._items.before(held.id), "item": held.item}
            await self._send({"type": "conversation.item.done", **where})
