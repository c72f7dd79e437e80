"""The output gate: what waits, what leaves, in which order, and what an activation shows meanwhile."""

import asyncio

import pytest

from conversation_actors.activation import Activation
from conversation_actors.activation.gate import OutputGate
from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.errors import ConflictError, FencedError, LeaseHeldError
from conversation_actors.protocol import Done, Request
from conversation_actors.state import AcquireLease, SetAttributes
from tests.support.fakes import Activations, FaultyStore, append, brief, execute, ids, turns, until

FENCED = FencedError("fenced")


async def held(start: Activations) -> tuple[FaultyStore, Activation]:
    """Return an activation with one durable item, whose store lets nothing more through."""
    store = FaultyStore()
    activation = await start(store)
    await execute(activation, append("u0"))
    store.hold()
    return store, activation


async def passing(gate: OutputGate, seq: int, out: list[int]) -> None:
    """Note `seq` once it is let out."""
    await gate.passed(seq)
    out.append(seq)


async def test_what_is_durable_never_waits() -> None:
    """What is durable already never waits, not even after the gate was closed."""
    gate = OutputGate(3)
    gate.close(FENCED)
    await gate.passed(3)


async def test_let_out_in_order() -> None:
    """Opening lets out what speaks of that position or before, in the order of the positions; the rest stays."""
    gate, out = OutputGate(0), list[int]()
    async with asyncio.TaskGroup() as group:
        for seq in (1, 2, 2, 3, 5):
            group.create_task(passing(gate, seq, out))
        await turns()
        assert (out, len(gate)) == ([], 5)
        gate.open_to(3)
        await turns()
        assert (out, len(gate)) == ([1, 2, 2, 3], 1)
        gate.open_to(9)
    assert (out, len(gate)) == ([1, 2, 2, 3, 5], 0)


async def test_closing_raises_in_all_who_wait_and_all_who_come() -> None:
    """Closing raises its error in all who wait, and in all who come later."""
    gate = OutputGate(0)
    waiting = [asyncio.create_task(gate.passed(seq)) for seq in (1, 2)]
    await turns()
    gate.close(FENCED)
    assert await asyncio.gather(*waiting, return_exceptions=True) == [FENCED, FENCED]
    with pytest.raises(FencedError):
        await gate.passed(3)


async def test_a_caller_that_left_blocks_nobody() -> None:
    """A cancelled wait neither stops those behind it nor breaks the opening or the closing."""
    gate, out = OutputGate(0), list[int]()
    first, stays, last = (asyncio.create_task(passing(gate, seq, out)) for seq in (1, 2, 3))
    await turns()
    for task in (first, last):
        task.cancel()
    await turns()
    gate.open_to(2)
    await stays
    gate.close(FENCED)
    assert out == [2]


async def test_no_answer_before_it_is_durable(start: Activations) -> None:
    """`execute` answers when the store has taken the entry, and not before."""
    store, activation = await held(start)
    answer = asyncio.create_task(execute(activation, append("u1")))
    await until(lambda: len(store.appends) >= 2)
    await turns()
    assert not answer.done()
    store.release()
    (reply,) = (await answer).replies
    assert isinstance(reply, Done)
    assert reply.seq == 2


async def test_reads_show_nothing_undecided(start: Activations) -> None:
    """A read, and the facts for people, show the durable state only; the entry appears when it is durable."""
    store, activation = await held(start)
    answer = asyncio.create_task(execute(activation, append("u1")))
    await until(lambda: len(store.appends) >= 2)
    view = await activation.read(fresh=False)
    assert (view.seq, ids(decode_snapshot(view.snapshot))) == (1, ["u0"])
    assert (activation.info().seq, activation.info().history_items, activation.info().pending) == (1, 1, 1)
    store.release()
    await answer
    view = await activation.read(fresh=False)
    assert (view.seq, ids(decode_snapshot(view.snapshot))) == (2, ["u0", "u1"])
    assert (activation.info().seq, activation.info().pending) == (2, 0)


