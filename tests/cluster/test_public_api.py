"""The public API, each method once: on a real Ray cluster and a real Redis, by both ports, and in memory."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import ray

from conversation_actors import (
    ConflictError,
    ConversationClient,
    ConversationClosedError,
    ConversationError,
    ConversationHandle,
    ConversationNotFoundError,
    FunctionCall,
    FunctionCallOutput,
    LeaseHeldError,
    LeaseLostError,
    Message,
)
from tests.cluster.conftest import Connect, by_both_ports, by_every_way
from tests.support.observation import Watcher, assert_contiguous, make_settings, start_program, texts, user
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, wait_until


@pytest.fixture
async def conversation(client: ConversationClient, conversation_id: str) -> ConversationHandle:
    """A new conversation."""
    return await client.open(conversation_id)


@by_every_way
async def test_append_and_read(conversation: ConversationHandle) -> None:
    """What is appended is in the local copy, in the owner's snapshot, and has a position and an epoch."""
    call = FunctionCall(call_id="c1", name="lookup", arguments="{}")
    output = FunctionCallOutput(call_id="c1", name="lookup", output="found")
    first = await conversation.append(user("Where is my order?"))
    second = await conversation.append(call, output)
    assert (first.seq, first.epoch, second.seq, second.epoch) == (1, 1, 2, 1)
    assert conversation.seq == 2
    assert [item.id for item in conversation.items][1:] == [call.id, output.id]
    for snapshot in (await conversation.snapshot(), await conversation.snapshot(fresh=True)):
        assert (snapshot.seq, snapshot.epoch, snapshot.items) == (2, 1, conversation.items)


@by_every_way
@pytest.mark.parametrize("name", ["\u0645\u06cc\u200c\u062e", "👩\u200d🔧 room\u00a07", "a\u2028b"])
async def test_any_writing_names_a_conversation(client: ConversationClient, conversation_id: str, name: str) -> None:
    """What LiveKit takes for the name of a room opens a conversation, for another process too."""
    conversation = await client.open(conversation_id + name)
    await conversation.append(user("hello"))
    found = [one.conversation_id async for one in client.list()]
    assert conversation_id + name in found


@by_every_way
async def test_record_and_flush(conversation: ConversationHandle) -> None:
    """Recorded items are durable after `flush`, in their order, in line with appends."""
    for number in range(50):
        conversation.record(user(f"r{number}"))
    await conversation.append(user("last"))
    await conversation.flush()
    assert conversation.unacknowledged == 0
    assert texts((await conversation.snapshot()).items) == [*(f"r{number}" for number in range(50)), "last"]


@by_every_way
async def test_participants(conversation: ConversationHandle) -> None:
    """A participant joins with two devices, is updated, leaves, and comes back."""
    await conversation.join("alice", name="Alice", metadata={"tier": 1}, device_id="phone", language="de")
    alice = await conversation.join("alice", device_id="laptop")
    assert (alice.name, set(alice.devices), alice.connected) == ("Alice", {"phone", "laptop"}, True)
    updated = await conversation.update_participant("alice", context={"mood": "good"})
    assert updated.context == {"mood": "good"}
    left = await conversation.leave("alice")
    assert left is not None
    assert not left.connected
    back = await conversation.join("alice")
    assert (back.reconnect_count, back.language, dict(back.metadata)) == (1, "de", {"tier": 1})
    assert conversation.participants["alice"] == back
    assert (await conversation.snapshot()).participants["alice"] == back


@by_every_way
async def test_attributes(conversation: ConversationHandle) -> None:
    """Attributes merge, None removes, and a stale `expected_seq` is refused."""
    first = await conversation.set_attributes({"language": "de", "open": 1})
    await conversation.set_attributes({"open": None}, expected_seq=first.seq)
    assert dict(conversation.attributes) == {"language": "de"}
    with pytest.raises(ConflictError):
        await conversation.set_attributes({"language": "en"}, expected_seq=first.seq)
    assert dict((await conversation.snapshot()).attributes) == {"language": "de"}


@by_every_way
async def test_leases(conversation: ConversationHandle) -> None:
    """One holder at a time; released, it is free for the next, who gets a higher token."""
    lease = await conversation.acquire_lease("agent", holder="worker-1", duration=timedelta(seconds=30))
    with pytest.raises(LeaseHeldError) as refused:
        await conversation.acquire_lease("agent", holder="worker-2", duration=timedelta(seconds=30))
    assert (refused.value.holder, refused.value.expires_at) == ("worker-1", lease.expires_at)
    assert conversation.leases["agent"].holder == "worker-1"
    await conversation.release_lease(lease)
    taken = await conversation.acquire_lease("agent", holder="worker-2", duration=timedelta(seconds=30))
    assert taken.token > lease.token


@by_every_way
async def test_deposed_agent_cannot_write(connect: Connect, conversation_id: str) -> None:
    """Whoever took over, from another client, fences the agent before it: its next write is refused."""
    deposed, heir = [await (await connect()).open(conversation_id) for _ in range(2)]
    old = await deposed.acquire_lease("agent", holder="worker-1", duration=timedelta(seconds=30))
    await deposed.append(user("mine"), lease=old)
    new = await heir.acquire_lease("agent", holder="worker-2", duration=timedelta(seconds=30), replacing="worker-1")
    deposed.record(user("too late"), lease=old)
    with pytest.raises(LeaseLostError) as lost:
        await deposed.flush()
    assert (lost.value.name, lost.value.token) == ("agent", old.token)
    await heir.append(user("and mine"), lease=new)
    assert texts((await heir.snapshot()).items) == ["mine", "and mine"]


