"""Writing: group commit, unknown outcomes, fencing, a store that forgot, compaction, listings."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conversation_actors.activation import Activation, committer
from conversation_actors.codec import decode_entry, decode_snapshot, encode_entry
from conversation_actors.errors import (
    ActivationLostError,
    ConversationError,
    CorruptStateError,
    FencedError,
    OutcomeUnknownError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.protocol import Done, Request
from conversation_actors.state import ClearHistory, Entry, JoinParticipant, LeaveParticipant
from conversation_actors.store import Bounds, MemoryStore, Outcome, Record, decode_record
from conversation_actors.timing import Timing
from tests.support.fakes import (
    Activations,
    Fault,
    FaultyStore,
    append,
    brief,
    done,
    execute,
    ids,
    stored,
    turns,
    until,
)

NEVER_AGAIN = Timing(write=(60.0, 60.0))
"""A write that fails is not repeated while a test lasts."""


@pytest.fixture(autouse=True)
def _keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing for watchers, so that the journal is what is to be replayed."""
    monkeypatch.setattr(committer, "KEPT_ENTRIES", 0)


def join(identity: str) -> Request:
    """Return a request to join."""
    return Request(f"join-{identity}", JoinParticipant(identity=identity, device_id="web"))


async def outcome(owner: Activation, request: Request) -> ConversationError | Done:
    """Return the reply, or what `execute` raised."""
    try:
        return (await execute(owner, request)).replies[0]
    except ConversationError as error:
        return error


async def failure(call: Awaitable[object]) -> ConversationError | None:
    """Return what a call raises."""
    try:
        await call
    except ConversationError as error:
        return error
    return None


async def waiting_records(store: FaultyStore) -> list[Record]:
    """Return what waits for the archive."""
    return [decode_record(stored) for stored in (await store.backlog().peek("c")).stored]


# Group commit


async def test_what_is_decided_during_a_write_becomes_one_further_write(start: Activations) -> None:
    """All that is decided while one write is on its way becomes one further write."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    async with asyncio.TaskGroup() as group:
        group.create_task(execute(owner, append("u0")))
        await until(lambda: len(store.appends) >= 1)
        for number in range(1, 31):
            group.create_task(execute(owner, append(f"u{number}")))
        await turns()
        assert len(store.appends) == 1
        store.release()
    assert [(seq, len(entries)) for seq, entries in store.appends] == [(0, 1), (1, 30)]
    state, _ = await stored(store)
    assert ids(state) == [f"u{number}" for number in range(31)]


async def test_one_write_is_bounded(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write takes no more entries and bytes than its bounds, and never splits what one request caused."""
    monkeypatch.setattr(committer, "BATCH_ENTRIES", 4)
    store = FaultyStore()
    owner = await start(store, brief(items=4))
    store.hold()
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(execute(owner, append(f"u{number}")))
        await turns()
        store.release()
    sizes = [len(entries) for _, entries in store.appends]
    assert sum(sizes) == 4 + 8 * 2
    assert max(sizes) <= 5
    for _, entries in store.appends:
        assert decode_entry(entries[0]).request_id is not None


