"""A client whose cluster is joined when, and if, a test says so."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from conversation_actors import ConversationClient
from conversation_actors.client.reading import Reader
from conversation_actors.port import OwnerPort
from conversation_actors.settings import Settings
from conversation_actors.timing import Timing
from tests.support.fakes import CONVERSATION, FakeCluster, FakePort, brief
from tests.support.quick import QUICK


class LateClient(ConversationClient):
    """Entered already, on the store of a `FakeCluster`, whose owners it finds once it has joined."""

    def __init__(
        self,
        cluster: FakeCluster,
        settings: Settings | None = None,
        *,
        timing: Timing = QUICK,
        port: Callable[[FakeCluster], OwnerPort] = FakePort,
    ) -> None:
        """Nothing is joined yet. `port` makes the one to owners."""
        settings = settings or brief()
        super().__init__(settings, timing=replace(timing, joined=0.01))
        self._cluster, self._store, self._make_port = cluster, cluster.store, port
        self._reader = Reader(cluster.store, None, settings, timing=timing)
        self.may_join = asyncio.Event()
        """Set when joining may end."""
        self.reason: Exception | None = None
        """Why it fails then, if it does."""
        self.asked = 0
        """How often it was begun."""

    async def _join(self) -> None:
        self.asked += 1
        await self.may_join.wait()
        if self.reason is not None:
            raise self.reason

    def _port(self, conversation_id: str) -> OwnerPort:
        assert conversation_id == CONVERSATION
        return self._make_port(self._cluster)
