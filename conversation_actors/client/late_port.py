"""The port of a client that has not joined its cluster yet."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.port import OwnerPort, Peer
from conversation_actors.protocol import ActivationInfo


class Join(Protocol):
    """How a client comes to be in its cluster."""

    def __call__(self, *, anew: bool) -> Awaitable[None]:
        """Return when the cluster is joined. Raises the `ConversationError` for which it is not.

        If joining has failed, it is tried again if `anew`; otherwise the same error is raised again.
        """


class LatePort:
    """One conversation's port, there as soon as the cluster is joined; an `OwnerPort`.

    A joining that failed is tried again for whoever wants an owner started, or asks whether that can be. It is not for
    whoever looks for an owner that runs: a handle that follows looks once a second.
    """

    def __init__(self, join: Join, port: Callable[[], OwnerPort]) -> None:
        """Join nothing yet. `port` makes the one to use when the cluster is joined."""
        self._join, self._make = join, port
        self._port: OwnerPort | None = None
        self._is_closed = False

    async def find(self) -> Peer | None:
        """See `OwnerPort.find`."""
        return await (await self._joined(anew=False)).find()

    async def find_or_start(self) -> Peer:
        """See `OwnerPort.find_or_start`."""
        return await (await self._joined(anew=True)).find_or_start()

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`."""
        await (await self._joined(anew=True)).confirm()

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`."""
        self._made().note_start(info, was_ready=was_ready)

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`. Whoever waits for the cluster still finds no owner."""
        self._is_closed = True
        if self._port is not None:
            await self._port.aclose()

    async def _joined(self, *, anew: bool) -> OwnerPort:
        if self._port is None:
            await self._join(anew=anew)
        if self._is_closed:
            message = "closed before an owner was found"
            raise ClusterUnavailableError(message)
        return self._made()

    def _made(self) -> OwnerPort:
        if self._port is None:
            self._port = self._make()
        return self._port
