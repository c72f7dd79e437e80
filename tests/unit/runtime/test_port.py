"""The port to Ray actors: what each failure of Ray means for who asked, and when an actor is good for nothing."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError, RpcError

from conversation_actors.errors import ClusterUnavailableError, IncompatibleVersionError, StoreUnavailableError
from conversation_actors.port import OwnerPort, Peer, PeerFailedError, PeerLostError, PeerRestartingError
from conversation_actors.protocol import PROTOCOL, ActivationInfo, Execute, Executed
from conversation_actors.runtime import port as port_module
from conversation_actors.runtime.port import RayPort
from tests.support.fakes import append, brief


class Actor:
    """Ray's proxy of an owner: each method answers, or raises, the same."""

    def __init__(self, answer: Any = None) -> None:
        """Answer, or raise an exception that is none of ours."""
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        """Make any method."""
        return SimpleNamespace(remote=lambda *positional, **named: self._send(name, *positional, named))

    def _send(self, *asked: Any) -> "asyncio.Future[Any]":
        self.asked.append(asked)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(self.answer, Exception) and not isinstance(self.answer, StoreUnavailableError):
            answered.set_exception(self.answer)
        else:
            answered.set_result(self.answer)
        return answered


class Directory:
    """Finds one actor, or raises; the twin of `ActorDirectory`."""

    def __init__(self, actor: Actor | None) -> None:
        """Find this one."""
        self.actor = actor
        self.error: Exception | None = None
        self.starts: list[bool] = []

    def confirm(self) -> None:
        """See `ActorDirectory.confirm`."""
        if self.error is not None:
            raise self.error

    def find(self, _conversation_id: str) -> Actor | None:
        """See `ActorDirectory.find`."""
        self.confirm()
        return self.actor

    get_or_create = find

    def started(self, _info: ActivationInfo, *, was_ready: bool) -> None:
        """See `ActorDirectory.started`."""
        self.starts.append(was_ready)


def made(actor: Actor | None) -> tuple[OwnerPort, Directory]:
    """A port to one actor, and where it finds that."""
    directory = Directory(actor)
    return RayPort("c", directory=cast("Any", directory), settings=brief()), directory


async def found(answer: Any) -> tuple[Peer, Actor]:
    """The peer of an actor that answers the same to everything."""
    actor = Actor(answer)
    port, _ = made(actor)
    return await port.find_or_start(), actor


async def test_the_cause_of_what_an_owner_raised_is_told() -> None:
    """An owner answers what it expects to fail as a value; what it raises is a fault, and keeps its cause."""
    cause = ZeroDivisionError("of ours")
    peer, _ = await found(RayTaskError("read", "traceback", cause))
    with pytest.raises(PeerFailedError) as raised:
        await peer.read(fresh=True)
    assert raised.value.cause is cause


@pytest.mark.parametrize(
    ("raised", "means"),
    [
        (ActorUnavailableError("restarting", b"1" * 16), PeerRestartingError),
        (ActorDiedError(), PeerLostError),
        (GetTimeoutError(), PeerLostError),
        (RpcError("away"), PeerLostError),
        (ConnectionError("GRPC connection failed"), PeerLostError),
        (Exception("Failed to submit task to actor"), PeerLostError),  # as Ray refuses a handle of another cluster
        (TypeError("of ours"), TypeError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_what_ray_raises_is_told_as_what_it_means(raised: Exception, means: type[Exception]) -> None:
    """A restart keeps the peer, a loss does not, and a mistake of this program is raised as it is."""
    peer, _ = await found(raised)
    with pytest.raises(means) as told:
        await peer.info()
    assert type(told.value) is means


async def test_a_refusal_before_the_call_is_sent_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses some calls at once, and not by what is awaited."""
    peer, actor = await found(None)

    def refuse(*_: object) -> None:
        message = "Failed to submit task to actor"
        raise Exception(message)  # noqa: TRY002  # as Ray does

    monkeypatch.setattr(actor, "_send", refuse)
    with pytest.raises(PeerLostError):
        await peer.passivate()


async def test_an_error_that_is_answered_is_a_value() -> None:
    """What the owner refuses is for the policy to raise or to repeat."""
    refused = StoreUnavailableError("away")
    peer, _ = await found(refused)
    assert await peer.execute(Execute([append("u0")], "w", 0)) is refused
    assert await peer.open(create=True) is refused


async def test_calls_are_packed_and_answers_unpacked() -> None:
    """What goes to and fro most often packs; an answer of another protocol is refused as such."""
    call, answer = Execute([append("u0")], "w", 0), Executed((), (), "o")
    peer, actor = await found(answer.pack())
    assert await peer.execute(call) == answer
    assert actor.asked == [("execute", call.pack(), {})]
    actor.answer = bytes((PROTOCOL + 1,))
    with pytest.raises(IncompatibleVersionError):
        await peer.execute(call)


@pytest.mark.parametrize("error", [ConnectionError("GRPC connection failed"), Exception("left"), RpcError("away")])
async def test_a_cluster_that_is_lost_while_an_owner_is_looked_for_is_told(error: Exception) -> None:
    """Whatever Ray, its client, or who is just joining anew raises: callers get an error of ours."""
    port, directory = made(Actor())
    directory.error = error
    for asked in (port.find, port.find_or_start, port.confirm):
        with pytest.raises(ClusterUnavailableError, match=str(error)):
            await asked()


async def test_a_mistake_while_an_owner_is_looked_for_is_raised_as_it_is() -> None:
    """No repeat mends it, and nobody is told that the cluster is away."""
    port, directory = made(Actor())
    directory.error = TypeError("of ours")
    with pytest.raises(TypeError, match="of ours"):
        await port.find()


async def test_a_peer_of_a_cluster_that_was_left_is_not_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle of one cluster is none in another, even where the actor has the same name."""
    place = ["here"]
    monkeypatch.setattr(port_module, "place", lambda: place[0])
    peer, _ = await found(None)
    assert peer.is_current
    place[0] = "elsewhere"
    assert not peer.is_current


async def test_nobody_is_found_where_nobody_runs() -> None:
    """A name without an actor is no error."""
    port, directory = made(None)
    assert await port.find() is None
    assert not directory.starts


async def test_a_start_is_told_to_the_pool() -> None:
    """The pool counts which starts found a process that had been started ahead of time."""
    port, directory = made(Actor())
    port.note_start(cast("ActivationInfo", None), was_ready=True)
    assert directory.starts == [True]
