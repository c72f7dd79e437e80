"""An archiver's claims on backlogs: renewed while a write takes long, so that others do not wait for the same rows.

Nothing rests on a claim but that work is spared. One that is not renewed, because its archiver has died or hangs, ends.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.store.backlog import Backlog, Batch

Value = TypeVar("Value")

OF_REDIS = (StoreUnavailableError, StoreMisconfiguredError)
"""What Redis not doing what it is asked raises."""
_RENEWALS = 3
"""Of a claim before it would end."""


class Claims:
    """The claims of one archiver."""

    def __init__(self, backlog: Backlog, *, ttl: timedelta, failures: Failures) -> None:
        """Claim for `ttl` at a time."""
        self._backlog, self._ttl, self._failures = backlog, ttl, failures
        self._name = secrets.token_hex(8)

    async def take(self, most_bytes: Mapping[str, int]) -> dict[str, Batch]:
        """Claim what no other archiver has, and return what waits there: of each conversation so many bytes at most."""
        batches = await all_of([self._take(name, most) for name, most in most_bytes.items()])
        return {name: one for name, one in zip(most_bytes, batches, strict=True) if one is not None and one.stored}

    @asynccontextmanager
    async def held(self, names: Collection[str]) -> AsyncIterator[None]:
        """Keep the claims on these for as long as the block takes, and give them up then, whatever becomes of it."""
        ended = asyncio.Event()
        renewing = asyncio.create_task(self._failures.once("archive claim", partial(self._renew, names, ended)))
        try:
            yield
        finally:
            ended.set()
            await renewing  # a renewal that is under way must not come after the release
            with suppress(*OF_REDIS):  # the claims end by themselves
                await all_of([self._backlog.release(name, archiver=self._name) for name in names])

    async def _renew(self, names: Collection[str], ended: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self._ttl.total_seconds() / _RENEWALS)
            if ended.is_set():
                return
            with suppress(*OF_REDIS):  # who writes learns of it when it settles
                await all_of([self._take(name, 1) for name in names])

    async def _take(self, conversation_id: str, most_bytes: int) -> Batch | None:
        return await self._backlog.take(conversation_id, archiver=self._name, ttl=self._ttl, most_bytes=most_bytes)


async def all_of(calls: Sequence[Awaitable[Value]]) -> list[Value]:
    """Make all calls at once, and wait until none is under way; raise the first error, if there was one."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[Value] = []
    for answer in done:
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers
