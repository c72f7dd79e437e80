"""Waiting for conditions: a test that waits for a time proves nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds any condition may take before a test fails."""


def wait_for(condition: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    """Wait until the condition is true; fail by naming it."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            message = f"still waiting after {patience} s: {what}"
            raise TimeoutError(message)
        time.sleep(0.01)


async def wait_until(condition: Callable[[], Awaitable[object]], what: str, *, patience: float = PATIENCE) -> None:
    """Wait until the awaited condition is true; fail by naming it."""
    deadline = time.monotonic() + patience
    while not await condition():
        if time.monotonic() > deadline:
            message = f"still waiting after {patience} s: {what}"
            raise TimeoutError(message)
        await asyncio.sleep(0.01)
