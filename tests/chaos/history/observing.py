"""Following a conversation to write down what it shows: each watch with the life that its positions are of."""

import asyncio
import time

from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    ConversationNotFoundError,
    PositionLostError,
    RetryableError,
)
from conversation_actors.activation import View
from tests.chaos.history.record import Recorder

_PAUSE = 0.05
"""Seconds between two tries."""


async def opened(client: ConversationClient, conversation: str) -> ConversationHandle:
    """Open a conversation, or make it, however often that takes."""
    while True:
        try:
            return await client.open(conversation)
        except RetryableError:
            await asyncio.sleep(_PAUSE)


async def look(handle: ConversationHandle, recorder: Recorder, *, fresh: bool, is_full: bool = False) -> View:
    """Read the state and write it down. What `snapshot()` hands out has no life: this asks for what it is made of."""
    started = time.monotonic()
    view = await handle._read(fresh=fresh)
    recorder.view(handle.id, view, started=started, fresh=fresh, is_full=is_full)
    return view


async def follow(client: ConversationClient, conversation: str, recorder: Recorder) -> None:
    """Watch for ever; after a lost position from a state on, in a new life from its first entry on."""
    handle = await opened(client, conversation)
    life, position = "", 0
    while True:
        copied = handle._copy.life  # which `watch` compares with the owner's
        position = position if copied == life else 0
        run, life = recorder.run(conversation, copied, position), copied
        try:
            async for entry in handle.watch(after_seq=position):
                recorder.entry(run, conversation, life, entry)
                position = entry.seq
        except PositionLostError:
            handle, position = await _behind_a_state(client, conversation, recorder)
        except ConversationNotFoundError:
            handle = await opened(client, conversation)
        except RetryableError:
            await asyncio.sleep(_PAUSE)


async def _behind_a_state(
    client: ConversationClient, conversation: str, recorder: Recorder
) -> tuple[ConversationHandle, int]:
    """A handle whose copy is in the life that was just read, and the position of that state."""
    while True:
        handle = await opened(client, conversation)
        try:
            view = await look(handle, recorder, fresh=False, is_full=True)
        except (ConversationNotFoundError, RetryableError):
            view = None
        if view is not None and handle._copy.life == view.life:
            return handle, view.seq
        await asyncio.sleep(_PAUSE)
