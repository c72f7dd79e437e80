"""The owner's process dies, in every way a process can; nobody loses anything."""

import asyncio
import logging
import os
import signal
import subprocess
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from conversation_actors import ConflictError, ConversationClient, ConversationHandle
from conversation_actors.state import ItemsAppended
from tests.cluster.conftest import Connect, Reaches, by_both_ports, by_every_way
from tests.support.observation import (
    Watcher,
    assert_contiguous,
    assert_exactly_once,
    assert_ordered,
    gone,
    kill_owner,
    lines_of,
    make_settings,
    pid_of,
    start_program,
    texts,
    user,
)
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server, wait_until

logger = logging.getLogger(__name__)

PROCESS_PATIENCE = 60.0
MESSAGES = 500


@by_every_way
async def test_killed_in_mid_stream(client: ConversationClient, conversation_id: str, reaches: Reaches) -> None:
    """The append that follows a SIGKILL is acknowledged, under the next epoch; all that came before is there."""
    conversation = await client.open(conversation_id)
    for number in range(20):
        await conversation.append(user(f"before-{number}"))
    await kill_owner(await conversation.info())
    receipt = await conversation.append(user("after"))
    assert (receipt.seq, receipt.epoch) == (21, 2)
    assert texts((await conversation.snapshot(fresh=True)).items) == [*(f"before-{n}" for n in range(20)), "after"]
    info = await conversation.info()
    assert (info.epoch, info.replayed) == (2, 20)
    await reaches(conversation)


@by_every_way
async def test_what_was_counted_outlives_the_owner(client: ConversationClient, conversation_id: str) -> None:
    """How many items came, and how long somebody was there: killed, and passivated."""
    conversation = await client.open(conversation_id)
    await conversation.join("alice", device_id="web")
    await conversation.append(user("a"), user("b"))
    await conversation.leave("alice", device_id="web")
    first = await conversation.info()
    assert (first.total_items, first.has_counted_all) == (2, True)
    assert first.talked_for > timedelta(0)
    await kill_owner(first)
    await conversation.append(user("c"))
    second = await conversation.info()
    assert (second.epoch, second.total_items, second.talked_for) == (2, 3, first.talked_for)
    await conversation.clear_history()
    await conversation.passivate()
    third = await conversation.info()
    assert (third.epoch, third.total_items, third.talked_for) == (3, 3, first.talked_for)


async def write_until(stop: asyncio.Event, conversation: ConversationHandle, name: str) -> list[str]:
    """Append one after the other; return what was acknowledged."""
    acknowledged: list[str] = []
    for number in count():
        if stop.is_set():
            return acknowledged
        text = f"{name}-{number:05}"
        await conversation.append(user(text))
        acknowledged.append(text)
    raise AssertionError


@by_every_way
async def test_ten_kills_under_load(
    client: ConversationClient, connect: Connect, conversation_id: str, reaches: Reaches
) -> None:
    """Ten SIGKILLs in a row while two handles write: all acknowledged is there once, in order, without a gap."""
    first = await client.open(conversation_id)
    second = await (await connect()).open(conversation_id)
    stop = asyncio.Event()
    async with Watcher(first) as watcher:
        writers = [
            asyncio.create_task(write_until(stop, handle, name)) for handle, name in ((first, "a"), (second, "b"))
        ]
        for kill in range(1, 11):
            info = await first.info()
            assert info.epoch == kill
            seen = info.seq + 10
            await watcher.saw(seen)
            await kill_owner(info)
            killed = time.monotonic()
            await first.info()
            logger.warning("answers again after %.2f s", time.monotonic() - killed)
        stop.set()
        acknowledged = [text for writer in writers for text in await writer]
        snapshot = await first.snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    assert snapshot.epoch == 11
    await reaches(first)
    await reaches(second)
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, acknowledged)
    assert texts(snapshot.items) == watcher.texts
    for name in ("a", "b"):
        assert_ordered(watcher.texts, name)


@by_every_way
async def test_killed_while_much_is_recorded(client: ConversationClient, conversation_id: str) -> None:
    """Five SIGKILLs while hundreds of recorded items are on their way as one: each is there once, in order."""
    conversation = await client.open(conversation_id)
    recorded = [f"a-{number:05}" for number in range(5000)]
    async with Watcher(conversation) as watcher:
        for kill in range(1, 6):
            info = await conversation.info()
            seen = len(watcher.seqs)
            for text in recorded[(kill - 1) * 1000 : kill * 1000]:
                conversation.record(user(text))
            await watcher.saw(seen + 1)
            await kill_owner(info)
            await conversation.flush()
        snapshot = await conversation.snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    assert snapshot.epoch == 6
    assert_contiguous(watcher.seqs)
    assert watcher.texts == recorded
    assert max(len(entry.event.items) for entry in watcher.entries if isinstance(entry.event, ItemsAppended)) > 100
    assert texts(snapshot.items) == recorded[-len(snapshot.items) :]


async def test_two_processes_one_killed(
    client: ConversationClient, conversation_id: str, cluster: RayCluster, redis: Server, tmp_path: Path
) -> None:
    """Two processes write, one is killed in the middle: 0 lost, 0 doubled, order kept, no gap in seq."""
    conversation = await client.open(conversation_id)
    settings = make_settings(redis.url, cluster.address)
    files = {name: tmp_path / name for name in ("survivor", "victim")}
    async with Watcher(conversation) as watcher:
        programs = {
            name: start_program("writer", conversation_id, name, str(count), "25", str(files[name]), settings=settings)
            for name, count in {"survivor": MESSAGES, "victim": MESSAGES * 100}.items()
        }
        try:

            async def is_midway() -> bool:
                return len(lines_of(files["victim"])) >= MESSAGES // 4

            await wait_until(is_midway, "the victim to be midway", patience=PROCESS_PATIENCE)
            programs["victim"].kill()
            assert await finished(programs["survivor"]) == 0
        finally:
            for program in programs.values():
                program.kill()
                program.communicate()
        snapshot = await conversation.snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    acknowledged = {name: lines_of(path) for name, path in files.items()}
    assert len(acknowledged["survivor"]) == MESSAGES
    assert MESSAGES // 4 <= len(acknowledged["victim"]) < MESSAGES * 100
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, [text for name in files for text in acknowledged[name]])
    assert texts(snapshot.items) == watcher.texts
    for name in files:
        assert_ordered(watcher.texts, name)


