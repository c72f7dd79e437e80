"""Leases of a conversation that is gone: they guard nothing in the one that has its id now."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from conversation_actors.errors import LeaseLostError
from conversation_actors.items import Message
from tests.support.fakes import FakeCluster, FaultyStore, brief

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """Make a fake cluster."""
    async with FakeCluster(FaultyStore(), brief()) as fake:
        yield fake


async def lose_everything(cluster: FakeCluster) -> None:
    """Lose the keys and the owner; the next open makes the id anew."""
    assert isinstance(cluster.store, FaultyStore)
    cluster.store.lose_everything()
    await cluster.kill()


@pytest.mark.parametrize("holder", ["one", "two"])
async def test_lease_of_an_earlier_life_guards_nothing(cluster: FakeCluster, holder: str) -> None:
    """Token and name are the same in both lives, the holder too where it acquires anew: the old one cannot write."""
    agent = await cluster.handle()
    old = await agent.acquire_lease("agent", holder="one", duration=MINUTE)
    await lose_everything(cluster)
    heir = await cluster.handle()
    new = await heir.acquire_lease("agent", holder=holder, duration=MINUTE)
    assert (new.token, new.name) == (old.token, old.name)
    with pytest.raises(LeaseLostError, match="earlier life") as lost:
        await agent.append(Message(role="assistant", content="still here"), lease=old)
    assert (lost.value.name, lost.value.token) == ("agent", 1)
    await agent.append(Message(role="assistant", content="here"), lease=new)
    assert len(heir.items) == 1 or (await heir.snapshot()).items


async def test_lease_of_an_earlier_life_is_not_given_back(cluster: FakeCluster) -> None:
    """A late release takes nothing from who holds the lease now, though holder and token are the same."""
    agent = await cluster.handle()
    old = await agent.acquire_lease("agent", holder="one", duration=MINUTE)
    await lose_everything(cluster)
    heir = await cluster.handle()
    new = await heir.acquire_lease("agent", holder="one", duration=MINUTE)
    await agent.release_lease(old)
    assert (await heir.snapshot()).leases == {"agent": new}
    await heir.release_lease(new)
    assert (await heir.snapshot()).leases == {}


async def test_holder_of_a_lost_acquisition_cannot_write(cluster: FakeCluster) -> None:
    """A failover lost it together with the owner, and another holder got the same token in the same life."""
    agent = await cluster.handle()
    await agent.append(Message(role="user", content="hello"))
    assert isinstance(cluster.store, FaultyStore)
    fail_over = cluster.store.remember()
    old = await agent.acquire_lease("agent", holder="one", duration=MINUTE)
    await cluster.kill()
    fail_over()
    heir = await cluster.handle()
    new = await heir.acquire_lease("agent", holder="two", duration=MINUTE)
    assert (new.token, new.life) == (old.token, old.life)
    with pytest.raises(LeaseLostError, match="'two' has it"):
        await agent.set_attributes({"mine": True}, lease=old)
    await agent.set_attributes({"mine": True}, lease=new)


async def test_lease_survives_recovery(cluster: FakeCluster) -> None:
    """The next owner of the same life takes what comes in its name, from journal and from snapshot."""
    agent = await cluster.handle()
    lease = await agent.acquire_lease("agent", holder="one", duration=MINUTE)
    await cluster.kill()
    await agent.append(Message(role="user", content="u0"), lease=lease)
    await agent.passivate()
    renewed = await agent.acquire_lease("agent", holder="one", duration=MINUTE)
    assert (renewed.token, renewed.life) == (lease.token, lease.life)
    await agent.append(Message(role="user", content="u1"), lease=lease)
