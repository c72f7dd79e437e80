"""What MemoryStore has beyond the contract: a clock that tests can move."""

from datetime import timedelta

import pytest

from conversation_actors.store import MemoryStore

pytestmark = pytest.mark.asyncio

TTL = timedelta(seconds=100)


async def test_time_is_the_clocks() -> None:
    """A conversation lives until its clock says otherwise, and each change starts its time again."""
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
    now[0] = 99.0
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    now[0] = 198.0
    assert await store.head("c") is not None
    now[0] = 199.0
    assert await store.head("c") is None


async def test_participants_listing_goes_with_the_last_conversation() -> None:
    """A participant's listing goes with the last of its conversations."""
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    await store.activate("c", owner="o", create=True, ttl=TTL * 10)
    await store.index("c", participants=["al"], ttl=TTL)
    now[0] = 50.0
    assert [found.last_active_at async for found in store.list(participant="al")] == [0.0]
    now[0] = 100.0
    assert [found async for found in store.list(participant="al")] == []
