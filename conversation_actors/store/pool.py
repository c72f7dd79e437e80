"""Bounds the connections of a process to one server: whoever needs one more waits until one is free.

redis-py's own pools either refuse whoever is one too many, or give a connection back in a step that can be cancelled,
after which the pool is one smaller for good.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from conversation_actors.store.address import Address

_WAITING_SHARE = 0.8
"""The part of the timeout in which a connection has to become free, so that it is told what was short."""


class BoundedPool:
    """A pool of redis-py's, of which at most so many connections are in use; all else is the pool's own."""

    def __init__(self, pool: Any, *, most: int, seconds: float) -> None:
        """Let whoever needs a connection wait for one up to `seconds`."""
        self._pool = pool
        self._most = most
        self._seconds = seconds
        self._free = asyncio.Semaphore(most)

    def __getattr__(self, name: str) -> Any:
        """Ask the pool."""
        return getattr(self._pool, name)

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Take a connection, which `release` gives back."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            message = f"all {self._most} connections are in use; CONVERSATION_REDIS_CONNECTIONS allows no more"
            raise RedisConnectionError(message) from None
        try:
            return await self._pool.get_connection(*arguments, **options)
        except BaseException:
            self._free.release()
            raise

    async def release(self, connection: Any) -> None:
        """Give a connection back."""
        try:
            await self._pool.release(connection)
        finally:
            self._free.release()


def bounded(client: Redis, address: Address, timeout: float) -> Redis:
    """Bound a client's connections by the address's number."""
    client.connection_pool = BoundedPool(
        client.connection_pool, most=address.connections, seconds=timeout * _WAITING_SHARE
    )  # type: ignore[assignment]  # it does what the client asks of a pool
    return client