async def test_one_write_is_bounded_by_bytes(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large entries share a write only as far as its bytes go; one that is larger goes alone."""
    monkeypatch.setattr(committer, "BATCH_BYTES", 1000)
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    async with asyncio.TaskGroup() as group:
        for number, size in enumerate((2000, 300, 300, 300, 2000)):
            group.create_task(execute(owner, append(f"u{number}", "x" * size)))
        await turns()
        store.release()
    assert [len(entries) for _, entries in store.appends] == [1, 2, 1, 1]


@pytest.mark.parametrize(("bound", "most"), [("BATCH_ENTRIES", 1), ("BATCH_ENTRIES", 3), ("BATCH_BYTES", 700)])
async def test_a_crash_shows_no_half_of_a_request(
    start: Activations, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """Wherever a write ends, what one request caused is in it as a whole: a crash behind any write shows no half."""
    monkeypatch.setattr(committer, bound, most)
    store = FaultyStore()
    owner = await start(store, brief(items=4), timing=NEVER_AGAIN)  # nothing more is written before the crash
    for number in range(4):
        await done(owner, append(f"u{number}", "x" * 50))
    store.hold()
    requests = [append(f"u{number}", "x" * 50) for number in range(4, 12)]
    waiting = [asyncio.create_task(outcome(owner, request)) for request in requests]
    await turns()
    store.append_faults.append(Fault.AFTER)
    store.release()
    await until(lambda: len(store.landed) > 4)
    await turns()
    await owner.aclose()
    await asyncio.gather(*waiting)
    state, recovered = await stored(store)
    causes = [decode_entry(data).request_id for _, data in sorted(store.landed.items())]
    whole = (len(causes) - 4) // 2
    assert 0 < whole < len(requests), "the crash came in the middle"
    assert causes[4:] == [cause for request in requests[:whole] for cause in (request.request_id, None)]
    assert recovered.seq == len(causes)
    assert ids(state) == [f"u{number}" for number in range(whole, whole + 4)], "for each that came, one went"


# Unknown outcomes


@pytest.mark.parametrize("faults", [[Fault.AFTER], [Fault.BEFORE], [Fault.AFTER] * 5, [Fault.BEFORE] * 5])
async def test_write_whose_answer_was_lost_is_repeated_until_it_is_decided(
    start: Activations, faults: list[Fault]
) -> None:
    """A write whose answer was lost is repeated, the same bytes at the same position, until it is decided."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    store.append_faults.extend(faults)
    assert (await done(owner, append("u1"))).seq == 2
    attempts = store.appends[1:]
    assert len(attempts) == len(faults) + 1
    assert len(set(attempts)) == 1
    assert store.answers[-1] is (Outcome.DUPLICATE if Fault.AFTER in faults else Outcome.OK)
    assert (await done(owner, append("u2"))).seq == 3
    state, recovered = await stored(store)
    assert (ids(state), recovered.seq) == (["u0", "u1", "u2"], 3)


async def test_a_repeat_takes_nobody_along(start: Activations) -> None:
    """What is decided while a write is repeated waits for the next one: else a repeat would be another write."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    store.append_faults.extend([Fault.AFTER] * 3)
    async with asyncio.TaskGroup() as group:
        group.create_task(execute(owner, append("u0")))
        await until(lambda: len(store.appends) >= 1)
        group.create_task(execute(owner, append("u1")))
        await turns()
        store.release()
    assert [(seq, len(entries)) for seq, entries in store.appends] == [(0, 1)] * 4 + [(1, 1)]


@hypothesis_settings(max_examples=min(30, hypothesis_settings().max_examples))
@given(st.lists(st.sampled_from([Fault.BEFORE, Fault.AFTER, None, Outcome.GAP]), max_size=12))
async def test_no_gap_no_double(faults: list[Fault | Outcome | None]) -> None:
    """Whatever happens to single writes, each item is stored once, in order, and positions have no gaps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committer, "MAX_HEALS", 20)
        store = FaultyStore()
        async with Activations() as start:
            owner = await start(store, timing=Timing(write=(0.0001, 0.0002)))
            for number, fault in enumerate(faults):
                if fault is not None:
                    store.append_faults.append(fault)
                assert (await done(owner, append(f"u{number}"))).seq == number + 1
        assert sorted(store.landed) == list(range(1, len(faults) + 1))
        state, _ = await stored(store)
        assert ids(state) == [f"u{number}" for number in range(len(faults))]


