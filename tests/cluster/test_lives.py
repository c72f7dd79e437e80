"""An owner that was frozen while its conversation ended and began again: what it remembers stays forgotten."""

import os
import signal
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors import ConversationClient, ConversationNotFoundError, Lease, LeaseLostError
from conversation_actors.store import Outcome, RedisStore
from conversation_actors.store.keys import Keys
from tests.cluster.conftest import Connect, everywhere
from tests.support.observation import gone, texts, user
from tests.support.processes import paused
from tests.support.servers import Server, wait_until

TTL = timedelta(hours=1)


def end_life(server: Server, conversation_id: str, how: str) -> None:
    """Have the server forget a conversation."""
    with server.client() as client:
        keys = Keys().conversation(conversation_id).as_tuple()
        if how == "expired":
            seconds, microseconds = client.time()
            at = seconds * 1000 + microseconds // 1000 + 1
            with client.pipeline(transaction=True) as together:  # as all keys of one conversation expire
                for key in keys:
                    together.pexpireat(key, at)
                together.execute()
        else:
            client.delete(*keys)


@pytest.mark.parametrize("how", ["expired", "deleted"])
async def test_a_frozen_owner_brings_nothing_back(
    client: ConversationClient, store: RedisStore, redis: Server, conversation_id: str, how: str
) -> None:
    """Its life ended in Redis while it was stopped, and another one has acknowledged items since: those stay."""
    conversation = await client.open(conversation_id)
    for number in range(3):  # so that its epoch is the higher one
        await conversation.append(user(f"old {number}"))
        if number < 2:
            await conversation.passivate()
    old = await conversation.info()
    assert old.epoch == 3
    with paused(old.pid):
        end_life(redis, conversation_id, how)
        await wait_until(lambda: _is_gone(store, conversation_id), "the conversation to be gone")
        claim = (await store.activate(conversation_id, owner="c1", create=True, ttl=TTL)).claim
        assert claim.epoch == 1
        written = await store.append(claim, expected_seq=0, entries=[_entry(1), _entry(2)], ttl=TTL)
        assert written is Outcome.OK
    receipt = await conversation.append(user("after"))
    assert (receipt.seq, receipt.epoch) == (3, 2)
    snapshot = await conversation.snapshot(fresh=True)
    assert texts(snapshot.items) == ["new 1", "new 2", "after"]
    await gone(old.pid)


async def _is_gone(store: RedisStore, conversation_id: str) -> bool:
    return await store.head(conversation_id) is None


def _entry(seq: int) -> bytes:
    """Encode what the new life's owner would write."""
    from conversation_actors.codec import encode_entry
    from conversation_actors.state import Entry, ItemsAppended

    return encode_entry(Entry(seq, 1, 1.0, ItemsAppended((user(f"new {seq}").to_stored(),))))


@everywhere
async def test_a_lease_of_an_earlier_life_writes_nothing(
    client: ConversationClient, connect: Connect, conversation_id: str
) -> None:
    """The token is 1 in both lives, and the holder may be the same: the life tells."""
    conversation = await client.open(conversation_id)

    async def leased() -> Lease:
        return await conversation.acquire_lease("agent", holder="job-1", duration=timedelta(minutes=1))

    old = await leased()
    await client.delete(conversation_id)
    with pytest.raises(ConversationNotFoundError):
        await conversation.append(user("nowhere"), lease=old)
    conversation = await (await connect()).open(conversation_id)
    new = await leased()
    with pytest.raises(LeaseLostError):
        await conversation.append(user("deposed"), lease=old)
    await conversation.append(user("agent"), lease=new)
    assert texts(conversation.items) == ["agent"]


async def test_crashes_do_not_keep_a_conversation(
    client: ConversationClient, store: RedisStore, conversation_id: str
) -> None:
    """An owner that Ray starts again is used by nobody: the retention goes on from the last use."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("hello"))
    await conversation.set_retention(timedelta(seconds=12))
    pid = (await conversation.info()).pid
    await conversation.aclose()
    left = await _left(store, conversation_id)
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: _was_activated(store, conversation_id), "Ray to restart the owner")
    assert await _left(store, conversation_id) <= left


async def _left(store: RedisStore, conversation_id: str) -> float:
    key = Keys().conversation(conversation_id).meta
    client: Any = await store._servers.owner_of(key)
    return float(await client.pttl(key)) / 1000


async def _was_activated(store: RedisStore, conversation_id: str) -> bool:
    head = await store.head(conversation_id)
    return head is not None and head.epoch > 1
