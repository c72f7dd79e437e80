"""Who is expected where, on Redis: one hash for each place."""

from datetime import timedelta
from typing import Any

from conversation_actors.store.expectations import MAX_EXPECTATIONS, Place
from conversation_actors.store.keys import HeartbeatKeys
from conversation_actors.store.script_calls import Argument, ScriptCalls, milliseconds
from conversation_actors.store.scripts import script


class RedisExpectations:
    """An `ExpectationStore` on Redis, beside the signs of life of one lease's holders."""

    def __init__(self, calls: ScriptCalls, keys: HeartbeatKeys) -> None:
        """Share the connections of the store."""
        self._calls, self._keys = calls, keys

    async def check(self) -> None:
        """Run every script once; meant for keys that no lease has. Nothing is left."""
        place = Place("check", "check")
        await self.put(place, "check", b"{}", keep=timedelta(seconds=1), is_new=True)
        await self.all(place)
        await self.drop(place, "check")

    async def put(self, place: Place, token: str, told: bytes, *, keep: timedelta, is_new: bool) -> bool:
        """See `ExpectationStore.put`."""
        reply = await self._run("expect", place, token, told, milliseconds(keep), int(is_new), MAX_EXPECTATIONS)
        return bool(reply[0] == b"OK")

    async def all(self, place: Place) -> list[tuple[str, bytes]]:
        """See `ExpectationStore.all`."""
        _, *flat = await self._run("expected", place)
        return [(flat[at].decode(errors="replace"), flat[at + 1]) for at in range(0, len(flat), 2)]

    async def drop(self, place: Place, token: str) -> bool:
        """See `ExpectationStore.drop`."""
        return bool((await self._run("met", place, token))[0] == b"OK")

    async def _run(self, name: str, place: Place, *arguments: Argument) -> list[Any]:
        key = self._keys.expected(place.room, place.agent_name)
        return await self._calls.on_index(script(name), (key,), *arguments)
