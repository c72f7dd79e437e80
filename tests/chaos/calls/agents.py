"""Agents of calls, as jobs are: a handle, the lease, and all that is written in its name; and their deaths."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from conversation_actors import ConversationError, ConversationHandle, Item, Lease, RetryableError
from conversation_actors.calls.names import AGENT, AGENT_LEASE, CALL, HANDOVER
from tests.chaos.archive.owners import Owners

Answer = TypeVar("Answer")

LONG = timedelta(hours=1)
"""For as long nobody counts a call as lost whose agent has the lease, however slow the machine is."""
SHORT = timedelta(seconds=0.3)
_PATIENCE = 300.0
_PAUSE = 0.05


class GoneError(Exception):
    """Something was not acknowledged for so long that the history cannot go on."""


class Requests:
    """Repeats commands until they are acknowledged, each under an id of its own: then they happened once."""

    def __init__(self, name: str) -> None:
        """Number requests under this name."""
        self._name, self._numbers = name, itertools.count(1)

    async def until_done(self, call: Callable[[str], Awaitable[Answer]]) -> Answer:
        """Return what a command answers, given the id of its request. Raises `GoneError`."""
        request, deadline = f"{self._name}/{next(self._numbers)}", time.monotonic() + _PATIENCE
        while True:
            try:
                return await call(request)
            except RetryableError as error:
                if time.monotonic() > deadline:
                    message = f"{request} was not acknowledged: {error}"
                    raise GoneError(message) from error
                await asyncio.sleep(_PAUSE)


class Agent:
    """One agent. `unsure` is what it was writing when it died."""

    def __init__(self, handle: ConversationHandle, holder: str, lease: Lease, requests: Requests) -> None:
        """Have the lease already."""
        self.handle, self.holder, self.lease, self._requests = handle, holder, lease, requests
        self.unsure: Sequence[Item] = ()

    @classmethod
    async def comes(cls, owners: Owners, holder: str, *, replacing: str | None = None) -> "Agent":
        """Become the agent: the first, or after one that is dead or has gone."""
        requests, handle = Requests(holder), await owners.handle()
        lease = await requests.until_done(
            lambda request: handle.acquire_lease(
                AGENT_LEASE, holder=holder, duration=LONG, replacing=replacing, request_id=request
            )
        )
        return cls(handle, holder, lease, requests)

    async def arrive(self) -> None:
        """Say who the agent is, and that nothing is wished of the one before any more."""
        said = {AGENT: {"holder": self.holder, "room": "room", "since": time.time()}, HANDOVER: None}
        await self.note(said)

    async def note(self, changes: Mapping[str, object]) -> None:
        """Set attributes in the name of the lease."""
        await self._requests.until_done(
            lambda request: self.handle.set_attributes(changes, request_id=request, lease=self.lease)
        )

    async def write(self, *items: Item) -> None:
        """Append items, until they are durable."""
        await self._requests.until_done(
            lambda request: self.handle.append(*items, request_id=request, lease=self.lease)
        )

    async def record(self, *items: Item) -> None:
        """Record items, as a session does, and wait until they are durable."""
        for item in items:
            self.handle.record(item, lease=self.lease)
        await self._requests.until_done(lambda _: self.handle.flush())

    async def set_outcome(self, outcome: Mapping[str, object]) -> None:
        """Say what came of the call."""
        await self._requests.until_done(
            lambda request: self.handle.set_outcome(outcome, request_id=request, lease=self.lease)
        )

    async def end_call(self, ended: str, reason: str | None) -> None:
        """Note that the call is over."""
        said = {"ended": ended, "at": time.time(), "holder": self.holder}
        await self.note({CALL: {**said, "reason": reason} if reason else said})

    async def close_conversation(self, reason: str) -> None:
        """Close the conversation."""
        await self._requests.until_done(
            lambda request: self.handle.close_conversation(reason, request_id=request, lease=self.lease)
        )

    async def release(self) -> None:
        """Give the lease back."""
        await self._requests.until_done(lambda request: self.handle.release_lease(self.lease, request_id=request))

    async def hand_over(self) -> None:
        """Go, as a successor has asked."""
        await self.note({AGENT: None, HANDOVER: None})
        await self.release()

    async def shorten(self) -> None:
        """Have the lease for a moment only, from now on."""
        await self._requests.until_done(
            lambda request: self.handle.acquire_lease(
                AGENT_LEASE, holder=self.holder, duration=SHORT, request_id=request
            )
        )

    async def die_writing(
        self, items: Sequence[Item], *, after: float, together_with: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Die so long after the agent has begun to write: whether that is stored, whoever follows finds out.

        What was sent may arrive much later. `together_with` kills somebody else at the same time.
        """
        writing = asyncio.create_task(self.record(*items))  # what waits here is sent later, if it can be
        with suppress(TimeoutError):
            async with asyncio.timeout(after):
                await asyncio.shield(writing)
        if together_with is not None:
            await together_with()
        writing.cancel()
        with suppress(asyncio.CancelledError, ConversationError):
            await writing
        self.unsure = items
