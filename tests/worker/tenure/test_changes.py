"""What a job tells its conversation besides items: bounded and in order, whoever is away for however long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from agent_worker.tenure.backlog import MAX_NOTES, MAX_OPERATIONS, MAX_OWNER_FAILURES, Operation, is_trouble
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import ConversationHandle, Lease
from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    ConversationNotFoundError,
    InvalidInputError,
    LeaseLostError,
    OutcomeUnknownError,
    OwnerFailedError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from tests.support.fakes import PATIENCE, until
from tests.support.sessions.fakes_call import Clock, World, Worlds

MANY = 50_000


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A conversation that can be opened, whose owner waits only for a moment for Redis."""
    async with Worlds(monkeypatch, Clock(), close=0.5, write=0.05, command=0.3) as made:
        yield made


async def flushed(call: CallConversation) -> None:
    """Wait until all that was put is durable, for longer than a call waits: this machine may be busy."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OutcomeUnknownError):
                return await call.flush()


async def opened(world: World) -> CallConversation:
    """The conversation, as its agent has it."""
    call = world.call()
    assert await call.open()
    await flushed(call)
    return call


async def noted(call: CallConversation, name: str, value: Any) -> None:
    """Wait until an attribute has a value."""
    await until(lambda: call.attributes.get(name) == value)


async def test_while_redis_is_away_fifty_thousand_changes_are_a_few(world: World) -> None:
    """The latest value of each attribute waits, however long; of the rest is told that it has to be looked up."""
    call = await opened(world)
    looks: list[bool] = []
    call.on_changes_missed(looks.append)
    done: list[int] = []
    world.store.is_down = True
    for number in range(MANY):
        call.note(f"n{number % 10}", number)
        call.later(_noting(done, number))
        if number % 1000 == 0:
            await asyncio.sleep(0)
        assert len(call._telling.changes) <= MAX_OPERATIONS + 10
    assert call._telling.changes.has_missed
    await until(lambda: call.failures.counts.get("lease", 0) > 0)
    assert looks == []
    world.store.is_down = False
    await until(lambda: looks == [False])
    for number in range(10):
        await noted(call, f"n{number}", MANY - 10 + number)
    await flushed(call)
    assert len(call._telling.changes) == 0
    assert len(done) + call._telling.changes.dropped == MANY
    call.later(_noting(done, MANY))
    await flushed(call)
    assert done[-1] == MANY


def _noting(done: list[int], number: int) -> Operation:
    """Return an operation that changes nothing, and tells that it was done."""

    async def note_down(_handle: ConversationHandle, _lease: Lease) -> None:
        done.append(number)

    return note_down


async def test_an_attribute_waits_for_longer_than_an_operation_may_take(world: World) -> None:
    """Neither its time-out nor the owner's loses it."""
    world.timing = replace(world.timing, operation=0.02)
    call = await opened(world)
    world.store.is_down = True
    call.note("x", 1)
    call.note("y", None)
    await until(lambda: call.failures.counts.get("notes", 0) > 0)
    call.note("x", 2)
    with pytest.raises(OutcomeUnknownError):
        await call.flush()
    world.store.is_down = False
    await noted(call, "x", 2)
    await flushed(call)


async def test_what_is_noted_together_is_written_together(world: World) -> None:
    """One change of the conversation, in the order of the latest values."""
    call = await opened(world)
    before = call.seq
    for number in range(100):
        call.note(f"n{number % 5}", number)
    await flushed(call)
    assert call.seq == before + 1
    assert [call.attributes[f"n{number}"] for number in range(5)] == [95, 96, 97, 98, 99]


async def test_one_that_is_refused_costs_only_itself(world: World) -> None:
    """Those noted with it are written, one by one."""
    call = await opened(world)
    call.note("a", 1)
    call.note("too large", "x" * (1 << 20))
    call.note("b", 2)
    await flushed(call)
    assert (call.attributes["a"], call.attributes["b"]) == (1, 2)
    assert "too large" not in call.attributes
    assert call.failures.counts == {"notes": 1}


async def test_the_names_are_bounded(world: World) -> None:
    """A name too many is counted; those that are known change as before."""
    call = await opened(world)
    world.store.is_down = True
    for number in range(MAX_NOTES * 2):
        call.note(f"n{number}", number)
    call.note("n1", "new")
    assert len(call._telling.changes) <= MAX_NOTES
    world.store.is_down = False
    await noted(call, "n1", "new")
    assert call.failures.counts["notes"] > MAX_NOTES


async def test_operations_keep_their_order(world: World) -> None:
    """Also those that were put before the conversation was open."""
    world.may_open.clear()
    call = world.call()
    opening = asyncio.create_task(call.open())
    done: list[int] = []
    for number in range(5):
        call.later(_noting(done, number))
    world.may_open.set()
    await opening
    for number in range(5, 10):
        call.later(_noting(done, number))
    await flushed(call)
    assert done == list(range(10))


async def test_too_many_before_it_is_open_are_looked_up_then(world: World) -> None:
    """And it is told as soon as it is open."""
    world.may_open.clear()
    call = world.call()
    looks: list[bool] = []
    call.on_changes_missed(looks.append)
    opening = asyncio.create_task(call.open())
    for _ in range(MAX_OPERATIONS + 1):
        call.later(_nothing)
    assert call._telling.changes.dropped == MAX_OPERATIONS + 1
    world.may_open.set()
    await opening
    await until(lambda: looks == [False])
    await flushed(call)


async def _nothing(_handle: ConversationHandle, _lease: Lease) -> None:
    """Change nothing."""


