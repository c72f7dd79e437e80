"""Watching a conversation: its entries one by one, for as long as a handle is open."""

import asyncio
from collections.abc import AsyncGenerator

from conversation_actors.client.following import Feed
from conversation_actors.client.lifetime import Lifetime
from conversation_actors.codec import decode_entry
from conversation_actors.errors import RetryableError
from conversation_actors.protocol import Seen
from conversation_actors.state import Entry


async def watch(
    feed: Feed, position: int, seen: Seen, *, lifetime: Lifetime, pause: float
) -> AsyncGenerator[Entry, None]:
    """Yield the entries after a position of the history `seen`; see `ConversationHandle.watch`.

    An owner that cannot recover yet, or has too many watchers, is asked again after a `pause` in seconds.
    """
    try:
        while True:
            try:
                entries, owner = await lifetime.unless_over(feed.after(position, seen))
            except RetryableError:
                await lifetime.unless_over(asyncio.sleep(pause))
                continue
            seen = seen._replace(owner=owner)
            for data in entries:
                entry = decode_entry(data)
                position = entry.seq
                yield entry
    finally:
        await feed.let_go()
