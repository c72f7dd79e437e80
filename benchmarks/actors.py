"""The actors that ours is compared with: the cheapest one, and one that keeps a conversation without guarantees.

The latter is what somebody writes who wants no fence, no repeats and no followers. It runs on the same warm node, in
the same kind of process, and keeps the same history in the same Redis. Their classes are made here so that they travel
by value, and workers import no module for them.
"""

from typing import Any

ITEMS = 200
NEAR_OWNERS = {"conversation": 0.001}
"""A resource that only the nodes have on which conversations run."""


def unguaranteed(redis_url: str, name: str) -> Any:
    """Start an actor that keeps a conversation in memory and in Redis."""
    import ray  # noqa: PLC0415  # the suite itself never imports it

    class Unguaranteed:
        def __init__(self, url: str, key: str) -> None:
            from redis.asyncio import Redis  # noqa: PLC0415  # in the actor's process

            self._redis: Any = Redis.from_url(url)
            self._key, self._items = key, list[bytes]()

        async def open(self) -> list[bytes]:
            self._items = await self._redis.lrange(self._key, 0, -1)
            return self._items

        async def append(self, item: bytes) -> int:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.rpush(self._key, item)
                pipeline.ltrim(self._key, -ITEMS, -1)
                pipeline.expire(self._key, 604_800)
                await pipeline.execute()
            self._items = [*self._items[1 - ITEMS :], item]
            return len(self._items)

        async def pid(self) -> int:
            import os  # noqa: PLC0415  # in the actor's process

            return os.getpid()

    options = {"name": name, "lifetime": "detached", "num_cpus": 0, "enable_task_events": False}
    return ray.remote(Unguaranteed).options(resources=NEAR_OWNERS, **options).remote(redis_url, name)


def end(actor: Any) -> None:
    """End an actor."""
    import ray  # noqa: PLC0415  # as above

    ray.kill(actor)


def bare() -> Any:
    """Start the cheapest actor."""
    import ray  # noqa: PLC0415  # as above

    class Bare:
        async def call(self, text: str) -> int:
            return len(text)

    return ray.remote(Bare).options(num_cpus=0, resources=NEAR_OWNERS, enable_task_events=False).remote()