@pytest.mark.parametrize("reason", ["MISCONF cannot persist", "OOM command not allowed", "NOREPLICAS not enough"])
async def test_the_servers_reason_is_told(start: Activations, reason: str) -> None:
    """Whoever waits for a write that the server refuses for now is told why; when it takes it, that is forgotten."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.05))
    await done(owner, append("u0"))
    store.append_faults.extend([StoreUnavailableError(f"Redis cannot do append now: {reason}")] * 10_000)
    answered = await outcome(owner, append("u1"))
    assert isinstance(answered, OutcomeUnknownError)
    assert str(answered).startswith("not durable after 0.05 s: Redis cannot do append now")
    await until(lambda: owner._committer.patience.failing_for > 0.05)
    refused = [outcome(owner, append("u2")), failure(owner.read(fresh=True)), failure(owner.passivate())]
    for error in await asyncio.gather(*refused):
        assert isinstance(error, StoreUnavailableError)
        assert reason in str(error)
    store.append_faults.clear()
    await until(lambda: owner.info().seq == 2)
    assert (await done(owner, append("u1"))).seq == 2
    store.hold()
    hung = await outcome(owner, append("u3"))
    assert str(hung) == "not durable after 0.05 s", "a reason of yesterday is none"
    store.release()
    assert (await done(owner, append("u3"))).seq == 3


async def test_the_reason_of_a_confirmation_is_told(start: Activations) -> None:
    """The same for a fresh read where nothing waits to be written: it tries by itself."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.05))
    store.append_faults.extend([StoreUnavailableError("OOM command not allowed")] * 10_000)
    error = await failure(owner.read(fresh=True))
    assert isinstance(error, StoreUnavailableError)
    assert "OOM command not allowed" in str(error)
    store.append_faults.clear()
    assert (await owner.read(fresh=True)).seq == 0


# Fenced


async def test_newer_activation_ends_this_one_at_once(start: Activations) -> None:
    """A newer activation ends this one at once: callers, watchers and later calls get `FencedError`; no more writes."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    store.hold()
    writing = [asyncio.create_task(outcome(owner, append(f"u{number}"))) for number in range(1, 4)]
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=5))
    await until(lambda: len(store.appends) >= 2)
    late = asyncio.create_task(outcome(owner, append("u4")))
    taking_over = asyncio.create_task(start(store))
    await turns()
    store.release()
    newer = await taking_over
    assert {type(reply) for reply in await asyncio.gather(*writing, late)} == {FencedError}
    with pytest.raises(FencedError):
        await parked
    assert isinstance(await owner.stopped, FencedError)
    writes = store.writes
    for call in (execute(owner, append("u5")), owner.read(fresh=False), owner.read(fresh=True), owner.passivate()):
        with pytest.raises(FencedError):
            await call
    with pytest.raises(FencedError):
        await owner.poll(watcher="w", after_seq=1, timeout=5)
    with pytest.raises(FencedError):
        owner.info()
    await turns()
    assert store.writes == writes
    assert newer.info().seq == 1
    assert (await done(newer, append("u5"))).seq == 2


async def test_owner_of_a_deleted_conversation_stops_at_its_next_write(start: Activations) -> None:
    """A conversation that was deleted has no owner: the one it had stops at its next write."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    await store.delete("c", ttl=brief().ttl)
    assert isinstance(await outcome(owner, append("u1")), FencedError)
    assert owner.stopped.done()


async def test_a_fresh_read_finds_the_fence(start: Activations) -> None:
    """A fresh read of an activation that was replaced raises, and ends it; a plain read does not know."""
    store = FaultyStore()
    owner = await start(store)
    await start(store)
    assert (await owner.read(fresh=False)).epoch == 1
    with pytest.raises(FencedError):
        await owner.read(fresh=True)
    assert isinstance(await owner.stopped, FencedError)


@pytest.mark.parametrize(
    ("failure", "told"),
    [(StoreMisconfiguredError("NOPERM"), StoreMisconfiguredError), (ZeroDivisionError("a defect"), FencedError)],
)
async def test_what_no_repeat_mends(start: Activations, failure: Exception, told: type[ConversationError]) -> None:
    """An error that is not of passing nature ends the activation, and its callers get a typed one."""
    store = FaultyStore()
    owner = await start(store)
    store.append_faults.append(failure)
    assert type(await outcome(owner, append("u0"))) is told
    assert type(await owner.stopped) is told
    assert len(store.appends) == 1
    later = await outcome(owner, append("u1"))
    assert isinstance(later, ActivationLostError), "what is the case now, the next activation finds out"
    assert str(failure) in str(later)


# A store that forgot


