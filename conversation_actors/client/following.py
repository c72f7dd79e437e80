"""Following a conversation: its durable entries as they come, and a copy that is kept current by them."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from conversation_actors.backoff import Backoff
from conversation_actors.client.copy import LocalCopy
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import ConversationError, PositionLostError
from conversation_actors.failures import Failures
from conversation_actors.protocol import Polled, Seen, View
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

_MAX_NAMES = 16
"""Names of a feed that its owner is told of at the end: polls under older ones have long come to their own end."""


class Feed:
    """Entries after a position, from whichever owner runs. Waits while none does."""

    def __init__(self, owner: RemoteOwner, *, timing: Timing = TIMING) -> None:
        """Be a watcher of its own for the owner."""
        self._names: deque[str] = deque([secrets.token_hex(8)], maxlen=_MAX_NAMES)
        self._owner, self._timing = owner, timing
        self._runs = asyncio.Event()

    def look_now(self) -> None:
        """Look for the owner now, if the next look is still to come: one was started."""
        self._runs.set()

    def renew(self) -> None:
        """Be another watcher from now on: what an abandoned call sends to the old one spares no poll of the new one."""
        self._names.append(secrets.token_hex(8))

    @property
    def watcher(self) -> str:
        """The name under which the owner knows this feed now."""
        return self._names[-1]

    async def let_go(self) -> None:
        """Tell the owner that runs now, if one does, that nobody reads what it would send here; never raises."""
        names = list(self._names)
        try:
            await self._owner.let_go(names)
        except ConversationError as error:
            logger.warning("the owner was not told that nobody follows", extra={"reason": str(error)})

    async def after(self, seq: int, seen: Seen) -> Polled:
        """Return at least one entry after a position in a history of the conversation, and who tells it.

        Raises `PositionLostError`, and what the owner raises.
        """
        backoff = Backoff(self._timing.dormant)
        while True:
            polled = await self._owner.poll(self.watcher, seq, seen)
            if polled is not None and polled.entries:
                return polled
            if polled is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._runs.wait()
                self._runs.clear()
            else:
                seen = Seen(seen.life, polled.owner)
                backoff.reset()


class Follower:
    """Keeps a `LocalCopy` current, across everything that happens to the owner."""

    def __init__(
        self,
        copy: LocalCopy,
        feed: Feed,
        read: Callable[[], Awaitable[View]],
        failures: Failures | None = None,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """Keep `copy` current; `read` asks the owner for its whole state, if entries alone no longer lead there."""
        self._copy, self._feed, self._read = copy, feed, read
        self._again_soon, self._again = timing.dormant
        self._failures = failures or Failures()
        self._behind = asyncio.Event()

    @property
    def watcher(self) -> str:
        """The name under which the owner may send this copy's entries by another way."""
        return self._feed.watcher

    async def let_go(self) -> None:
        """See `Feed.let_go`; `run` must have ended."""
        await self._feed.let_go()

    def look_now(self) -> None:
        """See `Feed.look_now`."""
        self._feed.look_now()

    def fell_behind(self) -> None:
        """Entries that were sent by another way have not come, or will not: ask for them."""
        self._feed.renew()
        self._behind.set()

    async def run(self) -> None:
        """Follow until cancelled. Whatever fails is counted as `following`, and tried again after a pause."""
        complaint = ""
        while True:
            try:
                await self._poll_until_behind()
                complaint = ""
            except ConversationError as error:
                self._failures.count("following")
                if str(error) != complaint:
                    complaint = str(error)
                    logger.warning("the local copy is not being updated", extra={"reason": complaint})
                await asyncio.sleep(self._again)
            except Exception as error:  # noqa: BLE001  # a copy must not stand still unnoticed
                self._failures.note("following", error)
                await asyncio.sleep(self._again)

    async def _poll_until_behind(self) -> None:
        """Poll once; drop the poll when entries that it would not bring again have gone astray."""
        poll = asyncio.create_task(self._follow_once())
        behind = asyncio.create_task(self._behind.wait())
        try:
            await asyncio.wait({poll, behind}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._behind.clear()
            answered = poll.done()
            poll.cancel()
            behind.cancel()
            await asyncio.gather(poll, behind, return_exceptions=True)
        if answered:
            poll.result()

    async def _follow_once(self) -> None:
        asked = self._copy.position
        try:
            polled = await self._feed.after(*asked)
        except PositionLostError:
            self._copy.replace(await self._read())
            if self._copy.position == asked:
                await asyncio.sleep(self._again_soon)  # replaced by nothing better: don't ask in a circle
        else:
            self._copy.apply(polled.entries, owner=polled.owner, asked=asked)
