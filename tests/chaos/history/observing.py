"""Following a conversation to write down what it shows: each watch with the life that its positions are of."""

import asyncio
import time

from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    ConversationNotFoundError,
    InvalidInputError,
    PositionLostError,
    RefusedError,
    RetryableError,
)
from conversation_actors.protocol import View
from tests.chaos.history.record import Recorder

_PAUSE = 0.05
"""Seconds between two tries."""


async def opened(client: ConversationClient, conversation: str) -> ConversationHandle:
    """Open a conversation, or make it, however often that takes."""
    while True:
        try:
            return await client.open(conversation)
        except InvalidInputError:  # the handle that the client had was closed meanwhile
            await asyncio.sleep(_PAUSE)
        except RetryableError:
            await asyncio.sleep(_PAUSE)


async def look(handle: ConversationHandle, recorder: Recorder, *, fresh: bool, is_full: bool = False) -> View:
    """Read the state and write it down. What `snapshot()` hands out has no life: this asks for what it is made of."""
    started = time.monotonic()
    view = await handle._owner.read(fresh=fresh)
    recorder.view(handle.id, view, started=started, fresh=fresh, is_full=is_full)
    return view


async def follow(client: ConversationClient, conversation: str, recorder: Recorder) -> None:
    """Watch for ever; after a lost position from the oldest one that is kept, in a new life from its beginning."""
    handle = await opened(client, conversation)
    life, position = "", 0
    while True:
        if handle.is_closed:  # which ends its watches; the client has another one by now, or soon
            handle = await opened(client, conversation)
        copied = handle._copy.seen.life  # which `watch` compares with the owner's
        position = position if copied == life else 0
        run, life = recorder.run(conversation, copied, position), copied
        try:
            async for entry in handle.watch(after_seq=position):
                recorder.entry(run, conversation, life, entry)
                position = entry.seq
        except PositionLostError as error:
            handle = await _in_the_present_life(client, conversation, recorder)
            position = error.first_available
        except ConversationNotFoundError:
            handle = await opened(client, conversation)
        except InvalidInputError:
            if not handle.is_closed:
                raise
        except RetryableError:
            await asyncio.sleep(_PAUSE)


async def _in_the_present_life(client: ConversationClient, conversation: str, recorder: Recorder) -> ConversationHandle:
    """A handle whose copy is in the life that was just read in full."""
    while True:
        handle = await opened(client, conversation)
        try:
            view = await look(handle, recorder, fresh=False, is_full=True)
        except (RefusedError, RetryableError):  # gone once more, or closed
            view = None
        if view is not None and handle._copy.seen.life == view.life:
            return handle
        await asyncio.sleep(_PAUSE)
