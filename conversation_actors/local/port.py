"""The port to owners in this process. What passes it is packed and copied, as on the way to another process."""

import pickle
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.local.host import LocalHost
from conversation_actors.local.hosts import Home, LocalHosts, hosts_of_process
from conversation_actors.protocol import (
    PROTOCOL,
    ActivationInfo,
    Execute,
    Executed,
    LineAddress,
    Opened,
    Polled,
    Seen,
    View,
)
from conversation_actors.settings import Settings
from conversation_actors.store import open_store
from conversation_actors.timing import TIMING, Timing

Value = TypeVar("Value")


class LocalOwners:
    """The owners of one ``memory://`` store, as one client of this process sees them."""

    def __init__(self, settings: Settings, hosts: LocalHosts | None = None, *, timing: Timing = TIMING) -> None:
        """Count as a client of the running loop until closed. Hosts that are started from here run with `settings`."""
        self._settings, self._hosts, self._timing = settings, hosts or hosts_of_process(), timing
        self._home, self._store = Home.of(settings), open_store(settings)
        self._is_closed = False
        self._hosts.enter(self._home)

    def port(self, conversation_id: str) -> "LocalPort":
        """Return the port to one conversation's owner."""
        return LocalPort(self, conversation_id)

    def find(self, conversation_id: str) -> LocalHost | None:
        """Return the host that runs now, if one does."""
        return self._hosts.find(self._home, conversation_id)

    def find_or_start(self, conversation_id: str) -> LocalHost:
        """Return the host that runs now, or one that is started in the running loop.

        Raises `InvalidInputError` after `aclose`: a host that was started then would run on when all have left.
        """
        if self._is_closed:
            message = "client: it was closed under this call"
            raise InvalidInputError(message, field="client")
        return self._hosts.find_or_start(
            self._home,
            conversation_id,
            lambda: LocalHost(conversation_id, self._settings, self._store, timing=self._timing),
        )

    async def aclose(self) -> None:
        """Leave. Owners that run in this loop end with the last client of their store in it."""
        self._is_closed = True
        await self._hosts.leave(self._home)


class LocalPort:
    """Where one conversation's owner is found in this process; an `OwnerPort`."""

    def __init__(self, owners: LocalOwners, conversation_id: str) -> None:
        """Know whom to look for; nobody is looked up yet."""
        self._owners, self._conversation_id = owners, conversation_id

    async def find(self) -> "LocalPeer | None":
        """See `OwnerPort.find`."""
        host = self._owners.find(self._conversation_id)
        return None if host is None else LocalPeer(host)

    async def find_or_start(self) -> "LocalPeer":
        """See `OwnerPort.find_or_start`."""
        return LocalPeer(self._owners.find_or_start(self._conversation_id))

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`: this process can always be asked."""

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`: nothing was started ahead of time."""

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`: nothing is kept open."""


class LocalPeer:
    """One host; a `Peer`."""

    def __init__(self, host: LocalHost) -> None:
        """Take a host that was found just now."""
        self._host = host

    @property
    def is_current(self) -> bool:
        """See `Peer.is_current`: a process never leaves itself."""
        return True

    def suspect(self) -> None:
        """See `Peer.suspect`: in a process that hangs nobody would look."""

    async def open(self, *, create: bool) -> Opened | ConversationError:
        """See `Peer.open`."""
        opened = await self._answer(lambda: self._host.open(create=create, protocol=PROTOCOL))
        if isinstance(opened, ConversationError):
            return opened
        return replace(opened, info=_in_memory(opened.info))

    async def info(self) -> ActivationInfo | ConversationError:
        """See `Peer.info`."""
        info = await self._answer(lambda: self._host.info(protocol=PROTOCOL))
        return info if isinstance(info, ConversationError) else _in_memory(info)

    async def execute(self, call: Execute) -> Executed | ConversationError:
        """See `Peer.execute`."""
        packed = call.pack()
        answer = await self._answer(lambda: self._host.execute(packed))
        return answer if isinstance(answer, ConversationError) else Executed.unpack(answer)

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Peer.read`."""
        return await self._answer(lambda: self._host.read(fresh=fresh))

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Polled | ConversationError:
        """See `Peer.poll`."""
        return await self._answer(lambda: self._host.poll(watcher, after_seq, seen, seconds))

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Peer.let_go`."""
        await self._answer(lambda: self._host.let_go(watchers))

    async def passivate(self) -> bool | ConversationError:
        """See `Peer.passivate`."""
        return await self._answer(self._host.passivate)

    async def line(self) -> LineAddress | None:
        """See `Peer.line`: the owner is in this process."""
        return None

    async def _answer(self, call: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Return the host's answer; an error as a copy, since others may be raising the same one."""
        answer = await self._host.ask(call)
        if isinstance(answer, ConversationError):
            copied: Value = pickle.loads(pickle.dumps(answer))  # noqa: S301  # made here
            return copied
        return answer


def _in_memory(info: ActivationInfo) -> ActivationInfo:
    return replace(info, reached_by="memory")
