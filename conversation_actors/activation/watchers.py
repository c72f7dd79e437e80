"""Long polls that are parked until there is something to tell them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from conversation_actors.errors import ConversationError, OverloadedError


@dataclass(slots=True)
class _Parked:
    after_seq: int
    future: asyncio.Future[None]


class Watchers:
    """At most `limit` parked polls, one for each watcher; a second poll of a watcher ends its first."""

    def __init__(self, limit: int) -> None:
        """Park nobody yet."""
        self._limit = limit
        self._parked: dict[str, _Parked] = {}
        self._closed: ConversationError | None = None

    def __len__(self) -> int:
        """Return the number of polls that are parked."""
        return len(self._parked)

    async def park(self, watcher: str, after_seq: int, timeout: float) -> None:  # noqa: ASYNC109  # ends by itself
        """Return when there is something after `after_seq`, or after `timeout` seconds.

        Raises `OverloadedError` when too many are parked, and what the activation was stopped with.
        """
        if self._closed is not None:
            raise self._closed
        self._wake(self._parked.pop(watcher, None))
        if len(self._parked) >= self._limit:
            message = f"{len(self._parked)} watchers of one conversation, which is the limit"
            raise OverloadedError(message)
        parked = self._parked[watcher] = _Parked(after_seq, asyncio.get_running_loop().create_future())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await parked.future
        finally:
            if self._parked.get(watcher) is parked:
                del self._parked[watcher]

    def notify(self, seq: int) -> None:
        """Wake everybody who has not seen `seq`."""
        for watcher, parked in list(self._parked.items()):
            if parked.after_seq < seq:
                del self._parked[watcher]
                self._wake(parked)

    def advance(self, watcher: str, seq: int) -> None:
        """Don't wake the watcher for anything up to `seq`, which it gets by another way."""
        parked = self._parked.get(watcher)
        if parked is not None and parked.after_seq < seq:
            parked.after_seq = seq

    def release(self, watcher: str) -> None:
        """End a watcher's parked poll: nobody waits for its answer any more."""
        self._wake(self._parked.pop(watcher, None))

    def close(self, error: ConversationError) -> None:
        """Answer `error` to all who wait, and will."""
        self._closed = error
        for parked in self._parked.values():
            if not parked.future.done():
                parked.future.set_exception(error)
        self._parked.clear()

    @staticmethod
    def _wake(parked: _Parked | None) -> None:
        if parked is not None and not parked.future.done():
            parked.future.set_result(None)
