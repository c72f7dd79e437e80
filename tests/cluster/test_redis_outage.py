"""Redis hangs, restarts, forgets or lies; the conversation degrades and never corrupts."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from conversation_actors import (
    ConversationHandle,
    CorruptStateError,
    RetryableError,
    Settings,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.store.keys import Keys
from tests.cluster.conftest import Connect
from tests.support.observation import (
    Watcher,
    assert_contiguous,
    assert_exactly_once,
    pid_of,
    texts,
    user,
)
from tests.support.processes import is_alive, sigkill
from tests.support.servers import Server, wait_until

IMPATIENT = {"command": 3.0, "write": 0.5, "redis": 0.3, "attempt": 2.0}
"""Short time-outs, so that an outage shows quickly."""


@pytest.fixture
async def conversation(connect: Connect, own_redis: Server, conversation_id: str) -> ConversationHandle:
    """A conversation with two messages, on a Redis of its own."""
    client = await connect(own_redis.url, timeouts=IMPATIENT)
    handle: ConversationHandle = await client.open(conversation_id)
    await handle.append(user("one"))
    await handle.append(user("two"))
    return handle


@pytest.fixture
async def patient(connect: Connect, own_redis: Server, conversation_id: str) -> ConversationHandle:
    """The same, with the usual time-outs: a killed owner needs 2 to 3 s to be back."""
    client = await connect(own_redis.url)
    handle: ConversationHandle = await client.open(conversation_id)
    await handle.append(user("one"))
    await handle.append(user("two"))
    return handle


async def flushed(conversation: ConversationHandle) -> None:
    """Wait until the outbox is empty, however often `flush` gives up."""

    async def is_flushed() -> bool:
        with suppress(RetryableError):
            await conversation.flush()
            return True
        return False

    await wait_until(is_flushed, "the outbox to drain")


async def test_reads_go_on_and_appends_fail_in_time_while_redis_hangs(
    conversation: ConversationHandle, own_redis: Server
) -> None:
    """Reads go on from memory; an append fails, typed and in time; what was recorded meanwhile drains afterwards."""
    own_redis.pause()
    assert texts(conversation.items) == ["one", "two"]
    assert texts((await conversation.snapshot()).items) == ["one", "two"]
    started = time.monotonic()
    with pytest.raises(RetryableError):
        await conversation.append(user("perhaps"), request_id="perhaps")
    assert time.monotonic() - started < Settings().timeouts.command.total_seconds()  # which it would take by default
    for number in range(20):
        conversation.record(user(f"recorded-{number}"))
    assert conversation.unacknowledged >= 20
    assert texts(conversation.items) == ["one", "two"]
    with pytest.raises(StoreUnavailableError):
        await conversation.snapshot(fresh=True)
    own_redis.resume()
    await flushed(conversation)
    receipt = await conversation.append(user("perhaps"), request_id="perhaps")
    found = texts((await conversation.snapshot(fresh=True)).items)
    assert_exactly_once(found, ["one", "two", "perhaps", *(f"recorded-{number}" for number in range(20))])
    assert receipt.epoch == 1


async def test_restarted_with_its_data(conversation: ConversationHandle, own_redis: Server) -> None:
    """A Redis that is killed and comes back with its AOF: the write in between waits for it."""
    async with Watcher(conversation) as watcher:
        own_redis.kill()
        for number in range(5):
            conversation.record(user(f"recorded-{number}"))
        with pytest.raises(RetryableError):
            await conversation.append(user("perhaps"), request_id="perhaps")
        own_redis.start()
        await flushed(conversation)
        await conversation.append(user("perhaps"), request_id="perhaps")
        snapshot = await conversation.snapshot(fresh=True)
        await watcher.saw(snapshot.seq)
    assert (snapshot.epoch, snapshot.seq) == (1, 8)
    assert_contiguous(watcher.seqs)
    assert_exactly_once(watcher.texts, ["one", "two", "perhaps", *(f"recorded-{number}" for number in range(5))])


TROUBLES = {
    "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "NOREPLICAS": (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
}


@pytest.mark.parametrize("reason", TROUBLES)
async def test_each_caller_is_told_why_redis_takes_no_writes(
    conversation: ConversationHandle, own_redis: Server, reason: str
) -> None:
    """A Redis that takes no writes for now: each caller is told its reason; then all that was recorded is there."""
    ill, well = TROUBLES[reason]
    with own_redis.client() as redis:
        redis.execute_command(*ill)
        for number in range(5):
            conversation.record(user(f"recorded-{number}"))
        with pytest.raises(RetryableError, match=reason):
            await conversation.append(user("perhaps"), request_id="perhaps")
        with pytest.raises(RetryableError, match=reason):
            await conversation.flush()
        with pytest.raises(StoreUnavailableError, match=reason):
            await conversation.snapshot(fresh=True)
        redis.execute_command(*well)
    await flushed(conversation)
    receipt = await conversation.append(user("perhaps"), request_id="perhaps")
    found = texts((await conversation.snapshot(fresh=True)).items)
    assert_exactly_once(found, ["one", "two", "perhaps", *(f"recorded-{number}" for number in range(5))])
    assert receipt.epoch == 1


async def test_takes_a_right_away(patient: ConversationHandle, own_redis: Server) -> None:
    """A user that may write no more: caller and flush are told so by name; given back, nothing acknowledged is gone."""
    with own_redis.client() as redis:
        redis.execute_command("ACL", "SETUSER", "default", "-@write")
        with pytest.raises(StoreMisconfiguredError, match="does not allow"):
            await patient.append(user("three"), request_id="three")
        patient.record(user("refused"))
        with pytest.raises(StoreMisconfiguredError, match="does not allow"):
            await patient.flush()
        redis.execute_command("ACL", "SETUSER", "default", "+@all")
    assert (await patient.append(user("three"), request_id="three")).seq == 3
    patient.record(user("four"))
    await patient.flush()
    assert texts((await patient.snapshot(fresh=True)).items) == ["one", "two", "three", "four"]


async def test_owner_restores_a_flushed_redis_from_memory(patient: ConversationHandle, own_redis: Server) -> None:
    """FLUSHALL under a live conversation: its owner restores it from memory at its next write."""
    with own_redis.client() as redis:
        redis.flushall()
    receipt = await patient.append(user("three"))
    assert receipt.seq == 3
    sigkill(await pid_of(patient))
    assert texts((await patient.snapshot(fresh=True)).items) == ["one", "two", "three"]
    assert (await patient.append(user("four"))).seq == 4


async def test_killed_while_redis_is_away(conversation: ConversationHandle, own_redis: Server) -> None:
    """The owner dies while Redis is hung: its restarts find no state, and it recovers when Redis is back."""
    pid = await pid_of(conversation)
    own_redis.pause()
    sigkill(pid)
    for _ in range(2):
        with pytest.raises(RetryableError):
            await conversation.snapshot()
    own_redis.resume()

    async def answers() -> bool:
        with suppress(RetryableError):
            return texts((await conversation.snapshot(fresh=True)).items) == ["one", "two"]
        return False

    await wait_until(answers, "the conversation to be back")
    assert (await conversation.append(user("three"))).seq == 3


async def test_opening_while_redis_is_away_fails_in_time(
    connect: Connect, own_redis: Server, conversation_id: str
) -> None:
    """Opening while Redis is away fails typed within `timeouts.open`, and works once it is back."""
    client = await connect(own_redis.url, timeouts={**IMPATIENT, "open": 10.0})
    own_redis.kill()
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await client.open(conversation_id)
    assert time.monotonic() - started < Settings().timeouts.open.total_seconds()  # which it would take by default
    own_redis.start()
    conversation = await client.open(conversation_id)
    assert (await conversation.append(user("one"))).seq == 1


async def test_opening_waits_for_redis(connect: Connect, own_redis: Server, conversation_id: str) -> None:
    """A Redis that is away for a moment delays an open, and fails none."""
    client = await connect(own_redis.url, timeouts={**IMPATIENT, "open": 60.0})
    own_redis.kill()
    opening = asyncio.create_task(client.open(conversation_id))
    done, _ = await asyncio.wait({opening}, timeout=3.0)
    assert not done
    own_redis.start()
    assert (await (await opening).append(user("one"))).seq == 1


async def test_client_enters_while_redis_is_away(connect: Connect, own_redis: Server, conversation_id: str) -> None:
    """A client that starts before Redis does is no error: its calls wait, each for its time-out."""
    own_redis.kill()
    client = await connect(own_redis.url, timeouts=IMPATIENT)
    own_redis.start()
    assert (await (await client.open(conversation_id)).append(user("one"))).seq == 1


def damage_snapshot(redis: Any, keys: Any) -> tuple[str, int]:
    """Cut a hole into the snapshot; return the key that is to be named and the least position."""
    redis.setrange(keys.snapshot, 10, b"\xff\x00\xff")
    return keys.snapshot, 0


def damage_entry(redis: Any, keys: Any) -> tuple[str, int]:
    """Cut the last entry of the journal short."""
    data = redis.lindex(keys.journal, -1)
    redis.lset(keys.journal, -1, data[: len(data) // 2])
    return f"{keys.journal}[{redis.llen(keys.journal) - 1}]", 1


@pytest.mark.parametrize("damage", [damage_snapshot, damage_entry], ids=["snapshot", "entry"])
async def test_damaged_bytes_are_told_by_key_and_position(
    patient: ConversationHandle, own_redis: Server, connect: Connect, conversation_id: str, damage: Any
) -> None:
    """Damaged bytes are told by key and position, by an owner that lives; repaired, the conversation opens again."""
    await patient.passivate()
    for number in range(2):
        await patient.append(user(f"behind-{number}"))
    keys = Keys().conversation(conversation_id)
    with own_redis.client() as redis:
        good = {key: redis.dump(key) for key in (keys.snapshot, keys.journal)}
        key, least = damage(redis, keys)
        sigkill(await pid_of(patient))
        for _ in range(2):
            with pytest.raises(CorruptStateError) as told:
                await patient.snapshot()
            assert told.value.key == key
            assert key in str(told.value)
            assert told.value.position >= least
            assert f"byte {told.value.position}" in str(told.value)
        with pytest.raises(CorruptStateError):
            await (await connect(own_redis.url)).open(conversation_id)
        for name, data in good.items():
            redis.restore(name, 600_000, data, replace=True)
    receipt = await patient.append(user("repaired"))
    found = texts((await patient.snapshot(fresh=True)).items)
    assert found == ["one", "two", "behind-0", "behind-1", "repaired"]
    assert receipt.seq == 5
    assert is_alive(await pid_of(patient))
