"""What is wrong with those who come, in the log: once a minute, however often they come."""

import logging

from conversation_actors.clock import uptime

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0


class Complaints:
    """A line in the log for the first of many complaints, and their number with the next line."""

    def __init__(self) -> None:
        """None yet."""
        self._since_last = 0
        self._last: float | None = None

    def note(self, reason: str) -> None:
        """Log that a connection was closed, and why, unless something was logged less than a minute ago."""
        self._since_last += 1
        now = uptime()
        if self._last is not None and now - self._last < _AGAIN_SECONDS:
            return
        logger.warning("a line was closed", extra={"reason": reason, "closed": self._since_last})
        self._last, self._since_last = now, 0