async def test_heals_a_store_that_lost_everything(start: Activations) -> None:
    """After a restart of the store without its data, the owner restores it from memory; then the write lands."""
    store = FaultyStore()
    owner = await start(store)
    for number in range(3):
        await done(owner, append(f"u{number}"))
    store.lose_everything()
    assert (await done(owner, append("u3"))).seq == 4
    assert store.snapshots == [3]
    state, recovered = await stored(store)
    assert (ids(state), recovered.seq) == (["u0", "u1", "u2", "u3"], 4)
    assert "request-u0" in state.requests


async def test_what_the_store_lost_waits_for_the_archive_again(start: Activations) -> None:
    """All that is remembered of it, and before the conversation is restored: a crash in between loses nothing."""
    store = FaultyStore(archive=Bounds(1 << 20, timedelta(hours=1)))
    owner = await start(store)
    for number in range(3):
        await done(owner, append(f"u{number}"))
    before = await waiting_records(store)
    assert len(before) == 3
    store.lose_everything()
    store.hold_snapshots()
    async with asyncio.TaskGroup() as group:
        group.create_task(done(owner, append("u3")))
        await until(lambda: store.snapshots == [3])
        assert await store.head("c") is None
        assert await waiting_records(store) == before
        store.release()
    assert (await waiting_records(store))[:3] == before
    assert len(await waiting_records(store)) == 4


async def test_what_is_to_be_forgotten_does_not_wait_again(start: Activations) -> None:
    """The archive may have forgotten it by now: only what says so is told again, and what came after it."""
    store = FaultyStore(archive=Bounds(1 << 20, timedelta(hours=1)))
    owner = await start(store)
    await done(owner, append("u0", "secret"))
    await done(owner, Request("clear", ClearHistory()))
    await done(owner, append("u1"))
    store.lose_everything()
    await done(owner, append("u2"))
    entries = [decode_entry(record.data or b"") for record in await waiting_records(store)]
    assert [entry.seq for entry in entries] == [2, 3, 4]


async def test_a_deposed_owner_lets_nothing_wait_again(start: Activations) -> None:
    """It finds that out by its first write, and stops."""
    store = FaultyStore(archive=Bounds(1 << 20, timedelta(hours=1)))
    owner = await start(store)
    await done(owner, append("u0"))
    store.lose_everything()
    await store.activate("c", owner="another life", create=True, ttl=timedelta(days=1))
    store.append_faults.append(Outcome.GAP)
    assert isinstance(await outcome(owner, append("u1")), ConversationError)
    assert isinstance(await owner.stopped, FencedError)
    assert await waiting_records(store) == []
    assert store.snapshots == []


async def test_heals_a_store_that_fell_behind(start: Activations) -> None:
    """After a failover to a replica that lagged, acknowledged entries are there again."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    fail_over = store.remember()
    await done(owner, append("u1"))
    await done(owner, join("al"))
    fail_over()
    assert (await done(owner, append("u2"))).seq == 4
    state, recovered = await stored(store)
    assert (ids(state), recovered.seq, list(state.participants)) == (["u0", "u1", "u2"], 4, ["al"])
    assert [found.participants async for found in store.list()] == [("al",)]


async def test_a_fresh_read_heals_too(start: Activations) -> None:
    """A fresh read that finds the store empty restores it."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    store.lose_everything()
    assert (await owner.read(fresh=True)).seq == 1
    state, _ = await stored(store)
    assert ids(state) == ["u0"]


async def test_store_that_stays_behind_ends_the_activation(start: Activations) -> None:
    """A store that stays behind, whatever is written to it, ends the activation with a typed error: no endless loop."""
    store = FaultyStore()
    owner = await start(store)
    store.append_faults.extend([Outcome.GAP] * 1000)
    reply = await outcome(owner, append("u0"))
    assert isinstance(reply, CorruptStateError)
    assert reply.key
    assert await owner.stopped is reply
    assert (len(store.appends), len(store.snapshots)) == (4, 3)


async def test_newer_activation_wins_over_healing(start: Activations) -> None:
    """A newer activation that comes in the middle of the healing wins."""
    store = FaultyStore()
    owner = await start(store)
    store.append_faults.append(Outcome.GAP)
    store.snapshot_faults.append(Outcome.FENCED)
    assert isinstance(await outcome(owner, append("u0")), FencedError)
    assert isinstance(await owner.stopped, FencedError)


