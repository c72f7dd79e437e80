"""How often something is done that may have to be done again and again without any use."""

import asyncio
from collections.abc import Callable


class Pace:
    """Does one thing when it is asked for: at once, and after pauses that grow while it is asked for ever again.

    Asked for during a pause, it is done once, at the end of the pause.
    """

    def __init__(self, act: Callable[[], None], *, pauses: tuple[float, float]) -> None:
        """`pauses`: the first and the longest, in seconds. After two of the longest without a wish it begins anew."""
        self._act, self._pauses = act, pauses
        self._delay = 0.0
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Have it done, now or soon. Belongs to the event loop."""
        if self._timer is not None:
            return
        shortest, longest = self._pauses
        loop = asyncio.get_running_loop()
        delay = self._delay if loop.time() - self._last <= 2 * longest else 0.0
        self._delay = min(max(2 * delay, shortest), longest)
        if delay:
            self._timer = loop.call_later(delay, self._do)
        else:
            self._do()

    def stop(self) -> None:
        """Forget what is still to be done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _do(self) -> None:
        self._timer = None
        self._last = asyncio.get_running_loop().time()
        self._act()