async def test_flush_waits_for_what_takes_the_place_of_the_dropped(world: World) -> None:
    """All that was put before is durable: by what was looked up."""
    call = await opened(world)
    call.on_changes_missed(lambda _is_afresh: call.later(lambda handle, lease: handle.join("bob", lease=lease)))
    world.store.is_down = True
    call.later(lambda handle, lease: handle.join("alice", lease=lease))
    await until(lambda: call._telling.changes.has_missed)
    world.store.is_down = False
    await flushed(call)
    assert "bob" in call.participants


async def test_the_end_of_a_call_waits_no_longer_for_any_of_it(world: World) -> None:
    """However much waits while Redis is away."""
    world.timing = replace(world.timing, flush=0.1)
    call = await opened(world)
    world.store.is_down = True
    for number in range(2 * MAX_OPERATIONS):
        call.note("x", number)
        call.later(lambda handle, lease: handle.join("alice", lease=lease))
    started = asyncio.get_running_loop().time()
    await call.release()
    assert asyncio.get_running_loop().time() - started < 2
    world.store.is_down = False


async def test_the_deposed_tells_nothing_more(world: World) -> None:
    """What waited is forgotten, and flush does not wait for it."""
    call = await opened(world)
    world.store.is_down = True
    call.note("x", 1)
    call.later(_nothing)
    call._upkeep.depose("test")
    await asyncio.wait_for(call._telling.changes.settled(), 1)
    call.note("y", 1)
    call.later(_nothing)
    assert len(call._telling.changes) == 0
    world.store.is_down = False


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (StoreUnavailableError("x"), True),
        (OutcomeUnknownError("x"), True),
        (TimeoutError(), True),
        (LeaseLostError("x", name="agent", token=1), True),
        (ConversationNotFoundError("x"), True),
        (StoreMisconfiguredError("x"), True),
        (InvalidInputError("x", field="y"), False),
        (ConflictError("x"), False),
        (ConversationClosedError("x"), True),
        (OwnerFailedError("x"), True),
        (TypeError("x"), False),
    ],
)
def test_what_is_worth_another_try(error: Exception, *, is_one: bool) -> None:
    """What says nothing about the change itself, but about the store, the owner, or whose the conversation is."""
    assert is_trouble(error) is is_one


# An owner that fails


async def test_an_attribute_that_the_owner_always_fails_at_costs_only_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried a few times, because the owner may do better; those noted with it are written meanwhile."""
    call = await opened(world)
    original, tries = ConversationHandle.set_attributes, []

    async def failing(self: ConversationHandle, changes: Any, **named: Any) -> Any:
        if "poison" in changes:
            tries.append(len(changes))
            message = "a defect"
            raise OwnerFailedError(message)
        return await original(self, changes, **named)

    monkeypatch.setattr(ConversationHandle, "set_attributes", failing)
    call.note("poison", 1)
    call.note("a", 1)
    await flushed(call)
    assert call.attributes["a"] == 1
    assert tries == [2, 1, 1, 1]
    assert len(call._telling.changes) == 0


async def test_an_operation_that_the_owner_fails_at_is_looked_at_again(world: World) -> None:
    """Where it always fails it costs only itself: those behind it are done."""
    call = await opened(world)
    done: list[int] = []
    tries: list[bool] = []

    async def poison(_handle: ConversationHandle, _lease: Lease) -> None:
        tries.append(True)
        message = "a defect"
        raise OwnerFailedError(message)

    def look(_is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        call.later(poison)
        call.later(_noting(done, 1))

    call.on_changes_missed(look)
    look(False)
    await flushed(call)
    assert done == [1]
    assert len(tries) == MAX_OWNER_FAILURES


async def test_a_closed_conversation_gets_the_changes_when_it_is_reopened(world: World) -> None:
    """They say nothing else than before: operations are looked up, attributes are written."""
    call = await opened(world)
    call.on_changes_missed(lambda _is_afresh: call.later(lambda handle, lease: handle.join("bob", lease=lease)))
    await (await world.cluster.handle()).close_conversation("by mistake")
    call.later(lambda handle, lease: handle.join("alice", lease=lease))
    call.note("x", 1)
    await flushed(call)
    assert "bob" in call.participants
    assert call.attributes["x"] == 1


async def test_three_agents_with_much_to_note_leave_room_for_what_is_small(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no room is told once, its last value stays; who has the call, and what is done once, is noted still."""
    call = await opened(world)
    names = [f"livekit.role.{role}.{name}" for role in ("a", "b", "c") for name in ("userdata", "active_agent")]
    for name in names:
        call.note(name, {"is_first": True})
    await flushed(call)
    for number in range(3):
        for name in names:
            call.note(name, {"page": str(number) + "x" * ((64 << 10) - 100)})
            await flushed(call)
    values = [call.attributes[name] for name in names]
    assert [value for value in values if "page" not in value] == [{"is_first": True}] * 3
    told = [line for line in caplog.records if "no room" in line.message]
    assert len(told) == 3
    left_out = {name for name in names if "page" not in call.attributes[name]}
    assert {line.__dict__["attribute"] for line in told} == left_out
    for number in range(100):
        call.note(f"small {number}", "x" * 60)
    await flushed(call)
    assert call.attributes["small 99"] == "x" * 60
    async with call.once("dial") as todo:
        assert todo
    call.note(names[0], {"page": "short"})
    await flushed(call)
    call.note(names[5], {"page": "y" * (60 << 10)})
    await noted(call, names[5], {"page": "y" * (60 << 10)})