# Compaction


async def test_the_journal_stays_bounded(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a conversation is, no more than a bounded number of entries has to be replayed."""
    monkeypatch.setattr(committer, "COMPACT_ENTRIES", 5)
    store = FaultyStore()
    owner = await start(store, brief(items=4))
    longest = 0
    for number in range(40):
        await done(owner, append(f"u{number}"))
        await turns()
        longest = max(longest, store.journal)
    assert 4 <= longest <= 2 * 4
    assert len(store.snapshots) >= 70 // 8
    state, recovered = await stored(store)
    assert recovered.snapshot_seq + len(recovered.journal) == recovered.seq == 40 + 36
    assert ids(state) == [f"u{number}" for number in range(36, 40)]


async def test_the_journal_stays_bounded_in_bytes(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large entries are compacted sooner."""
    monkeypatch.setattr(committer, "COMPACT_BYTES", 4000)
    store = FaultyStore()
    owner = await start(store, brief(bytes=4096, item_bytes=1024))
    for number in range(40):
        await done(owner, append(f"u{number}", "x" * 800))
        await turns()
        assert store.journal < 20
    assert store.snapshots


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.BEFORE, Fault.AFTER])
async def test_compaction_survives_a_crash(start: Activations, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """A crash right before or right after the snapshot landed loses nothing and doubles nothing."""
    monkeypatch.setattr(committer, "COMPACT_ENTRIES", 8)
    store = FaultyStore()
    owner = await start(store, brief(items=4), timing=NEVER_AGAIN)
    store.snapshot_faults.append(fault)
    requests = [append(f"u{number}") for number in range(4)]
    for request in [*requests, append("u3", "changed", request_id="r"), join("al"), join("bo"), join("cy")]:
        await done(owner, request)
    await until(lambda: len(store.snapshots) >= 1)
    await turns()
    await owner.aclose()
    heir = await start(store, brief(items=4))
    assert (heir.info().recovered_from, heir.info().replayed) == ((8, 0) if fault is Fault.AFTER else (0, 8))
    state = decode_snapshot((await heir.read(fresh=True)).snapshot)
    assert (ids(state), list(state.participants)) == (["u0", "u1", "u2", "u3"], ["al", "bo", "cy"])
    assert [(await done(heir, request)).seq for request in requests] == [1, 2, 3, 4]


async def test_a_lost_answer_to_compaction(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction is repeated as well until it is decided, and writing goes on."""
    monkeypatch.setattr(committer, "COMPACT_ENTRIES", 8)
    store = FaultyStore()
    owner = await start(store, brief(items=4))
    store.snapshot_faults.extend([Fault.AFTER, Fault.BEFORE, Fault.AFTER])
    for number in range(10):
        await done(owner, join(f"p{number}"))
    assert store.snapshots == [8] * 4
    assert store.answers.count(Outcome.DUPLICATE) == 1
    assert store.journal == 2


async def test_owner_that_meets_its_successor_at_compaction_stops(
    start: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that learns of its successor when it compacts stops then; what it had acknowledged stays."""
    monkeypatch.setattr(committer, "COMPACT_ENTRIES", 8)
    store = FaultyStore()
    owner = await start(store, brief(items=4))
    store.snapshot_faults.append(Outcome.FENCED)
    for number in range(8):
        await done(owner, join(f"p{number}"))
    assert isinstance(await owner.stopped, FencedError)
    state, _ = await stored(store)
    assert len(state.participants) == 8


# Listings


async def test_joining_is_listed_and_other_writes_touch_no_listing(start: Activations) -> None:
    """Who takes part is listed when the join is answered; what changes nobody's presence touches no listing."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, join("al"))
    assert [found.conversation_id async for found in store.list(participant="al")] == ["c"]
    indexed = len(store.indexed)
    await done(owner, append("u0"))
    await done(owner, Request("again", JoinParticipant(identity="al", device_id="phone")))
    assert len(store.indexed) == indexed


async def test_listings_show_the_latest_activity(start: Activations) -> None:
    """A conversation that goes on for long is entered anew by the upkeep: it is neither last in the list nor gone."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.04))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=60))
    await until(lambda: len(store.indexed) == 1)
    await done(owner, append("u0"))
    await until(lambda: len(store.indexed) == 2)
    poll.cancel()


async def test_a_damaged_listing_stops_nobody(start: Activations) -> None:
    """What only a person can mend about a listing is no reason to refuse, or to lose, a conversation."""
    store = FaultyStore()
    store.index_fault = StoreMisconfiguredError("WRONGTYPE")
    owner = await start(store)
    assert (await done(owner, join("al"))).seq == 1
    assert (await done(owner, append("u0"))).seq == 2
    assert not owner.stopped.done()


async def test_a_forgotten_participant_leaves_the_listing(start: Activations) -> None:
    """Identities beside the conversation are those of its participants, after one was forgotten for another."""
    store = FaultyStore()
    owner = await start(store, brief(participants=1))
    await done(owner, join("al"))
    await done(owner, Request("leave", LeaveParticipant("al")))
    await done(owner, join("bo"))
    assert [found.participants async for found in store.list()] == [("bo",)]


async def test_listings_hold_nothing_up(start: Activations) -> None:
    """A listing that cannot be written now fails nobody, and is written by the next upkeep."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.04))
    store.index_fault = StoreUnavailableError("another shard")
    await done(owner, join("al"))
    assert [found async for found in store.list()] == []
    store.index_fault = None
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=60))
    tries = len(store.indexed)
    await until(lambda: len(store.indexed) > tries)
    await turns()
    assert [found.participants async for found in store.list(participant="al")] == [("al",)]
    poll.cancel()


async def test_a_position_that_was_shown_can_be_watched(start: Activations) -> None:
    """While a listing is slow, whoever has read the durable state can poll from there: the position is not lost."""
    store = FaultyStore()
    owner = await start(store)
    store.hold_index()
    joining = asyncio.create_task(execute(owner, join("al")))
    await until(lambda: bool(store.indexed))
    view = await owner.read(fresh=False)
    assert (await owner.poll(watcher="w", after_seq=view.seq, timeout=0.001)).entries == ()
    polled = await owner.poll(watcher="w", after_seq=0, timeout=5)
    assert [decode_entry(data).seq for data in polled.entries] == [1]
    store.release()
    await joining


# The state it owns


async def test_what_cannot_be_stored_poisons_nothing(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose entry cannot be encoded (a defect: none is known) leaves no trace in what comes after it."""

    def encode(entry: Entry) -> bytes:
        if entry.request_id == "bad":
            message = "not JSON"
            raise ValueError(message)
        return encode_entry(entry)

    monkeypatch.setattr(committer, "encode_entry", encode)
    store = FaultyStore()
    owner = await start(store)
    with pytest.raises(ValueError, match="JSON"):
        await execute(owner, append("u0"), append("u1", request_id="bad"))
    assert (await done(owner, append("u2"))).seq == 2
    assert (await done(owner, append("u0"))).seq == 1
    assert not store.snapshots


async def test_what_cannot_be_applied_is_acknowledged_to_nobody(
    start: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The durable state comes before the answer: where it cannot follow (a defect: none is known), the owner ends."""
    owner = await start(FaultyStore())
    await done(owner, append("u0"))

    def apply(entry: Entry) -> None:
        message = f"entry {entry.seq} cannot be applied"
        raise ValueError(message)

    monkeypatch.setattr(owner._committer.durable, "apply", apply)
    told = await outcome(owner, append("u1"))
    assert isinstance(told, FencedError)
    assert "cannot be applied" in str(told)


async def test_faulty_store_left_alone_is_a_memory_store() -> None:
    """The faulty store, left alone, is a MemoryStore."""
    plain, faulty = MemoryStore(), FaultyStore()
    ttl = brief().ttl
    for store in (plain, faulty):
        claim = (await store.activate("c", owner="o", create=True, ttl=ttl)).claim
        assert await store.append(claim, expected_seq=0, entries=[b"1"], ttl=ttl) is Outcome.OK
    assert faulty.landed == {1: b"1"}
