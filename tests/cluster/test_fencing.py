"""Two owners of one conversation: only the newest can write, and nobody's caller notices."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import ray

from conversation_actors import ConversationClient
from conversation_actors.errors import ActivationLostError, FencedError, LeaseLostError
from conversation_actors.protocol import PROTOCOL, ActivationInfo, Done, Execute, Executed, Request
from conversation_actors.runtime.actor import ConversationActor
from conversation_actors.state import AppendItems
from conversation_actors.store import RedisStore, Store
from tests.cluster.conftest import Connect, Reaches, by_both_ports, by_every_way
from tests.support.observation import (
    Watcher,
    assert_contiguous,
    assert_exactly_once,
    gone,
    make_settings,
    pid_of,
    texts,
    user,
)
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server

TTL = timedelta(hours=1)


@by_both_ports
async def test_epoch_bumped_behind_the_owner(
    client: ConversationClient, store: RedisStore, conversation_id: str, reaches: Reaches
) -> None:
    """The old owner's write is refused and it exits; the append succeeds under a newer epoch; nothing is lost."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("before"))
    old = await conversation.info()
    thief = await store.activate(conversation_id, owner="thief", create=False, ttl=TTL)
    assert thief.claim.epoch == old.epoch + 1
    receipt = await conversation.append(user("after"))
    assert (receipt.seq, receipt.epoch) == (2, old.epoch + 2)
    assert texts((await conversation.snapshot(fresh=True)).items) == ["before", "after"]
    await gone(old.pid)
    await reaches(conversation)


@by_both_ports
async def test_fresh_read_finds_out(client: ConversationClient, store: RedisStore, conversation_id: str) -> None:
    """A fenced owner that is only read answers from memory, until a fresh read makes it look."""
    conversation = await client.open(conversation_id)
    old = await pid_of(conversation)
    await store.activate(conversation_id, owner="thief", create=False, ttl=TTL)
    assert (await conversation.snapshot()).epoch == 1
    assert (await conversation.snapshot(fresh=True)).epoch == 3
    await gone(old)


@pytest.fixture
async def copy(
    cluster: RayCluster, redis: Server, client: ConversationClient, conversation_id: str
) -> AsyncIterator[Any]:
    """Make a second live actor of the conversation, not opened yet: what a hung raylet leaves behind."""
    await client.open(conversation_id)
    actor = (
        ray.remote(ConversationActor)
        .options(name=f"copy-{secrets.token_hex(4)}", namespace="tests", num_cpus=0, max_concurrency=100)
        .remote(conversation_id, make_settings(redis.url, cluster.address))
    )
    yield actor
    ray.kill(actor)


def request(text: str) -> Request:
    """Make the command that a handle's append would send."""
    return Request(secrets.token_hex(4), AppendItems((user(text).to_stored(),)))


async def execute(actor: Any, *names: str) -> Executed | Exception:
    """Append by asking one actor, as a handle that still holds it would."""
    answer = await actor.execute.remote(Execute([request(name) for name in names], "w", 0).pack())
    return answer if isinstance(answer, Exception) else Executed.unpack(answer)


@by_both_ports
async def test_two_live_owners(client: ConversationClient, connect: Connect, copy: Any, conversation_id: str) -> None:
    """Two owners write at once: what either acknowledged is there once, in one order; callers are carried over."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("first"))
    zombie = await conversation.info()
    named = ray.get_actor(f"conversation:default:{conversation_id}", namespace="conversations")
    newer = await copy.info.remote(protocol=PROTOCOL)
    assert isinstance(newer, ActivationInfo)
    assert (newer.epoch, newer.seq) == (zombie.epoch + 1, 1)

    answers = await asyncio.gather(execute(named, "zombie's"), execute(copy, "newer's"))
    assert isinstance(answers[0], FencedError)
    assert isinstance(answers[1], Executed)
    assert answers[1].replies == (Done(2, newer.epoch),)
    await gone(zombie.pid)

    receipt = await conversation.append(user("carried over"))
    assert (receipt.seq, receipt.epoch) == (3, newer.epoch + 1)
    late = await execute(copy, "late")
    assert isinstance(late, ActivationLostError)
    snapshot = await (await (await connect()).open(conversation_id)).snapshot(fresh=True)
    assert texts(snapshot.items) == ["first", "newer's", "carried over"]


@by_every_way
async def test_owners_taking_turns(
    client: ConversationClient, any_store: Store, connect: Connect, conversation_id: str
) -> None:
    """While somebody takes the epoch again and again, two handles write on: nothing is lost, doubled or moved."""
    handles = [await client.open(conversation_id), await (await connect()).open(conversation_id)]
    acknowledged: list[str] = []

    async def write(index: int) -> None:
        for number in range(60):
            await handles[index].append(user(text := f"{index}-{number:05}"))
            acknowledged.append(text)

    async def steal() -> None:
        for number in range(3):
            await watcher.saw(1 + 20 * number)
            await any_store.activate(conversation_id, owner=f"thief-{number}", create=False, ttl=TTL)

    async with Watcher(handles[0]) as watcher:
        await asyncio.gather(write(0), write(1), steal())
        snapshot = await handles[0].snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    assert len(acknowledged) == 120
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, acknowledged)
    assert texts(snapshot.items) == watcher.texts


async def test_lease_of_a_conversation_that_is_gone(connect: Connect, own_redis: Server, conversation_id: str) -> None:
    """Redis comes back empty, the id is opened again: who held the lease before cannot write, token for token."""
    agent = await (await connect(own_redis.url)).open(conversation_id)
    minute = timedelta(minutes=1)
    old = await agent.acquire_lease("agent", holder="worker-1", duration=minute)
    await agent.passivate()
    with own_redis.client() as redis:
        redis.flushall()
    heir = await (await connect(own_redis.url)).open(conversation_id)
    new = await heir.acquire_lease("agent", holder="worker-2", duration=minute)
    assert new.token == old.token
    with pytest.raises(LeaseLostError, match="earlier life"):
        await agent.append(user("too late"), lease=old)
    await agent.release_lease(old)
    await heir.append(user("mine"), lease=new)
    snapshot = await heir.snapshot(fresh=True)
    assert (texts(snapshot.items), list(snapshot.leases.values())) == (["mine"], [new])
