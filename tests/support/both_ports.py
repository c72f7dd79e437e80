"""Owners that are asked by both ports: a real line on real sockets, with a relay on it, and calls as Ray's beside it.

Hosts, stores, handles and the policy are the product's own. The calls beside the line are those of a `FakeCluster`:
counted, pickled, and lost when a test says so.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from conversation_actors.activation import Activation
from conversation_actors.client import ConversationHandle
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import ConversationError
from conversation_actors.failures import Failures
from conversation_actors.line.port import DirectPort
from conversation_actors.line.server import LineServer
from conversation_actors.port import Peer
from conversation_actors.protocol import PROTOCOL, Execute, Executed, LineAddress, Opened
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from conversation_actors.timing import Timing
from tests.support.fakes import CONVERSATION, PATIENCE, FakeActor, FakeCluster, FakePeer, FakePort, until
from tests.support.quick import QUICK
from tests.support.relay import Relay

LINE_PATIENT = replace(QUICK, line_answer=PATIENCE, line_connect=PATIENCE, line_leave=0.05)
"""What both ends of a line wait where nothing is silent: however slow the machine is, a line that is up is used."""
LINE_QUICK = replace(LINE_PATIENT, line_answer=0.1, line_connect=0.2)
"""What they wait where lines fall silent."""


class LineActor(FakeActor):
    """A `FakeActor` that listens for lines, as a Ray actor does."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        directory: Path,
        number: int = 1,
        *,
        node_address: str | None = None,
        timing: Timing = LINE_PATIENT,
    ) -> None:
        """Begin to listen at once, in this directory and at this address."""
        self.asked: Counter[str] = Counter()
        """What came by lines, by method."""
        self.line_server = LineServer(self, f"process-{number}", failures=Failures(), timing=timing)
        self._listening = asyncio.create_task(self.line_server.listen(node_address, directory=directory))
        super().__init__(CONVERSATION, settings, store, timing=timing)

    async def _line_address(self) -> LineAddress | None:
        return await self._listening

    async def decide(self, call: Execute) -> Executed | ConversationError:
        """See `Host.decide`, which only a line calls."""
        self.asked["execute"] += 1
        return await super().decide(call)

    async def kill(self) -> None:
        """End as a process does: nobody is answered any more, by either port."""
        await super().kill()
        await self._close_line()

    async def _exit(self) -> None:
        await self._close_line()
        await super()._exit()

    async def _close_line(self) -> None:
        await self._listening
        await self.line_server.aclose()


class LinePeer(FakePeer):
    """A `FakePeer` that tells where its actor listens, or rather where the relay before it does."""

    def __init__(self, cluster: "LineCluster", actor: LineActor, *, is_relayed: bool) -> None:
        """Ask this actor."""
        super().__init__(cluster, actor)
        self._is_relayed = is_relayed
        self._lines, self._actor = cluster, actor

    async def open(self, *, create: bool) -> Any:
        """See `Peer.open`."""
        opened = await self.__getattr__("open")(create=create)
        return replace(opened, line=self._told(opened.line)) if isinstance(opened, Opened) else opened

    async def info(self) -> Any:
        """See `Peer.info`: so far the call is as one of Ray's."""
        answer = await self.__getattr__("info")()
        return answer if isinstance(answer, Exception) else replace(answer, reached_by="ray")

    async def line(self) -> LineAddress | None:
        """See `Peer.line`."""
        self._cluster.calls["line"] += 1
        return self._told(cast("LineAddress | None", await self._actor.line(protocol=PROTOCOL)))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Make a method of a `FakePeer` that may be slow on both ways."""
        call, pause = super().__getattr__(name), self._lines.pause

        async def slowly(*arguments: Any, **named: Any) -> Any:
            await pause()
            answer = await call(*arguments, **named)
            await pause()
            return answer

        return slowly

    def _told(self, address: LineAddress | None) -> LineAddress | None:
        if address is None or not self._is_relayed:
            return address if address is None or address.tcp is None else replace(address, unix=None)
        return self._lines.relay.lead_to(address)


class LinePort(FakePort):
    """Finds and starts the actors of a `LineCluster`."""

    def __init__(self, cluster: "LineCluster") -> None:
        """Look for actors there, whose lines are relayed if they are now."""
        super().__init__(cluster)
        self._is_relayed = cluster.is_relayed

    def _peer(self, actor: FakeActor) -> Peer:
        assert isinstance(actor, LineActor)
        return cast("Peer", LinePeer(cast("LineCluster", self._cluster), actor, is_relayed=self._is_relayed))


class LineCluster(FakeCluster):
    """A `FakeCluster` whose actors listen for lines, behind one relay."""

    actors: list[LineActor]  # type: ignore[assignment]  # of one kind here

    def __init__(
        self,
        store: Store,
        settings: Settings,
        directory: Path,
        *,
        relay: Relay | None = None,
        is_relayed: bool = True,
        node_address: str | None = None,
        timing: Timing = LINE_PATIENT,
    ) -> None:
        """Make sockets in `directory`. Unless lines are relayed, clients are told where the owner listens.

        With a `node_address` owners listen there by TCP, and clients are told of nothing else.
        """
        super().__init__(store, settings)
        self.timing = timing
        self.is_relayed = is_relayed
        self.relay = relay or Relay(directory=directory)
        self.ports: list[DirectPort] = []
        self.delay = 0.0
        """How long a call beside the line takes each way, at most."""
        self._directory, self._node_address = directory, node_address
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._stack.enter_async_context(self.relay)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all handles, actors and connections."""
        self.relay.is_refusing = False
        for passage in self.relay.passages:
            passage.release()
        await super().__aexit__(kind, error, traceback)
        for port in self.ports:
            await port.aclose()
        await self._stack.aclose()

    def get_or_create(self) -> FakeActor:
        """Return the actor that runs, started if there is none."""
        actor = self.find()
        return self.start_another() if actor is None else actor

    def start_another(self) -> LineActor:
        """Start an actor whatever runs: the one before has the name no more, and may live on as its deposed owner."""
        actor = LineActor(
            self.settings,
            self.store,
            self._directory,
            len(self.actors) + 1,
            node_address=self._node_address,
            timing=self.timing,
        )
        self.actor = actor
        self.actors.append(actor)
        return actor

    async def started(self) -> None:
        """Return when an owner listens."""
        actor = self.start_another()
        await actor.line(protocol=PROTOCOL)

    def port(self) -> DirectPort:
        """Return one more process's port to the conversation's owner."""
        self.ports.append(DirectPort(LinePort(self), timing=self.timing))
        return self.ports[-1]

    def owner(self) -> RemoteOwner:
        """Return the conversation's owner, as one more process sees it."""
        return RemoteOwner(self.port(), self.settings, timing=self.timing)

    async def connected(self, way: str = "unix") -> ConversationHandle:
        """One more handle, once its line is up."""
        handle = await self.handle()
        port = self.ports[-1]
        await until(lambda: port.way == way)
        return handle

    async def pause(self) -> None:
        """Take as long as a call takes now."""
        if self.delay:
            await asyncio.sleep(self.random.uniform(0, self.delay))

    @property
    def asked_by_line(self) -> Counter[str]:
        """What all actors were asked by lines, by method."""
        return sum((actor.asked for actor in self.actors), Counter())

    def activation(self) -> Activation:
        """Return the activation of the actor that runs."""
        assert self.actor is not None
        assert self.actor.activation is not None
        return self.actor.activation
