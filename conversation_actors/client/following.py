"""Following a conversation: its durable entries as they come, and a copy that is kept current by them."""

import asyncio
import logging
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from conversation_actors.client.copy import LocalCopy
from conversation_actors.errors import ConversationError, PositionLostError
from conversation_actors.failures import Failures
from conversation_actors.protocol import Polled, Seen, View
from conversation_actors.settings import Timeouts

if TYPE_CHECKING:
    from conversation_actors.runtime import RemoteOwner
    from conversation_actors.runtime.owner import Send

log = logging.getLogger(__name__)

_MOST_NAMES = 16
"""Names of a feed that its owner is told of at the end: polls under older ones have long come to their own end."""
_LET_GO_SECONDS = 1.0
DORMANT_SECONDS = (0.1, 1.0)
"""How often an owner is looked for while none runs; none is started only to watch."""


class Feed:
    """Entries behind a position, from whichever owner runs. Waits while none does."""

    def __init__(self, owner: "RemoteOwner", timeouts: Timeouts) -> None:
        """A watcher of its own, as far as the owner can tell."""
        self._names: deque[str] = deque([secrets.token_hex(8)], maxlen=_MOST_NAMES)
        self._owner = owner
        self._poll = timeouts.poll.total_seconds()
        self._longest = self._poll * 1.2
        self._patience = self._longest + timeouts.attempt.total_seconds()

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
            await self._owner.call_if_running(lambda actor: actor.let_go.remote(names), _LET_GO_SECONDS)
        except ConversationError as error:
            log.warning("the owner was not told that nobody follows", extra={"reason": str(error)})

    async def after(self, seq: int, seen: Seen) -> Polled:
        """Return at least one entry after a position in a history of the conversation, and who tells it.

        Raises `PositionLostError`, and what the owner raises.
        """
        delay, longest = DORMANT_SECONDS
        while True:
            polled: Polled | None = await self._owner.call_if_running(
                self._poll_after(seq, seen), self._patience, usual=self._longest
            )
            if polled is not None and polled.entries:
                return polled
            if polled is None:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing
                delay = min(delay * 2, longest)
            else:
                seen = Seen(seen.life, polled.owner)
                delay = DORMANT_SECONDS[0]

    def _poll_after(self, seq: int, seen: Seen) -> "Send":
        seconds = self._poll * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, guards nothing
        return lambda actor: actor.poll.remote(self.watcher, seq, seen, seconds)


class Follower:
    """Keeps a `LocalCopy` current, across everything that happens to the owner."""

    def __init__(
        self, copy: LocalCopy, feed: Feed, read: Callable[[], Awaitable[View]], failures: Failures | None = None
    ) -> None:
        """`read` asks the owner for its whole state, where entries alone no longer lead there."""
        self._copy, self._feed, self._read = copy, feed, read
        self._failures = failures or Failures()
        self._behind = asyncio.Event()

    @property
    def watcher(self) -> str:
        """The name under which the owner may send this copy's entries by another way."""
        return self._feed.watcher

    async def let_go(self) -> None:
        """See `Feed.let_go`; `run` must have ended."""
        await self._feed.let_go()

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
                    log.warning("the local copy is not being updated", extra={"reason": complaint})
                await asyncio.sleep(DORMANT_SECONDS[1])
            except Exception as error:  # noqa: BLE001  # a copy must not stand still unnoticed
                self._failures.note("following", error)
                await asyncio.sleep(DORMANT_SECONDS[1])

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
                await asyncio.sleep(DORMANT_SECONDS[0])  # replaced by nothing better: don't ask in a circle
        else:
            self._copy.apply(polled.entries, owner=polled.owner, asked=asked)
