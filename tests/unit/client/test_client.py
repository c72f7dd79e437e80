"""The client: its handles while it, or one of them, is being closed; with owners that are fakes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from conversation_actors import ConversationClient, Message
from conversation_actors.client import Heartbeats
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import InvalidInputError
from conversation_actors.protocol import ActivationInfo, View
from tests.support.fakes import CONVERSATION, FakeCluster, FakePort, FaultyStore, brief, turns, until


class SlowOwner(RemoteOwner):
    """An owner whose answer to an `open` is held until it may come."""

    def __init__(self, cluster: FakeCluster, may_answer: asyncio.Event) -> None:
        """Hold nothing while `may_answer` is set."""
        super().__init__(FakePort(cluster), cluster.settings, timing=cluster.timing)
        self._may_answer = may_answer

    async def open(self, *, create: bool) -> tuple[ActivationInfo, View]:
        """See `RemoteOwner.open`."""
        answer = await super().open(create=create)
        await self._may_answer.wait()
        return answer


class Client(ConversationClient):
    """A client that is entered already, whose owners are fakes."""

    def __init__(self, cluster: FakeCluster) -> None:
        """Connected to `cluster`."""
        super().__init__(brief())
        self._cluster, self._store = cluster, cluster.store
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.opening = 0

    async def join_cluster(self) -> None:
        """See `ConversationClient.join_cluster`."""
        self._connected_store()

    def _owner(self, conversation_id: str) -> SlowOwner:
        assert conversation_id == CONVERSATION
        self._connected_store()
        self.opening += 1
        return SlowOwner(self._cluster, self.may_open)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client on a fake cluster."""
    async with FakeCluster(FaultyStore(), brief()) as cluster:
        made = Client(cluster)
        yield made
        await made.aclose()


async def test_opening_twice_gives_one_handle(client: Client) -> None:
    """Also where both are on their way at once."""
    first, second = await asyncio.gather(client.open(CONVERSATION), client.open(CONVERSATION))
    assert first is second is await client.open(CONVERSATION)


async def test_a_client_that_closes_leaves_no_handle_behind(client: Client) -> None:
    """An open that is answered when its client is closed already is refused, and nothing goes on following."""
    client.may_open.clear()
    opening = asyncio.create_task(client.open(CONVERSATION))
    await until(lambda: client.opening == 1)
    await turns()
    await client.aclose()
    client.may_open.set()
    with pytest.raises(InvalidInputError, match="not connected"):
        await opening
    assert not client._handles


async def test_a_handle_that_closes_while_it_is_opened_again(client: Client) -> None:
    """Who opens it gets a handle that works, not the one that was closed meanwhile."""
    old = await client.open(CONVERSATION)
    await old.append(Message(id="u0", role="user", content="hello"))
    client.may_open.clear()
    opening = asyncio.create_task(client.open(CONVERSATION))
    await until(lambda: client.opening == 2)
    await turns()
    await old.aclose()
    client.may_open.set()
    new = await opening
    assert new is not old
    assert (await new.append(Message(id="u1", role="user", content="hello"))).seq == 2


async def test_a_closed_client_refuses_every_call(client: Client) -> None:
    """No repeat helps; its handles are closed with it."""
    conversation = await client.open(CONVERSATION)
    await client.aclose()
    await client.aclose()
    for call in (client.open(CONVERSATION), client.delete(CONVERSATION), anext(client.list())):
        with pytest.raises(InvalidInputError, match="not connected"):
            await cast("Any", call)
    with pytest.raises(InvalidInputError, match="open it again"):
        await conversation.snapshot()


async def test_closed_heartbeats_refuse_every_call() -> None:
    """The same for the signs of life."""
    heartbeats = Heartbeats(brief())
    await heartbeats.aclose()
    with pytest.raises(InvalidInputError, match="not connected"):
        await heartbeats.find(CONVERSATION)
