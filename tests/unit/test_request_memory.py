"""The request memory: what a repeat returns, and how much of it is kept."""

from datetime import timedelta

from conversation_actors.activation import Done, Request
from conversation_actors.activation.activation import Activation, Place
from conversation_actors.codec import decode_snapshot, encode_snapshot
from conversation_actors.settings import Settings
from conversation_actors.state import (
    Command,
    ConversationState,
    Entry,
    JoinParticipant,
    LeaveParticipant,
    Limits,
    SetAttributes,
    decide,
)
from conversation_actors.store import MemoryStore

LIMITS = Limits(bytes=64_000, item_bytes=16_000, participant_bytes=10_000)


def run(state: ConversationState, command: Command, request_id: str) -> None:
    """Decide and apply, as an activation does."""
    for place, event in enumerate(decide(state, command, now=1.0)):
        state.apply(Entry(state.seq + 1, 1, 1.0, event, None if place else request_id))


def filled() -> ConversationState:
    """A conversation whose remembered results are together larger than its history may be."""
    state = ConversationState(LIMITS)
    for number in range(100):
        run(state, JoinParticipant(identity="al", device_id="d", metadata={"note": "x" * 9000}), f"r{number}")
    return state


async def activated(store: MemoryStore, owner: str) -> Activation:
    """An owner of the one conversation of a test."""
    settings = Settings(idle_timeout=timedelta(hours=1))
    return await Activation.recover(
        "c", owner=owner, create=True, store=store, settings=settings, place=Place(1, "node")
    )


async def ask(activation: Activation, request_id: str, command: Command) -> Done:
    """One command, answered."""
    executed = await activation.execute([Request(request_id, command)], watcher="w", after_seq=0)
    (reply,) = executed.replies
    assert isinstance(reply, Done)
    return reply


def test_results_are_bounded_by_bytes() -> None:
    """Remembered participants with large metadata push older requests out before their number does."""
    state = filled()
    assert 1 <= len(state.requests) < 10
    assert "r99" in state.requests


def test_bound_by_bytes_survives_copy_and_snapshot() -> None:
    """A copy, and a state read from a snapshot, forget the same requests from then on."""
    state = filled()
    copied, read = state.copy(), decode_snapshot(encode_snapshot(state), LIMITS)
    for twin in (state, copied, read):
        run(twin, JoinParticipant(identity="al", device_id="d", metadata={"note": "y" * 9000}), "last")
    assert list(state.requests) == list(copied.requests) == list(read.requests)


async def test_request_that_changed_nothing_changes_nothing_later() -> None:
    """A repeat of "make it 1", when it was 1 and somebody has made it 2 since, leaves it at 2; after a crash too."""
    store = MemoryStore()
    first = await activated(store, "o1")
    await ask(first, "a", SetAttributes({"n": 1}))
    answer = await ask(first, "b", SetAttributes({"n": 1}))
    await ask(first, "c", SetAttributes({"n": 2}))
    await first.aclose()
    second = await activated(store, "o2")
    assert await ask(second, "b", SetAttributes({"n": 1})) == answer
    view = await second.read(fresh=False)
    assert decode_snapshot(view.snapshot).attributes == {"n": 2}
    await second.aclose()


async def test_request_that_changed_nothing_has_its_result() -> None:
    """Leaving twice answers with the participant both times."""
    activation = await activated(MemoryStore(), "o1")
    await ask(activation, "a", JoinParticipant(identity="al", device_id="d"))
    left = await ask(activation, "b", LeaveParticipant("al"))
    again = await ask(activation, "c", LeaveParticipant("al"))
    assert left.result is not None
    assert again.result == left.result
    await activation.aclose()