@by_every_way
async def test_summary_clear_close_reopen(conversation: ConversationHandle) -> None:
    """A summary is kept, history is cleared, a closed conversation refuses writes until it is reopened."""
    receipt = await conversation.append(user("hello"))
    await conversation.set_summary("They said hello.", through_seq=receipt.seq)
    assert conversation.summary is not None
    assert conversation.summary.text == "They said hello."
    await conversation.remove(conversation.items[-1].id)
    await conversation.clear_history()
    after = await conversation.snapshot()
    assert (after.items, after.summary) == ((), None)
    await conversation.close_conversation("done")
    closed = await conversation.snapshot()
    assert closed.closing is not None
    assert conversation.closing == closed.closing
    with pytest.raises(ConversationClosedError):
        await conversation.append(user("too late"))
    await conversation.reopen_conversation()
    await conversation.append(user("again"))
    assert (await conversation.snapshot()).closing is None
    assert texts(conversation.items) == ["again"]


@by_every_way
async def test_watch(conversation: ConversationHandle) -> None:
    """A watch from the beginning gives every entry once, then those to come."""
    for number in range(3):
        await conversation.append(user(str(number)))
    async with Watcher(conversation) as watcher:
        await watcher.saw(3)
        await conversation.append(user("3"))
        await watcher.saw(4)
    assert_contiguous(watcher.seqs)
    assert watcher.texts == ["0", "1", "2", "3"]


def _assigned(_: object) -> Any:
    return ray.get_runtime_context().get_assigned_resources()


async def test_info_and_plain_ray(conversation: ConversationHandle, conversation_id: str) -> None:
    """The owner is the actor of the promised name, and takes one unit of the custom resource."""
    info = await conversation.info()
    actor = ray.get_actor(f"conversation:default:{conversation_id}", namespace="conversations")
    found = await actor.info.remote(protocol=info.protocol)
    assert (found.pid, found.epoch, found.conversation_id) == (info.pid, 1, conversation_id)
    assert info.node_id in {node["NodeID"] for node in ray.nodes()}
    assert await actor.__ray_call__.remote(_assigned) == {"conversation": 1.0}  # the cluster's sums lag behind


@by_every_way
async def test_open_again(client: ConversationClient, conversation_id: str) -> None:
    """Opening twice gives one handle; opening what does not exist without `create` is refused and makes nothing."""
    with pytest.raises(ConversationNotFoundError):
        await client.open(conversation_id, create=False)
    first = await client.open(conversation_id)
    assert await client.open(conversation_id, create=False) is first
    assert repr(first) == f"<ConversationHandle {conversation_id!r} seq=0>"
    assert first.id == conversation_id


@by_every_way
async def test_list(client: ConversationClient, conversation_id: str) -> None:
    """Conversations are listed, also by participant, with the most recently active first."""
    for name in ("a", "b"):
        conversation = await client.open(f"{conversation_id}-{name}")
        await conversation.join(f"{conversation_id}-alice")

    async def listed(participant: str | None) -> list[str]:
        found = [found.conversation_id async for found in client.list(participant=participant)]
        return [name for name in found if name.startswith(conversation_id)]

    expected = [f"{conversation_id}-b", f"{conversation_id}-a"]

    async def is_listed() -> bool:
        return await listed(f"{conversation_id}-alice") == expected == await listed(None)

    await wait_until(is_listed, "the listings, which are written beside the conversations")
    assert await listed("nobody") == []


async def test_second_process(
    client: ConversationClient, conversation_id: str, cluster: RayCluster, redis: Server
) -> None:
    """Another process opens the same id, sees the history, writes, and sees later changes live."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("before"))
    program = start_program("companion", conversation_id, settings=make_settings(redis.url, cluster.address))
    assert program.stdout is not None
    read: Callable[[], Any] = program.stdout.readline
    try:
        assert json.loads(await asyncio.to_thread(read)) == ["before"]

        async def has_answered() -> bool:
            return texts(conversation.items) == ["before", "hello from the companion"]

        await wait_until(has_answered, "the companion's message in the local copy")
        await conversation.append(Message(role="user", content="after"))
        while texts(conversation.items) != json.loads(await asyncio.to_thread(read)):
            pass
    finally:
        program.kill()
        program.communicate()


@by_every_way
async def test_closed_handle_is_opened_anew(client: ConversationClient, conversation_id: str) -> None:
    """After `aclose` the id has a new handle; the closed one takes nothing more."""
    first = await client.open(conversation_id)
    await first.append(user("one"))
    await first.aclose()
    second = await client.open(conversation_id)
    assert second is not first
    assert (await second.append(user("two"))).seq == 2
    with pytest.raises(ConversationError):
        await first.append(user("three"))


@by_both_ports
async def test_missing_conversation_keeps_no_process(client: ConversationClient, conversation_id: str) -> None:
    """A call for what exists no more ends the actor that was started to find out, while its handle goes on looking."""
    conversation = await client.open(conversation_id)
    await client.delete(conversation_id)
    with pytest.raises(ConversationNotFoundError):
        await conversation.append(user("one"))
    with pytest.raises(ConversationNotFoundError):
        await client.open(conversation_id, create=False)
    name = f"conversation:default:{conversation_id}"

    async def is_gone() -> bool:
        listed = ray.util.list_named_actors(all_namespaces=True)
        return name not in {actor["name"] for actor in listed}

    await wait_until(is_gone, "the actor to exit")
