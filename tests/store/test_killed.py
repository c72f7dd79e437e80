"""Writers killed at any moment leave conversations that are whole and that expire."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from datetime import timedelta
from itertools import count

import pytest

from conversation_actors.settings import Durability
from conversation_actors.store import Claim, Outcome
from conversation_actors.store.redis import RedisStore
from tests.store.conftest import make_store
from tests.support.servers import Server, wait_until

pytestmark = [pytest.mark.asyncio, pytest.mark.chaos]

TTL = timedelta(minutes=10)
KILLS = 8


async def write_for_ever(url: str, owner: str) -> None:
    """Append to one conversation, compact and index it, as fast as it goes; print what is acknowledged."""
    store = RedisStore(url, durability=(Durability.REDIS, 0), timeout=timedelta(seconds=3))
    recovered = await store.activate("c", owner=owner, create=True, ttl=TTL)
    claim, seq = recovered.claim, recovered.seq
    while True:
        outcome = await store.append(claim, expected_seq=seq, entries=[b"%d" % (seq + 1)] * 3, ttl=TTL)
        assert outcome is Outcome.OK
        seq += 3
        print(seq, flush=True)  # noqa: T201 - the parent reads what was acknowledged
        if seq % 5 == 0:
            await store.save_snapshot(claim, seq=seq - 1, snapshot=b"%d" % (seq - 1), ttl=TTL, participants=["al"])
            await store.index("c", participants=["al"], ttl=TTL)


def start_writer(url: str, owner: str) -> "subprocess.Popen[str]":
    """Start `write_for_ever` in a process of its own."""
    call = f"write_for_ever({url!r}, {owner!r})"
    code = f"import asyncio; from tests.store.test_killed import write_for_ever; asyncio.run({call})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def kill_after(writer: "subprocess.Popen[str]", writes: int) -> int:
    """Let it acknowledge some writes, kill it, and return the last seq it acknowledged."""
    assert writer.stdout is not None
    for _ in range(writes):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    lines = writer.stdout.read().split()
    writer.stdout.close()
    writer.wait()
    return int(lines[-1]) if lines else 0


async def test_writers_killed_in_a_loop(server: Server, redis_store: RedisStore) -> None:
    """After each kill all acknowledged entries are there, contiguous, and every key expires (see `server`)."""
    client = server.client()
    dice = random.Random(KILLS)
    for number in range(KILLS):
        writer = start_writer(server.url, f"o{number}")
        acknowledged = await asyncio.to_thread(kill_after, writer, dice.randint(1, 60))
        assert [key for key in client.keys("conv:default:{*") if client.pttl(key) < 0] == []
        recovered = await redis_store.activate("c", owner=f"check-{number}", create=False, ttl=TTL)
        assert recovered.seq >= acknowledged
        assert len(recovered.journal) == recovered.seq - recovered.snapshot_seq
        batches = [int(entry) for entry in recovered.journal]
        expected = [seq - (seq - 1) % 3 for seq in range(recovered.snapshot_seq + 1, recovered.seq + 1)]
        assert batches == expected
    client.close()


async def test_two_owners_never_both_write(server: Server) -> None:
    """Two owners race for one conversation: each entry is one owner's, acknowledged once, and none is missing."""
    stores = [make_store(server.url), make_store(server.url)]
    acknowledged: list[bytes] = []
    attempts = count()

    async def contend(store: RedisStore, name: str) -> None:
        for number in range(30):
            entry = f"{name}-{number}".encode()
            claim, seq = await take(store, f"{name}-{number}")
            while await store.append(claim, expected_seq=seq, entries=[entry], ttl=TTL) is Outcome.FENCED:
                claim, seq = await take(store, f"{name}-{number}-{next(attempts)}")
            acknowledged.append(entry)

    await asyncio.gather(*(contend(store, f"w{number}") for number, store in enumerate(stores)))
    stored = (await stores[0].activate("c", owner="reader", create=False, ttl=TTL)).journal
    assert sorted(stored) == sorted(acknowledged)
    for store in stores:
        await store.aclose()


async def take(store: RedisStore, owner: str) -> tuple[Claim, int]:
    """Become the owner; return the claim and where it starts."""
    recovered = await store.activate("c", owner=owner, create=True, ttl=TTL)
    return recovered.claim, recovered.seq


async def test_vanished_writer_conversation_expires(server: Server, redis_store: RedisStore) -> None:
    """What nobody touches again is gone after its time, whole."""
    client = server.client()
    claim = (await redis_store.activate("c", owner="o", create=True, ttl=timedelta(milliseconds=50))).claim
    await redis_store.append(claim, expected_seq=0, entries=[b"1"], ttl=timedelta(milliseconds=50))

    async def is_empty() -> bool:
        return bool(client.dbsize() == 0)

    await wait_until(is_empty, "all keys to expire")
    client.close()
