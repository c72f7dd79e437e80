"""What happens to a Redis whose data is in its append-only file."""

import asyncio
import random
from collections import Counter

from tests.support.servers import Server


class RedisFaults:
    """Faults of one Redis, as a nemesis has them; `counts` is what was done, by its kind."""

    _longest_pause = 2.0
    """Seconds for which it is paused at most."""

    def __init__(self, redis: Server, dice: random.Random) -> None:
        """Do nothing yet."""
        self._redis, self._dice = redis, dice
        self.counts: Counter[str] = Counter()

    async def _moment(self, longest: float = 1.0) -> None:
        await asyncio.sleep(self._dice.uniform(0.05, longest))

    async def _redis_killed(self) -> None:
        self._redis.kill()
        await self._moment(0.5)
        await asyncio.to_thread(self._redis.start)

    async def _redis_paused(self) -> None:
        self._redis.pause()
        await self._moment(self._longest_pause)
        self._redis.resume()
