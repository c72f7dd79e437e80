"""An idle owner costs nothing: it exits, and the next call brings it back."""

import asyncio
import time
from datetime import timedelta

import pytest

from conversation_actors import ConversationClient, ConversationNotFoundError
from conversation_actors.store import RedisStore
from tests.cluster.conftest import Connect, everywhere
from tests.support.observation import gone, pid_of, texts, user
from tests.support.processes import is_alive, paused
from tests.support.servers import wait_until

IDLE_SECONDS = 0.8


async def test_idle_owner_exits(connect: Connect, store: RedisStore, conversation_id: str) -> None:
    """When nobody asks or watches, the process goes, its state is in a snapshot, and the next open brings it back."""
    client = await connect(idle_timeout=IDLE_SECONDS)
    conversation = await client.open(conversation_id)
    for number in range(5):
        await conversation.append(user(str(number)))
    pid = await pid_of(conversation)
    await client.aclose()
    await gone(pid)
    head = await store.head(conversation_id)
    assert head is not None
    assert head.seq == 5

    again = await (await connect()).open(conversation_id, create=False)
    info = await again.info()
    assert (info.recovered_from, info.replayed, info.epoch) == (5, 0, 2)
    assert texts(again.items) == ["0", "1", "2", "3", "4"]


async def test_open_handle_keeps_it(connect: Connect, conversation_id: str) -> None:
    """A handle's poll is use: the owner lives on for many times its idle time-out."""
    conversation = await (await connect(idle_timeout=IDLE_SECONDS)).open(conversation_id)
    pid = await pid_of(conversation)
    deadline = time.monotonic() + 5 * IDLE_SECONDS
    while time.monotonic() < deadline:
        assert is_alive(pid)
        await asyncio.sleep(0.05)
    assert await pid_of(conversation) == pid


async def test_explicit_with_two_handles(client: ConversationClient, connect: Connect, conversation_id: str) -> None:
    """Whoever passivates, both handles go on: reading needs no owner, writing wakes one, watching wakes none."""
    first = await client.open(conversation_id)
    second = await (await connect()).open(conversation_id)
    await first.append(user("one"))
    pid = await pid_of(first)
    await first.passivate()
    await gone(pid)
    assert texts(first.items) == ["one"]
    await first.passivate()  # there is nothing to passivate: no error, and no owner is started for it
    receipt = await second.append(user("two"))
    assert (receipt.seq, receipt.epoch) == (2, 2)
    assert texts((await first.snapshot()).items) == ["one", "two"]
    again = await first.append(user("three"))
    assert (again.seq, again.epoch) == (3, 2)


@everywhere
async def test_passivating_under_load_loses_nothing(
    client: ConversationClient, connect: Connect, conversation_id: str
) -> None:
    """Passivating again and again while another handle writes loses nothing."""
    writer = await client.open(conversation_id)
    other = await (await connect()).open(conversation_id)
    written = [f"{number:05}" for number in range(60)]

    async def write() -> None:
        for text in written:
            await writer.append(user(text))

    writing = asyncio.create_task(write())
    for _ in range(3):
        await other.passivate()
        await writer.append(user("x"))
    await writing
    found = texts((await writer.snapshot(fresh=True)).items)
    assert [text for text in found if text != "x"] == written
    assert found.count("x") == 3


@everywhere
async def test_asking_for_what_does_not_exist_makes_nothing(client: ConversationClient, conversation_id: str) -> None:
    """What does not exist is not made by asking for it."""
    for _ in range(2):
        with pytest.raises(ConversationNotFoundError):
            await client.open(conversation_id, create=False)


async def test_a_conversation_that_nobody_uses_is_forgotten(
    connect: Connect, store: RedisStore, conversation_id: str
) -> None:
    """By Redis, after the time it was given, and not before: an open handle keeps it, a closed one does not."""
    client = await connect()
    conversation = await client.open(conversation_id)
    await conversation.append(user("secret"))
    await conversation.set_retention(timedelta(seconds=2))
    pid = await pid_of(conversation)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        assert await store.head(conversation_id) is not None
        await asyncio.sleep(0.05)
    await conversation.aclose()
    closed = time.monotonic()
    await gone(pid)

    async def is_forgotten() -> bool:
        return await store.head(conversation_id) is None

    await wait_until(is_forgotten, "the conversation to be forgotten")
    assert 1.5 < time.monotonic() - closed < 10.0
    with pytest.raises(ConversationNotFoundError):
        await client.open(conversation_id, create=False)
    again = await client.open(conversation_id)
    assert (again.items, again.retention) == ((), None)


async def test_an_owner_that_slept_through_the_end_does_not_undo_it(
    connect: Connect, store: RedisStore, conversation_id: str
) -> None:
    """Unused, and stopped until its conversation had expired, it wakes up and goes, and nothing begins anew.

    What Redis had not been told yet of the last use, a moment, may still be kept.
    """
    client = await connect(timeouts={"poll": 0.2})
    conversation = await client.open(conversation_id)
    await conversation.append(user("secret"))
    await conversation.set_retention(timedelta(seconds=8))
    pid = await pid_of(conversation)
    await conversation.aclose()
    await asyncio.sleep(0.5)  # the last poll is over, and half of the retention, when it would passivate, is not
    with paused(pid):

        async def is_forgotten() -> bool:
            return await store.head(conversation_id) is None

        await wait_until(is_forgotten, "the conversation to be forgotten")
    woken = time.monotonic()
    await gone(pid)
    await wait_until(is_forgotten, "what was restored for a moment to be forgotten")
    assert time.monotonic() - woken < 6.0
