"""Looking is not using: a read starts no owner and disturbs none, and needs no Ray."""

import asyncio
import json
import os
from contextlib import aclosing
from datetime import timedelta

import pytest
import ray

from conversation_actors import ConversationClient, ConversationNotFoundError
from conversation_actors.runtime import NAMESPACE, actor_name
from conversation_actors.store import RedisStore
from tests.cluster.conftest import Connect, everywhere
from tests.support.observation import gone, make_settings, pid_of, start_program, texts, user
from tests.support.servers import HOST, Server


async def test_a_sleeping_conversation_is_read(
    client: ConversationClient, connect: Connect, store: RedisStore, conversation_id: str
) -> None:
    """No owner is started for it, its epoch stays, and its time to live goes on running out."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("one"))
    pid = await pid_of(conversation)
    await conversation.passivate()
    await conversation.aclose()
    await gone(pid)
    before = await store.read(conversation_id)
    reader = await connect()
    for _ in range(3):
        read = await reader.read(conversation_id)
        assert (texts(read.items), read.epoch, read.seq, read.lag) == (["one"], 1, 1, timedelta(0))
    after = await store.read(conversation_id)
    assert after == before
    assert after.left <= before.left
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor(actor_name(conversation_id), namespace=NAMESPACE)
    with pytest.raises(ConversationNotFoundError):
        await reader.read("nobody has ever opened this")


@everywhere
async def test_a_read_shows_what_was_acknowledged(connect: Connect, conversation_id: str) -> None:
    """While somebody writes, each read has all that was acknowledged before; the owner is not disturbed."""
    writer = await (await connect()).open(conversation_id)
    reader = await connect()
    pid = await pid_of(writer)
    for number in range(50):
        receipt = await writer.append(user(str(number)))
        read = await reader.read(conversation_id)
        assert (read.seq, read.epoch) == (receipt.seq, receipt.epoch)
    assert await reader.read(conversation_id) == await writer.snapshot(fresh=True)
    assert await pid_of(writer) == pid


@everywhere
async def test_a_handle_shows_what_is_stored_before_its_owner_runs(connect: Connect, conversation_id: str) -> None:
    """A handle on a sleeping conversation has it at once; the owner comes by itself, and leads on."""
    writer = await (await connect()).open(conversation_id)
    for text in ("one", "two"):
        await writer.append(user(text))
    pid = await pid_of(writer)
    await writer.passivate()
    await writer.aclose()
    if pid != os.getpid():
        await gone(pid)
    client = await connect()
    handle = await client.open(conversation_id, wait=False)
    assert (texts(handle.items), handle.seq) == (["one", "two"], 2)
    async with asyncio.timeout(60), aclosing(handle.watch()) as watching:
        assert (await handle.append(user("three"))).seq == 3
        assert (await anext(watching)).seq == 3
    assert texts(handle.items) == ["one", "two", "three"]
    assert await client.open(conversation_id) is handle
    assert (await handle.info()).epoch == 2
    assert not handle.failures


async def test_process_without_ray_reads_lists_and_deletes(
    redis: Server, client: ConversationClient, conversation_id: str
) -> None:
    """Another process, which reaches no Ray, reads, lists and deletes; a running owner finds out when it writes."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("one"))
    pid = await pid_of(conversation)
    program = start_program("onlooker", conversation_id, settings=make_settings(redis.url, f"{HOST}:1"))
    try:
        output, _ = await asyncio.to_thread(program.communicate, timeout=60)
    finally:
        program.kill()
        program.communicate()
    assert json.loads(output) == {"epoch": 1, "seq": 1, "is_listed": True, "open": "ClusterUnavailableError"}
    assert program.returncode == 0
    with pytest.raises(ConversationNotFoundError):
        await conversation.append(user("too late"))
    await gone(pid)
