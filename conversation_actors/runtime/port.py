"""The port to owners that are Ray actors: finding and starting them, asking them, and telling what a failure means."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ray.exceptions import ActorUnavailableError, RayTaskError

from conversation_actors.errors import ClusterUnavailableError, ConversationError
from conversation_actors.port import PeerFailedError, PeerLostError, PeerRestartingError
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
from conversation_actors.runtime.answers import answer_of
from conversation_actors.runtime.cluster import ActorDirectory
from conversation_actors.runtime.hang import HangWatch
from conversation_actors.runtime.membership import place, tells_of_loss
from conversation_actors.runtime.threads import in_thread
from conversation_actors.settings import Settings

Value = TypeVar("Value")

Handle = Any
"""Ray's proxy of a `ConversationActor`; Ray makes its methods at run time."""


class RayPort:
    """Where one conversation's actor is found in the Ray cluster; an `OwnerPort`."""

    def __init__(self, conversation_id: str, *, directory: ActorDirectory, settings: Settings) -> None:
        """Know whom to look for; nobody is looked up yet."""
        self._conversation_id, self._directory = conversation_id, directory
        self._hang = HangWatch(conversation_id, seconds=settings.timeouts.hang.total_seconds())

    async def find(self) -> "RayPeer | None":
        """See `OwnerPort.find`."""
        actor = await _ask_cluster(self._directory.find, self._conversation_id)
        return None if actor is None else RayPeer(actor, self._hang)

    async def find_or_start(self) -> "RayPeer":
        """See `OwnerPort.find_or_start`."""
        return RayPeer(await _ask_cluster(self._directory.get_or_create, self._conversation_id), self._hang)

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`. An actor that Ray is restarting for long may be one whose head is gone."""
        await _ask_cluster(self._directory.confirm)

    def note_start(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`: the pool has one worker less."""
        self._directory.started(info, was_ready=was_ready)

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`: Ray's handles close nothing."""


class RayPeer:
    """One actor, in the cluster in which it was found; a `Peer`."""

    def __init__(self, actor: Handle, hang: HangWatch) -> None:
        """Take an actor that was found just now."""
        self._actor, self._hang = actor, hang
        self._found_in = place()

    @property
    def is_current(self) -> bool:
        """See `Peer.is_current`: a handle of a cluster that this process has left is good for nothing."""
        return self._found_in == place()

    def suspect(self) -> None:
        """See `Peer.suspect`."""
        self._hang.suspect(self._actor)

    async def open(self, *, create: bool) -> Opened | ConversationError:
        """See `Peer.open`."""
        return await _answer(lambda: self._actor.open.remote(create=create, protocol=PROTOCOL))

    async def info(self) -> ActivationInfo | ConversationError:
        """See `Peer.info`."""
        return await _answer(lambda: self._actor.info.remote(protocol=PROTOCOL))

    async def execute(self, call: Execute) -> Executed | ConversationError:
        """See `Peer.execute`."""
        packed = call.pack()
        answer: bytes | ConversationError = await _answer(lambda: self._actor.execute.remote(packed))
        return answer if isinstance(answer, ConversationError) else Executed.unpack(answer)

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Peer.read`."""
        return await _answer(lambda: self._actor.read.remote(fresh=fresh))

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Polled | ConversationError:
        """See `Peer.poll`."""
        return await _answer(lambda: self._actor.poll.remote(watcher, after_seq, seen, seconds))

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Peer.let_go`."""
        await _answer(lambda: self._actor.let_go.remote(watchers))

    async def passivate(self) -> bool | ConversationError:
        """See `Peer.passivate`."""
        return await _answer(self._actor.passivate.remote)

    async def line(self) -> LineAddress | None:
        """See `Peer.line`; an owner of another version has none for this one."""
        answer: LineAddress | ConversationError | None = await _answer(
            lambda: self._actor.line.remote(protocol=PROTOCOL)
        )
        return None if isinstance(answer, ConversationError) else answer


async def _ask_cluster(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call what blocks on Ray's head. Raises `ClusterUnavailableError` if Ray cannot be asked."""
    try:
        return await in_thread(function, *arguments)
    except Exception as error:
        if not tells_of_loss(error):
            raise
        message = f"the cluster cannot be asked for the owner ({error!r})"
        raise ClusterUnavailableError(message) from error


async def _answer(send: Callable[[], Awaitable[Value]]) -> Value:
    """Send a call and return its answer; a failure is raised as what it means for the caller."""
    try:
        answer: Value = await answer_of(send())
    except RayTaskError as error:
        # The actor answers what it expects to fail as values.
        raise PeerFailedError(error.cause) from error
    except ActorUnavailableError as error:
        raise PeerRestartingError(str(error)) from error  # the handle stays good
    except Exception as error:
        if not tells_of_loss(error):
            raise
        raise PeerLostError(str(error)) from error
    return answer
