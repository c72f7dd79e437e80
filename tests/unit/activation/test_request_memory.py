"""The request memory: what a repeat returns, and how much of it is kept."""

from datetime import timedelta

from conversation_actors.activation.activation import Activation, Place
from conversation_actors.codec import decode_snapshot, encode_snapshot
from conversation_actors.errors import ConflictError
from conversation_actors.protocol import Done, Request
from conversation_actors.settings import Settings
from conversation_actors.state import (
    ClearHistory,
    Command,
    ConversationState,
    Entry,
    JoinParticipant,
    LeaveParticipant,
    Limits,
    Participant,
    SetAttributes,
    decide,
)
from conversation_actors.state.conversation import MAX_RESULTS
from conversation_actors.store import MemoryStore

LIMITS = Limits(bytes=64_000, item_bytes=16_000, participant_bytes=10_000)


def run(state: ConversationState, command: Command, request_id: str) -> None:
    """Decide and apply, as an activation does."""
    for place, event in enumerate(decide(state, command, now=1.0)):
        state.apply(Entry(state.seq + 1, 1, 1.0, event, None if place else request_id))


def filled() -> ConversationState:
    """Return a conversation that remembers more participants than it may keep."""
    state = ConversationState(LIMITS)
    for number in range(MAX_RESULTS + 10):
        run(state, JoinParticipant(identity="al", device_id="d", metadata={"note": number}), f"r{number}")
    return state


def results(state: ConversationState) -> list[str]:
    """Return the requests whose result is kept."""
    return [request_id for request_id, kept in state.requests.items() if kept.result is not None]


async def activated(store: MemoryStore, owner: str) -> Activation:
    """Return an owner of the one conversation of a test."""
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


def test_old_requests_stay_known_without_their_results() -> None:
    """Of old requests the result goes, which may be large; that they happened stays known."""
    state = filled()
    assert len(state.requests) == MAX_RESULTS + 10
    assert results(state) == [f"r{number}" for number in range(10, MAX_RESULTS + 10)]


def test_bound_of_results_survives_copy_and_snapshot() -> None:
    """A copy, and a state read from a snapshot, forget the same results from then on."""
    state = filled()
    copied, read = state.copy(), decode_snapshot(encode_snapshot(state), LIMITS)
    for twin in (state, copied, read):
        run(twin, JoinParticipant(identity="al", device_id="d", metadata={"note": "last"}), "last")
    assert results(state) == results(copied) == results(read)
    assert state.requests == copied.requests == read.requests


async def test_forgotten_result_is_answered_with_the_present() -> None:
    """A repeat of an old join still happens once, and answers with the participant as it is now."""
    activation = await activated(MemoryStore(), "o1")
    for number in range(MAX_RESULTS + 1):
        await ask(activation, f"r{number}", JoinParticipant(identity="al", device_id="d", metadata={"note": number}))
    before = activation.info().seq
    again = await ask(activation, "r0", JoinParticipant(identity="al", device_id="d", metadata={"note": 0}))
    assert activation.info().seq == before
    assert isinstance(again.result, Participant)
    assert again.result.metadata == {"note": MAX_RESULTS}
    await activation.aclose()


async def test_request_id_of_nothing_is_no_other_command() -> None:
    """What was remembered of a command without effect does not answer for another kind of command."""
    activation = await activated(MemoryStore(), "o1")
    await ask(activation, "a", SetAttributes({}))
    executed = await activation.execute([Request("a", ClearHistory())], watcher="w", after_seq=0)
    assert isinstance(executed.replies[0], ConflictError)
    await activation.aclose()


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


async def test_a_request_used_again_is_the_newest_after_a_crash_too() -> None:
    """What was forgotten by age, and came again, is not the first to go for those who recovered it from a snapshot."""
    limits = Limits(requests=3)
    living = ConversationState(limits)
    for request_id in ("x", "r2", "r3"):
        run(living, SetAttributes({request_id: 1}), request_id)
    snapshot = encode_snapshot(living)
    living.forget_requests(through_seq=1)
    recovered = decode_snapshot(snapshot, limits)
    for state in (living, recovered):
        run(state, SetAttributes({"x": 2}), "x")
        run(state, SetAttributes({"r5": 1}), "r5")
    assert list(living.requests) == list(recovered.requests) == ["r3", "x", "r5"]
    recovered.forget_requests(through_seq=living.seq)
    assert not recovered.requests
