"""Who is expected where: one contract for memory and every server."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from conversation_actors.store import ExpectationStore, MemoryStore, Place, Store
from conversation_actors.store.expectations import MAX_EXPECTATIONS
from tests.support.servers import wait_until

pytestmark = pytest.mark.asyncio

LONG = timedelta(minutes=1)
HERE = Place("room", "support")
PLACES = [
    HERE,
    Place("room", ""),
    Place("room:support", ""),
    Place("", "room:support"),
    Place("room", "support:"),
    Place("room%3Asupport", ""),
    Place("{room}", "support"),
    Place("%7Broom%7D", "support"),
    Place("ünï 🦜\u200d", "x"),
]


@pytest.fixture
def expectations(store: Store) -> ExpectationStore:
    """Those of the lease "agent", in every store."""
    return store.expectations("agent")


async def put(
    expectations: ExpectationStore,
    name: str = "t1",
    told: bytes = b"{}",
    *,
    place: Place = HERE,
    keep: timedelta = LONG,
    is_new: bool = True,
) -> bool:
    """Expect somebody."""
    return await expectations.put(place, name, told, keep=keep, is_new=is_new)


async def test_who_is_expected_is_found_where_it_is(expectations: ExpectationStore) -> None:
    """Each place has its own, however alike their names are; what is told comes back byte for byte."""
    for number, place in enumerate(PLACES):
        assert await put(expectations, f"t{number}", b'{"a": "\n {}"} ' + bytes([48 + number]), place=place)
    for number, place in enumerate(PLACES):
        assert list(await expectations.all(place)) == [(f"t{number}", b'{"a": "\n {}"} ' + bytes([48 + number]))]


async def test_who_is_there_is_expected_no_more(expectations: ExpectationStore) -> None:
    """Once; the others still are."""
    await put(expectations, "t1")
    await put(expectations, "t2")
    assert await expectations.drop(HERE, "t1")
    assert not await expectations.drop(HERE, "t1")
    assert [token for token, _ in await expectations.all(HERE)] == ["t2"]


async def test_what_is_known_later_is_added(expectations: ExpectationStore) -> None:
    """In place of what was told; but what was met meanwhile does not come back."""
    await put(expectations, "t1", b"old")
    assert await put(expectations, "t1", b"new", is_new=False)
    assert list(await expectations.all(HERE)) == [("t1", b"new")]
    await expectations.drop(HERE, "t1")
    assert not await put(expectations, "t1", b"late", is_new=False)
    assert list(await expectations.all(HERE)) == []


async def test_nobody_is_expected_for_ever(expectations: ExpectationStore) -> None:
    """Each has its own time, in one place too; an amended one has its time anew."""
    soon = timedelta(milliseconds=60)
    await put(expectations, "long")
    await put(expectations, "amended", keep=soon)
    await put(expectations, "short", keep=soon)
    assert await put(expectations, "amended", keep=LONG, is_new=False)

    async def has_gone() -> bool:
        return {token for token, _ in await expectations.all(HERE)} == {"long", "amended"}

    await wait_until(has_gone, "the short one to be over")
    assert not await put(expectations, "short", keep=soon, is_new=False)


async def test_too_many_cost_the_one_that_is_over_first(expectations: ExpectationStore) -> None:
    """A place has room for a few."""
    for number in range(MAX_EXPECTATIONS):
        await put(expectations, f"t{number}", keep=LONG * 2 if number else LONG)
    assert await put(expectations, "one more")
    tokens = {token for token, _ in await expectations.all(HERE)}
    assert len(tokens) == MAX_EXPECTATIONS
    assert "t0" not in tokens
    assert "one more" in tokens


async def test_leases_do_not_share_them(store: Store) -> None:
    """Another lease, other expectations."""
    await put(store.expectations("agent"))
    assert list(await store.expectations("agent}").all(HERE)) == []


async def test_a_clock_in_memory_decides_there() -> None:
    """The twin's time is over when its clock says so."""
    now = [0.0]
    expectations = MemoryStore(clock=lambda: now[0]).expectations("agent")
    await put(expectations)
    now[0] = LONG.total_seconds()
    assert list(await expectations.all(HERE)) == []


@pytest.mark.parametrize("ask", [lambda one: one.all(HERE), lambda one: one.drop(HERE, "t"), put])
async def test_each_call_may_be_repeated(
    expectations: ExpectationStore, ask: Callable[[ExpectationStore], Awaitable[object]]
) -> None:
    """Each may be asked for twice."""
    await ask(expectations)
    await ask(expectations)
    assert len(await expectations.all(HERE)) <= 1
