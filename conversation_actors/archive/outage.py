"""The time in which a server does not do what is asked of it: told once when it begins, and once when it is over."""

import logging
from collections.abc import Callable

from conversation_actors.backoff import Backoff
from conversation_actors.clock import uptime
from conversation_actors.errors import ConversationError, OperatorError

logger = logging.getLogger(__name__)


class Outage:
    """Whether a server is away, and when it may be tried again.

    A failure begins the outage. It is over when the very step that failed last has succeeded: a server that answers one
    question may still refuse another.
    """

    def __init__(self, server: str, pauses: tuple[float, float], *, clock: Callable[[], float] = uptime) -> None:
        """Begin with a server that does what is asked. `pauses` are the bounds between two attempts."""
        self._server, self._clock = server, clock
        self._backoff = Backoff(pauses)
        self._began = self._next_at = 0.0
        self._step: str | None = None
        self._kind: type[ConversationError] | None = None

    @property
    def is_on(self) -> bool:
        """Whether the server is away."""
        return self._step is not None

    @property
    def pause(self) -> float:
        """The seconds until the server may be tried again; 0 if it may be now."""
        return max(0.0, self._next_at - self._clock()) if self.is_on else 0.0

    def failed(self, step: str, error: ConversationError) -> None:
        """Note that a step has failed. What else fails before the next attempt prolongs no pause, and is not told."""
        now = self._clock()
        if not self.is_on:
            self._began = now
            self._backoff.reset()
        elif now < self._next_at and type(error) is self._kind:
            self._step = step
            return
        self._next_at = now + self._backoff.next()
        if type(error) is not self._kind:
            level = logging.ERROR if isinstance(error, OperatorError) else logging.WARNING
            logger.log(
                level,
                "what is acknowledged waits to be archived, because a server does not do what is asked of it",
                extra={"server": self._server, "step": step, "reason": str(error)},
            )
        self._step, self._kind = step, type(error)

    def done(self, step: str) -> None:
        """Note that a step has succeeded."""
        if self._step == step:
            self.over()

    def over(self) -> None:
        """Note that nothing is left that could fail."""
        if self.is_on:
            seconds = round(self._clock() - self._began, 3)
            logger.info("the server does what is asked of it again", extra={"server": self._server, "seconds": seconds})
        self._step = self._kind = None
