"""Writes to a store that may be away."""

import logging
from collections.abc import Awaitable, Callable

from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.errors import RetryableError, StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.store import Outcome
from conversation_actors.timing import Timing

log = logging.getLogger(__name__)


class Patience:
    """Repeats a write until the store has decided it, and tells since when that has been in vain, and why."""

    def __init__(self, failures: Failures, timing: Timing) -> None:
        """Begin with a store that has not failed yet; count failures as `write`."""
        self._failures, self._pauses = failures, timing.write
        self._failing_since: float | None = None
        self._reason: RetryableError | None = None

    @property
    def failing_for(self) -> float:
        """Seconds since the first failure of the write that is being repeated now; 0 if none is."""
        return 0.0 if self._failing_since is None else uptime() - self._failing_since

    @property
    def reason(self) -> str:
        """The end of a message: the latest failure since the store has last decided a write, empty if there is none."""
        return "" if self._reason is None else f": {self._reason}"

    def raise_if_failing_for(self, seconds: float) -> None:
        """Raise `StoreUnavailableError` if the store has taken no write for longer than this."""
        if self.failing_for > seconds:
            message = f"the store has not taken a write for {self.failing_for:.1f} s{self.reason}"
            raise StoreUnavailableError(message)

    async def until_decided(self, write: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Repeat `write` until the store answers it. Raises what a repeat cannot mend."""
        backoff = Backoff(self._pauses)
        try:
            while True:
                try:
                    outcome = await write()
                except RetryableError as error:
                    self._note(error)
                    await backoff.wait()
                else:
                    self._reason = None
                    return outcome
        finally:
            # Given up by its caller too: commands, refused while this is set, are what finds the store well again.
            self._failing_since = None

    def _note(self, error: RetryableError) -> None:
        self._reason = error
        self._failures.count("write")
        if self._failing_since is None:
            self._failing_since = uptime()
            log.warning("a write is being repeated", extra={"reason": str(error)})