async def finished(program: "subprocess.Popen[str]") -> int:
    """Wait for a program's end."""
    return await asyncio.to_thread(program.wait, PROCESS_PATIENCE)


@by_every_way
async def test_repeat_after_a_kill(client: ConversationClient, conversation_id: str) -> None:
    """A request_id that is repeated on the next activation returns the first receipt and appends nothing."""
    conversation = await client.open(conversation_id)
    first = await conversation.append(user("once"), request_id="r-1")
    await kill_owner(await conversation.info())
    again = await conversation.append(user("once"), request_id="r-1")
    assert again == first
    assert texts((await conversation.snapshot(fresh=True)).items) == ["once"]


@by_every_way
async def test_repeat_after_a_snapshot(client: ConversationClient, conversation_id: str) -> None:
    """The memory of requests survives passivation too: it is part of the snapshot."""
    conversation = await client.open(conversation_id)
    first = await conversation.append(user("once"), request_id="r-1")
    await conversation.passivate()
    assert await conversation.append(user("once"), request_id="r-1") == first


@by_every_way
@pytest.mark.parametrize("way", ["journal", "snapshot"])
async def test_repeat_with_other_content_after_a_kill(
    connect: Connect, conversation_id: str, way: Literal["journal", "snapshot"]
) -> None:
    """Another process repeats after a SIGKILL: a conflict with other content, the first receipt with the same."""
    first, second = [await (await connect()).open(conversation_id) for _ in range(2)]
    receipt = await first.append(user("once"), request_id="r-1")
    if way == "snapshot":
        await first.passivate()
        await first.append(user("more"))
    await kill_owner(await first.info())
    with pytest.raises(ConflictError, match="'r-1' was used at 1 for other content"):
        await second.append(user("something else"), request_id="r-1")
    assert await second.append(user("once"), request_id="r-1") == receipt
    assert (await second.info()).epoch == (3 if way == "snapshot" else 2)
    assert texts((await second.snapshot(fresh=True)).items) == ["once", "more"][: 1 + (way == "snapshot")]


@by_both_ports
async def test_owner_saves_a_snapshot_at_sigterm(client: ConversationClient, conversation_id: str) -> None:
    """At SIGTERM the owner saves a snapshot and goes, though a poll is parked: nothing is replayed afterwards."""
    conversation = await client.open(conversation_id)
    for number in range(30):
        await conversation.append(user(str(number)))
    pid = await pid_of(conversation)
    os.kill(pid, signal.SIGTERM)
    assert await gone(pid) < 5
    receipt = await conversation.append(user("after"))
    info = await conversation.info()
    assert (info.replayed, info.recovered_from, info.epoch) == (0, 30, 2)
    assert receipt.seq == 31


@by_every_way
async def test_storm_of_cancelled_appends_loses_and_doubles_nothing(
    client: ConversationClient, connect: Connect, conversation_id: str
) -> None:
    """Storms of cancelled appends through two handles: what was acknowledged is there, nothing twice, both work."""
    handles = [await client.open(conversation_id), await (await connect()).open(conversation_id)]
    acknowledged: list[str] = []

    async def write(handle: ConversationHandle, text: str) -> None:
        await handle.append(user(text))
        acknowledged.append(text)

    async with Watcher(handles[0]) as watcher:
        for storm in range(15):
            tasks = [
                asyncio.create_task(write(handle, f"{name}-{storm:02}{number:03}"))
                for number in range(20)
                for handle, name in zip(handles, ("a", "b"), strict=True)
            ]
            await asyncio.sleep(0.001 * (storm % 5))  # a moment: some are queued, some sent, some answered
            for task in tasks[storm % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for handle, name in zip(handles, ("a", "b"), strict=True):
            await write(handle, f"{name}-99999")
        snapshot = await handles[0].snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, acknowledged)
    assert texts(snapshot.items) == watcher.texts
    for name in ("a", "b"):
        assert_ordered(watcher.texts, name)


async def test_conversations_opened_at_once_get_owners_of_their_own(
    client: ConversationClient, conversation_id: str
) -> None:
    """Eight conversations opened at one time each get an owner of their own."""
    started = time.monotonic()
    handles = await asyncio.gather(*(client.open(f"{conversation_id}-{number}") for number in range(8)))
    await asyncio.gather(*(handle.append(user(handle.id)) for handle in handles))
    assert time.monotonic() - started < 60
    assert len({(await handle.info()).pid for handle in handles}) == 8
    for handle in handles:
        assert texts(handle.items) == [handle.id]
        await handle.passivate()


@by_every_way
async def test_opened_by_everybody_at_once(connect: Connect, conversation_id: str) -> None:
    """Clients that open one new id at the same time meet at one owner, of epoch 1."""
    clients = [await connect() for _ in range(4)]
    handles = await asyncio.gather(*(client.open(conversation_id) for client in clients))
    infos = [await handle.info() for handle in handles]
    assert {(info.pid, info.epoch) for info in infos} == {(infos[0].pid, 1)}
