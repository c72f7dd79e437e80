"""Pauses between repeats."""

import asyncio
import random


class Backoff:
    """Pauses between repeated attempts: each is twice as long as the one before, up to a maximum.

    Each pause is shortened at random, to between half and all of it, so that many clients that wait for the same thing
    do not all come back at once.
    """

    def __init__(self, bounds: tuple[float, float]) -> None:
        """Take the first and the longest pause in seconds."""
        self._first, self._longest = bounds
        self._pause = self._first

    def next(self) -> float:
        """Return the seconds to wait now, and make the next pause longer."""
        pause = self._pause
        self._pause = min(pause * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing

    async def wait(self) -> None:
        """Wait for as long as `next` returns."""
        await asyncio.sleep(self.next())

    def reset(self) -> None:
        """Start again with the first pause."""
        self._pause = self._first
