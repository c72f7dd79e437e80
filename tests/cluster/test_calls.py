"""A call whose job lives while Ray, its owner or Redis's keys are gone: on a real Ray and a real server."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import AGENT, LEASE, CallConversation, Post
from conversation_actors import ConversationClient, ConversationHandle, Message
from conversation_actors.store import RedisStore
from tests.cluster.conftest import Connect
from tests.support.observation import make_settings, pid_of, user
from tests.support.processes import paused, sigkill
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, wait_until

RETENTION = timedelta(seconds=3)
Call = Callable[[], CallConversation]


@pytest.fixture
async def call(cluster: RayCluster, redis: Server, conversation_id: str) -> AsyncIterator[CallConversation]:
    """The conversation as its agent's job has it, kept for three seconds after its last use."""
    made = CallConversation(
        conversation_id,
        holder="job-1",
        post=Post(room="room", agent_name="support", agent_identity="agent"),
        assignment=Assignment(conversation_id=conversation_id),
        store=make_settings(redis.url, cluster.address),
        call=CallSettings(open_timeout=timedelta(seconds=60)),
        takeover=TakeoverSettings(heartbeat=timedelta(seconds=0.25)),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.aclose)
        assert await made.open()
        made.later(lambda handle, lease: handle.set_retention(RETENTION, lease=lease))
        made.record(user("one"))
        await made.flush()
        yield made


async def owner_of(connect: Connect, conversation_id: str) -> int:
    """The process that owns the conversation; whoever asked has let go of it."""
    client: ConversationClient = await connect()
    handle: ConversationHandle = await client.open(conversation_id)
    pid = await pid_of(handle)
    await client.aclose()
    return pid


async def test_while_the_owner_hangs_the_conversation_is_kept(
    call: CallConversation, connect: Connect, store: RedisStore
) -> None:
    """For as long as the job lives, several times its retention; then the call goes on where it was."""
    pid = await owner_of(connect, call.id)
    with paused(pid):
        until = time.monotonic() + 3 * RETENTION.total_seconds()

        async def is_over_or_gone() -> bool:
            return time.monotonic() > until or await store.head(call.id) is None

        await wait_until(is_over_or_gone, "the time to be over")
        assert await store.head(call.id) is not None
    call.record(user("two"))
    await call.flush()
    assert [item.to_dict()["content"] for item in call.items] == ["one", "two"]
    await call.release()


async def test_after_the_call_it_goes_after_its_own_retention(call: CallConversation, store: RedisStore) -> None:
    """Nobody keeps it any more."""
    await call.release()
    await call.aclose()

    async def is_gone() -> bool:
        return await store.head(call.id) is None

    started = time.monotonic()
    await wait_until(is_gone, "the conversation to be forgotten")
    assert time.monotonic() - started < 3 * RETENTION.total_seconds()


async def test_a_conversation_whose_keys_and_owner_are_gone_is_told_again(
    call: CallConversation, connect: Connect, store: RedisStore
) -> None:
    """By the job that is its agent, with what its session has; whoever comes then finds all of it."""
    said = [Message(id=f"u{number}", role="user", content=f"word {number}") for number in range(3)]
    asked: list[bool] = []

    def again(is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        asked.append(is_afresh)
        for item in said:
            call.record(item)

    call.on_items_missed(again)
    call.note("livekit.transcript", {"text": "and then"})
    await call.flush()
    sigkill(await owner_of(connect, call.id))
    await store.delete(call.id, ttl=timedelta(seconds=60))

    async def is_told() -> bool:
        return [item.id for item in call.items] == ["u0", "u1", "u2"]

    await wait_until(is_told, "the conversation to be told again")
    await call.flush()
    client: ConversationClient = await connect()
    found = await (await client.open(call.id)).snapshot(fresh=True)
    assert [item.id for item in found.items] == ["u0", "u1", "u2"]
    assert found.leases[LEASE].holder == found.attributes[AGENT]["holder"] == "job-1"
    assert found.attributes["livekit.transcript"] == {"text": "and then"}
    assert asked[0] is True
    assert not call.deposed.is_set()
    await call.release()
