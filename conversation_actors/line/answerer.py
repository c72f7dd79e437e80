"""What a line needs of the host of an activation."""

from collections.abc import Sequence
from typing import Protocol

from conversation_actors.errors import ConversationError
from conversation_actors.protocol import Execute, Executed, Polled, Seen, View


class Answerer(Protocol):
    """What a line asks of the host: its answers, with a `ConversationError` as a value."""

    async def decide(self, call: Execute) -> Executed | ConversationError:
        """See `Host.decide`."""

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Host.read`."""

    async def poll(
        self,
        watcher: str,
        after_seq: int,
        seen: Seen,
        timeout: float,  # noqa: ASYNC109  # see Activation.poll
    ) -> Polled | ConversationError:
        """See `Host.poll`."""

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Host.let_go`."""
