"""The test's own client: it watches all conversations, and tells in which life each is after a fault."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from conversation_actors import ConversationClient, ConversationNotFoundError, RetryableError
from tests.chaos.history.observing import follow, look, opened
from tests.chaos.history.record import Recorder
from tests.support.servers import wait_until

PATIENCE = 60.0
"""Seconds in which a conversation must answer once nothing is broken any more."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An activation that has just answered, and the life it owns."""

    pid: int
    epoch: int
    life: str
    seq: int


class Witness:
    """Watches all conversations while entered."""

    def __init__(self, client: ConversationClient, recorder: Recorder, conversations: list[str]) -> None:
        """`client` is entered already."""
        self.client, self.recorder, self.conversations = client, recorder, conversations
        self._watching: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Open all conversations, and begin to watch."""
        await self.settle()
        self._watching = [
            asyncio.create_task(follow(self.client, conversation, self.recorder)) for conversation in self.conversations
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and raise what ended a watch before."""
        for task in self._watching:
            task.cancel()
        for task in self._watching:
            with suppress(asyncio.CancelledError):
                await task

    async def settle(self) -> dict[str, Owner]:
        """Wait until every conversation answers a fresh read, and write down the lives they are in."""
        owners = await asyncio.gather(*(self.owner(conversation) for conversation in self.conversations))
        return dict(zip(self.conversations, owners, strict=True))

    async def owner(self, conversation: str) -> Owner:
        """Wait until the conversation's owner, one and the same, has told its process and answered a fresh read."""
        async with asyncio.timeout(PATIENCE):
            while True:
                handle = await opened(self.client, conversation)
                with suppress(RetryableError, ConversationNotFoundError):
                    before = await handle.info()
                    view = await look(handle, self.recorder, fresh=True)
                    if (before.pid, view.epoch) == ((await handle.info()).pid, before.epoch):
                        self.recorder.write("settled", conversation=conversation, life=view.life)
                        return Owner(before.pid, view.epoch, view.life, view.seq)
                await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """Read every conversation in full, freshly, when the watches have brought what led there."""
        for conversation, owner in (await self.settle()).items():
            at = (conversation, owner.life)
            await wait_until(lambda at=at, seq=owner.seq: self._reached(at, seq), f"the watch of {conversation}")  # type: ignore[misc]
            await self._look_in_full(conversation)

    async def _look_in_full(self, conversation: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(RetryableError):
                    await look(await opened(self.client, conversation), self.recorder, fresh=True, is_full=True)
                    return

    async def _reached(self, at: tuple[str, str], seq: int) -> bool:
        return self.recorder.reached.get(at, 0) >= seq