async def test_watchers_see_nothing_undecided(start: Activations) -> None:
    """A parked poll stays parked, and a poll from an older position brings durable entries only."""
    store, activation = await held(start)
    parked = asyncio.create_task(activation.poll(watcher="parked", after_seq=1, timeout=5))
    answer = asyncio.create_task(execute(activation, append("u1")))
    await until(lambda: len(store.appends) >= 2)
    await turns()
    assert not parked.done()
    behind = await activation.poll(watcher="behind", after_seq=0, timeout=5)
    assert [decode_entry(data).seq for data in behind.entries] == [1]
    store.release()
    assert [decode_entry(data).seq for data in (await parked).entries] == [2]
    await answer


async def test_refusal_waits_for_what_it_speaks_of(start: Activations) -> None:
    """A refusal that speaks of what is not durable yet leaves only after it: else it might speak of nothing."""
    store, activation = await held(start)
    taken = asyncio.create_task(execute(activation, Request("r1", AcquireLease("agent", "one", 60.0))))
    refused = asyncio.create_task(execute(activation, Request("r2", AcquireLease("agent", "two", 60.0))))
    changed = asyncio.create_task(execute(activation, Request("r3", SetAttributes({"a": 1}))))
    conflict = asyncio.create_task(execute(activation, Request("r4", SetAttributes({"a": 2}, expected_seq=1))))
    await until(lambda: len(store.appends) >= 2)
    await turns()
    assert not any(task.done() for task in (taken, refused, changed, conflict))
    store.release()
    await asyncio.gather(taken, changed)
    assert isinstance((await refused).replies[0], LeaseHeldError)
    assert isinstance((await conflict).replies[0], ConflictError)


async def test_what_is_the_case_already_waits_too(start: Activations) -> None:
    """A command that changes nothing, because of what is not durable yet, is answered only after that."""
    store, activation = await held(start)
    first = asyncio.create_task(execute(activation, append("u1")))
    same = asyncio.create_task(execute(activation, append("u1", request_id="another")))
    await until(lambda: len(store.appends) >= 2)
    await turns()
    assert not same.done()
    store.release()
    for answer in (first, same):
        (reply,) = (await answer).replies
        assert isinstance(reply, Done)


async def test_everything_comes_out_in_order(start: Activations) -> None:
    """Callers are answered in the order in which their commands were decided."""
    store, activation = await held(start)
    out = list[int]()

    async def ask(number: int) -> None:
        (reply,) = (await execute(activation, append(f"u{number}"))).replies
        assert isinstance(reply, Done)
        out.append(reply.seq)

    async with asyncio.TaskGroup() as group:
        for number in range(1, 21):
            group.create_task(ask(number))
        await turns()
        assert not out
        store.release()
    assert out == list(range(2, 22))


async def test_one_call_is_answered_as_a_whole(start: Activations) -> None:
    """Commands sent together are answered together, each with its own outcome, and with the entries they made."""
    store, activation = await held(start)
    call = execute(
        activation,
        append("u0"),
        Request("lease-1", AcquireLease("agent", "one", 60.0)),
        Request("lease-2", AcquireLease("agent", "two", 60.0)),
        after_seq=1,
    )
    answer = asyncio.create_task(call)
    await turns()
    assert not answer.done()
    store.release()
    executed = await answer
    repeated, lease, refusal = executed.replies
    assert isinstance(repeated, Done)
    assert isinstance(lease, Done)
    assert isinstance(refusal, LeaseHeldError)
    assert (repeated.seq, lease.seq) == (1, 2)
    (told,) = executed.entries  # of the lease: a repeat leads to none, and a refusal neither
    assert isinstance(told, bytes)
    assert decode_entry(told).seq == 2


async def test_gate_holds_no_answer_longer_than_a_write_may_take(start: Activations) -> None:
    """The gate does not hold an answer for longer than `timeouts.write`."""
    store = FaultyStore()
    activation = await start(store, brief(write=0.02))
    store.hold()
    executed = await execute(activation, append("u1"))
    assert [type(reply).__name__ for reply in executed.replies] == ["OutcomeUnknownError"]
    assert executed.entries == ()
