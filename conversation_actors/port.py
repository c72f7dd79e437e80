"""How owners are found and asked: what a client needs of the place where they run, and no more.

`client/owner.py` repeats what failed; it knows the owner only by this port. `runtime/port.py` is the port to owners
that are Ray actors.
"""

from collections.abc import Sequence
from typing import Protocol

from conversation_actors.errors import ConversationError
from conversation_actors.protocol import ActivationInfo, Execute, Executed, LineAddress, Opened, Polled, Seen, View


class PeerLostError(Exception):
    """The owner is gone, or its answer is: look the owner up before it is asked again."""


class PeerRestartingError(Exception):
    """The owner's process is being started again: the same peer may answer a later call."""


class PeerFailedError(Exception):
    """The owner raised what it does not answer; a repeat would raise it again."""

    def __init__(self, cause: BaseException) -> None:
        """Take what the owner raised."""
        super().__init__(repr(cause))
        self.cause = cause


class Peer(Protocol):
    """One process that owns the conversation, or did so a moment ago.

    Each call is sent once. It returns the owner's answer, which may be a `ConversationError` as a value, and raises
    `PeerLostError`, `PeerRestartingError` or `PeerFailedError`. It has no time-out: whoever waits for it sets one, and
    a call that nobody waits for any longer may still be executed.
    """

    @property
    def is_current(self) -> bool:
        """Whether this process is still where it was when it found this peer; if not, the peer answers nothing."""

    def suspect(self) -> None:
        """Look, without being waited for, whether the owner's process hangs: it has not answered for long."""

    async def open(self, *, create: bool) -> Opened | ConversationError:
        """Activate the conversation unless that is done; with `create`, also one that is not stored."""

    async def info(self) -> ActivationInfo | ConversationError:
        """Return facts about the activation of what is stored."""

    async def execute(self, call: Execute) -> Executed | ConversationError:
        """Decide requests in order, and make them durable."""

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """Show the durable state; if `fresh`, only after the store has confirmed that this is the owner."""

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Polled | ConversationError:
        """Wait for entries after a position of the history `seen`, for so many seconds at most."""

    async def let_go(self, watchers: Sequence[str]) -> None:
        """Forget watchers that read no longer."""

    async def passivate(self) -> bool | ConversationError:
        """Save a snapshot and leave; True when the snapshot is saved."""

    async def line(self) -> LineAddress | None:
        """Return where the owner's process listens for a line of its own; None if it does not."""


class OwnerPort(Protocol):
    """Where one conversation's owner is found.

    Each method raises `ClusterUnavailableError` while nobody can be asked for the owner.
    """

    async def find(self) -> Peer | None:
        """Return the owner that runs now, which may be dying; None if none does."""

    async def find_or_start(self) -> Peer:
        """Return the owner that runs now, which may be dying, or one that is started for this."""

    async def confirm(self) -> None:
        """Return if owners can be asked for at all."""

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """Take note of an owner that has opened its conversation for the first time.

        `was_ready` tells whether its process had been started ahead of time.
        """

    async def aclose(self) -> None:
        """Let go of whatever this port keeps open. Idempotent; nothing is asked through it afterwards."""
