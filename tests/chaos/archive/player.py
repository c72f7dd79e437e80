"""One client of a history: it appends, records and removes until it is stopped, and notes what it was told."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from conversation_actors import (
    ConversationError,
    ConversationHandle,
    Message,
    PositionLostError,
    Receipt,
    RetryableError,
)
from tests.chaos.archive.told import Said, Told

Answer = TypeVar("Answer")

LAST_SECONDS = 30.0
"""How long what was begun is repeated after the stop."""
OPERATIONS = {"append": 10, "several": 3, "record": 6, "repeat": 3, "remove": 2, "attribute": 3}
"""What a client does, and how often each is drawn."""
_PAUSE_SECONDS = 0.05
BUSY, QUIET = 0.08, 3.0
"""Seconds between two operations, at most: with the longer one a conversation leaves the listing, and comes back."""


class Player:
    """Plays one client's part in one conversation, one operation after the other."""

    def __init__(self, name: str, handle: ConversationHandle, told: Told, seed: str, *, thought: float = BUSY) -> None:
        """`seed` decides what is done, not when. `thought` is the longest pause between two operations."""
        self._thought = thought
        self._name, self._handle, self._told = name, handle, told
        self._dice = random.Random(seed)
        self._count = 0
        self._deadline = float("inf")
        self._is_stopped = False
        self._appended: deque[str] = deque(maxlen=30)
        """Single messages that were acknowledged, the latest ones."""

    def stop(self) -> None:
        """End with the operation that is under way, which is repeated for a while until it is acknowledged."""
        self._is_stopped, self._deadline = True, time.monotonic() + LAST_SECONDS

    async def play(self) -> None:
        """Go on until stopped."""
        kinds, weights = list(OPERATIONS), list(OPERATIONS.values())
        while not self._is_stopped:
            await getattr(self, f"_{self._dice.choices(kinds, weights)[0]}")()
            await asyncio.sleep(self._dice.uniform(0, self._thought))

    async def _append(self) -> None:
        text = self._next()
        receipt = await self._until_acknowledged(lambda: self._write(text))
        if receipt is not None:
            self._told.acknowledge(text, receipt.seq)
            self._appended.append(text)

    async def _several(self) -> None:
        """Append a few items as one entry."""
        texts = [self._next() for _ in range(self._dice.randint(2, 5))]
        receipt = await self._until_acknowledged(lambda: self._write(*texts))
        if receipt is not None:
            for text in texts:
                self._told.acknowledge(text, receipt.seq)

    async def _record(self) -> None:
        texts = [self._next() for _ in range(self._dice.randint(1, 20))]
        with suppress(RetryableError):  # too much is waiting already: what was taken may come
            for text in texts:
                self._handle.record(_message(text))
            if await self._until_acknowledged(self._flush):
                for text in texts:
                    self._told.acknowledge(text)

    async def _repeat(self) -> None:
        """Send once more what was acknowledged: the receipt is the first one."""
        if self._appended:
            text = self._dice.choice(self._appended)
            receipt = await self._until_acknowledged(lambda: self._write(text))
            if receipt is not None:
                self._told.acknowledge(text, receipt.seq)

    async def _remove(self) -> None:
        """Take a message out, which may have left the window: then it stays in the archive."""
        if self._appended:
            text = self._appended.popleft()
            await self._until_acknowledged(lambda: self._handle.remove(text, request_id=f"remove {text}"))

    async def _attribute(self) -> None:
        self._count += 1
        changes = {self._name: self._count}
        await self._until_acknowledged(lambda: self._handle.set_attributes(changes, request_id=f"{changes}"))

    def _next(self) -> str:
        self._count += 1
        text = f"{self._name}:{self._count:06}"
        self._told.said[text] = Said(self._name)
        return text

    def _write(self, *texts: str) -> Awaitable[Receipt]:
        return self._handle.append(*map(_message, texts), request_id=f"append {texts[0]}")

    async def _flush(self) -> bool:
        await self._handle.flush()
        return True

    async def _until_acknowledged(self, call: Callable[[], Awaitable[Answer]]) -> Answer | None:
        while time.monotonic() < self._deadline:
            try:
                return await call()
            except RetryableError:
                await asyncio.sleep(_PAUSE_SECONDS)
        return None


def _message(text: str) -> Message:
    return Message(role="user", content=text, id=text)


async def watch(handle: ConversationHandle, told: Told) -> None:
    """Take down every entry, for ever; after a lost position from the oldest one that is kept."""
    position = 0
    while True:
        try:
            async for entry in handle.watch(after_seq=position):
                told.watch(entry)
                position = entry.seq
        except PositionLostError as error:
            position = error.first_available
        except ConversationError:
            await asyncio.sleep(_PAUSE_SECONDS)
