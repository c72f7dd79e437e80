"""One owner's life: recovery, bounds, request memory, time, polling, passivation."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors.activation import Activation, activation, committer
from conversation_actors.activation.passing_time import ForgottenRequests
from conversation_actors.activation.recovery import rebuild
from conversation_actors.codec import decode_entry, decode_snapshot, encode_entry, encode_snapshot
from conversation_actors.errors import (
    ConflictError,
    ConversationNotFoundError,
    CorruptStateError,
    FencedError,
    IncompatibleVersionError,
    LeaseHeldError,
    LeaseLostError,
    OutcomeUnknownError,
    OverloadedError,
    PassivatedError,
    PositionLostError,
    StoreUnavailableError,
)
from conversation_actors.protocol import Done, Request
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    ConversationState,
    Entry,
    Guard,
    ItemsAppended,
    JoinParticipant,
    Lease,
    Limits,
    Participant,
    SetAttributes,
)
from conversation_actors.store import Claim, Outcome, Recovered
from tests.support.fakes import (
    PATIENCE,
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
from tests.support.strategies import message


async def failing(owner: Activation) -> None:
    """Return when the store has failed for longer than a write may take."""

    def refuses() -> bool:
        try:
            owner._committer.patience.raise_if_failing_for(owner._settings.timeouts.write.total_seconds())
        except StoreUnavailableError:
            return True
        return False

    await until(refuses)


# A store that is away


async def test_write_takes_no_longer_than_configured(start: Activations) -> None:
    """A caller is told that the outcome is unknown after `timeouts.write`; its repeat finds the one result."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.02))
    store.is_down = True
    (reply,) = (await execute(owner, append("u0"))).replies
    assert isinstance(reply, OutcomeUnknownError)
    store.is_down = False
    await until(lambda: owner.info().pending == 0)
    assert (await done(owner, append("u0"))).seq == 1
    state, recovered = await stored(store)
    assert (ids(state), recovered.seq) == (["u0"], 1)


async def test_nothing_overtakes_a_refused_group(start: Activations) -> None:
    """What is behind it in its call is not decided, so that its sender can send the group's members before."""
    owner = await start(FaultyStore())
    await done(owner, append("u0"))
    other_role = AppendItems((message("u1"), message("u0", role="assistant")))
    executed = await execute(owner, append("u2"), Request("g", other_role, is_group=True), append("u3"))
    assert [type(reply) for reply in executed.replies] == [Done, ConflictError]
    executed = await execute(owner, Request("s", other_role), append("u3"))
    assert [type(reply) for reply in executed.replies] == [ConflictError, Done], "a single one holds nobody up"
    assert ids(decode_snapshot((await owner.read(fresh=False)).snapshot)) == ["u0", "u2", "u3"]


async def test_only_what_is_durable_is_told(start: Activations) -> None:
    """When time is up in the middle of a call, replies that speak of durable positions leave, the others don't."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.02))
    await done(owner, append("u0"))
    store.is_down = True
    replies = (await execute(owner, append("u0"), append("u1"), append("u0"))).replies
    assert [type(reply) for reply in replies] == [Done, OutcomeUnknownError, OutcomeUnknownError]


async def test_fails_fast_while_the_store_is_away(start: Activations) -> None:
    """Once the store has failed for `timeouts.write`, commands are refused at once; reads go on from memory."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.02))
    await done(owner, append("u0"))
    store.is_down = True
    await execute(owner, append("u1"))
    await failing(owner)
    refused = asyncio.create_task(execute(owner, append("u2")))
    await turns()
    assert isinstance(refused.exception(), StoreUnavailableError)
    assert ids(decode_snapshot((await owner.read(fresh=False)).snapshot)) == ["u0"]
    assert len((await owner.poll(watcher="w", after_seq=0, timeout=0.0)).entries) == 1
    store.is_down = False
    await until(lambda: owner.info().pending == 0)
    assert (await done(owner, append("u2"))).seq == 3
    state, _ = await stored(store)
    assert ids(state) == ["u0", "u1", "u2"]


async def test_a_fresh_read_waits_no_longer_than_configured(start: Activations) -> None:
    """A fresh read of a store that is away raises after `timeouts.write`."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.02))
    store.append_faults.append(Fault.HANG)
    with pytest.raises(StoreUnavailableError):
        await owner.read(fresh=True)
    assert (await owner.read(fresh=True)).seq == 0


async def test_a_fresh_read_that_gave_up_blocks_no_command(start: Activations) -> None:
    """After a fresh read has failed on a store that was away, commands are taken again: they find it well."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.02))
    store.is_down = True
    with pytest.raises(StoreUnavailableError):
        await owner.read(fresh=True)
    store.is_down = False
    assert (await done(owner, append("u0"))).seq == 1


async def test_a_cancelled_caller_changes_nothing(start: Activations) -> None:
    """A caller that leaves while its write is on its way takes nothing back, and disturbs nobody."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    leaves = asyncio.create_task(execute(owner, append("u0")))
    stays = asyncio.create_task(execute(owner, append("u1")))
    await turns()
    leaves.cancel()
    store.release()
    (reply,) = (await stays).replies
    assert isinstance(reply, Done)
    assert (reply.seq, (await done(owner, append("u0"))).seq) == (2, 1)


# Bounds


async def test_pending_bytes_are_bounded(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much waits for the store, commands are refused with the limit in the text, and nothing is taken."""
    monkeypatch.setattr(committer, "MAX_PENDING_BYTES", 3000)
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    waiting = [asyncio.create_task(execute(owner, append(f"u{number}", "x" * 1500))) for number in range(3)]
    await turns()
    accepted = owner.info().pending
    with pytest.raises(OverloadedError, match="3000"):
        await execute(owner, append("one too many"))
    assert owner.info().pending == accepted
    store.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(not isinstance(result, OverloadedError) for result in results) == accepted
    assert (await done(owner, append("later"))).seq == accepted + 1


async def test_one_parked_poll_too_many_is_refused(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parked poll too many is refused; the others stay."""
    monkeypatch.setattr(activation, "MAX_WATCHERS", 2)
    owner = await start(FaultyStore())
    parked = [asyncio.create_task(owner.poll(watcher=name, after_seq=0, timeout=5)) for name in "ab"]
    await turns()
    with pytest.raises(OverloadedError):
        await owner.poll(watcher="c", after_seq=0, timeout=5)
    assert owner.info().watchers == 2
    await done(owner, append("u0"))
    assert [len(polled.entries) for polled in await asyncio.gather(*parked)] == [1, 1]


# Request memory


async def test_repeat_while_in_flight(start: Activations) -> None:
    """A repeat that overtakes its first attempt gets the same result, and no second entry."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    both = [asyncio.create_task(execute(owner, append("u0"))) for _ in range(2)]
    await turns()
    store.release()
    first, second = [executed.replies for executed in await asyncio.gather(*both)]
    assert first == second
    assert sorted(store.landed) == [1]


async def test_repeat_after_the_state_has_moved_on(start: Activations) -> None:
    """A repeat returns the first result although the state would decide otherwise by now."""
    owner = await start(FaultyStore())
    joined = Request("r", JoinParticipant(identity="al", device_id="web", name="Al"))
    first = await done(owner, joined)
    await done(owner, Request("s", JoinParticipant(identity="al", device_id="phone", name="Alice")))
    again = await done(owner, joined)
    assert again == first
    assert isinstance(again.result, Participant)
    assert again.result.devices == ("web",)


@pytest.mark.parametrize("passivated", [False, True], ids=["journal", "snapshot"])
async def test_next_activation_recognises_a_repeat(start: Activations, *, passivated: bool) -> None:
    """The next activation knows a repeat too, whether it recovers from the journal or from a snapshot."""
    store = FaultyStore()
    owner = await start(store)
    lease = Request("r", AcquireLease("agent", "me", 60.0))
    first, appended = await done(owner, lease), await done(owner, append("u0"))
    await (owner.passivate() if passivated else owner.aclose())
    heir = await start(store)
    assert heir.info().replayed == (0 if passivated else 2)
    assert (await done(heir, lease), await done(heir, append("u0"))) == (first, appended)
    assert isinstance(first.result, Lease)
    assert sorted(store.landed) == [1, 2]


async def test_request_id_of_another_kind_of_command_is_a_conflict(start: Activations) -> None:
    """A request id that stood for another kind of command is a conflict, and changes nothing."""
    owner = await start(FaultyStore())
    await done(owner, append("u0", request_id="r"))
    (reply,) = (await execute(owner, Request("r", SetAttributes({"a": 1})))).replies
    assert isinstance(reply, ConflictError)
    assert owner.info().seq == 1


async def test_request_memory_is_bounded(start: Activations) -> None:
    """Of more requests than the settings say, the oldest is forgotten: its repeat is decided anew."""
    owner = await start(FaultyStore(), brief(requests=500))
    await execute(owner, *(Request(f"r{number}", SetAttributes({"n": number})) for number in range(501)))
    assert (await done(owner, Request("r1", SetAttributes({"n": 1})))).seq == 2
    assert (await done(owner, Request("r0", SetAttributes({"n": 0})))).seq == 502


async def test_a_command_with_no_effect(start: Activations) -> None:
    """What is the case already is remembered as well: a repeat gets the first result, whatever has happened since."""
    owner = await start(FaultyStore())
    await done(owner, append("u0"))
    same = append("u0", request_id="same")
    first = await done(owner, same)
    await done(owner, append("u0", "changed", request_id="change"))
    assert await done(owner, same) == first
    state = decode_snapshot((await owner.read(fresh=False)).snapshot)
    assert b"changed" in next(iter(state.window)).data


# Passivation


async def test_passivation_saves_what_was_decided_and_stops(start: Activations) -> None:
    """Passivation takes along what was decided, saves a snapshot and stops; the next one replays nothing."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    writing = asyncio.create_task(execute(owner, append("u0")))
    await turns()
    leaving = asyncio.create_task(owner.passivate())
    await turns()
    for call in (execute(owner, append("u1")), owner.read(fresh=False), owner.passivate()):
        with pytest.raises(PassivatedError):
            await call
    store.release()
    (reply,) = (await writing).replies
    assert isinstance(reply, Done)
    await leaving
    assert isinstance(await owner.stopped, PassivatedError)
    heir = await start(store)
    info = heir.info()
    assert (info.epoch, info.seq, info.recovered_from, info.replayed) == (2, 1, 1, 0)


async def test_passivate_writes_no_second_snapshot(start: Activations) -> None:
    """Where the snapshot is as new as the state, passivation makes sure that it is there, and writes no other."""
    store = FaultyStore()
    await done(owner := await start(store), append("u0"))
    await owner.passivate()
    heir = await start(store)
    await heir.passivate()
    assert store.snapshots == [1]
    assert store.appends[-1] == (1, ())


async def test_passivate_mends_what_the_store_has_lost(start: Activations) -> None:
    """Also where there is nothing new to save: nobody will know what was lost when this owner is gone."""
    store = FaultyStore()
    await done(owner := await start(store), append("u0"))
    await owner.passivate()
    heir = await start(store)
    store.lose_everything()
    await heir.passivate()
    state, _ = await stored(store)
    assert ids(state) == ["u0"]


@pytest.mark.parametrize("at", ["entry", "snapshot"])
async def test_passivate_with_a_hung_store(start: Activations, at: str) -> None:
    """A passivation that the store does not let happen raises, and the activation goes on as before."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.03))
    if at == "entry":
        store.hold()
    else:
        await done(owner, append("u0"))
        store.snapshot_faults.append(Fault.HANG)
    writing = asyncio.create_task(execute(owner, append("u0")))
    await turns()
    with pytest.raises(StoreUnavailableError):
        await owner.passivate()
    assert not owner.stopped.done()
    store.release()
    await writing
    assert (await done(owner, append("u1"))).seq == 2
    await owner.passivate()
    assert owner.stopped.done()


async def test_passivation_survives_being_looked_after(start: Activations) -> None:
    """The regular upkeep, due in the middle of a slow passivation, does not end it."""
    store = FaultyStore()
    owner = await start(store, brief(write=0.1, idle=0.02, ttl=60.0))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await turns()
    store.hold()
    writing = asyncio.create_task(execute(owner, append("u0")))
    await turns()
    with pytest.raises(StoreUnavailableError):
        await owner.passivate()
    assert not owner.stopped.done()
    store.release()
    await until(lambda: 1 in store.landed)
    await asyncio.gather(writing, poll, return_exceptions=True)


async def test_a_cancelled_passivation_leaves_the_activation_working(start: Activations) -> None:
    """Whoever gives up a passivation (a node's shutdown has its own time) does not leave it in between."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    store.hold()
    leaving = asyncio.create_task(owner.passivate())
    await until(lambda: len(store.snapshots) >= 1)
    leaving.cancel()
    await asyncio.wait({leaving})
    store.release()
    assert (await done(owner, append("u1"))).seq == 2


async def test_owner_that_meets_its_successor_at_passivation_stops_with_that_reason(start: Activations) -> None:
    """An owner that learns of its successor when it passivates stops with that reason."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    await start(store)
    with pytest.raises(FencedError):
        await owner.passivate()
    assert isinstance(await owner.stopped, FencedError)


async def test_owner_that_nobody_uses_passivates_by_itself(start: Activations) -> None:
    """An owner that nobody asks or watches saves a snapshot and stops by itself."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.04))
    await done(owner, append("u0"))
    async with asyncio.timeout(5):
        assert isinstance(await owner.stopped, PassivatedError)
    assert store.snapshots == [1]
    async with asyncio.timeout(5):
        await owner.aclose()


async def test_a_poll_keeps_it_awake(start: Activations) -> None:
    """While somebody polls, an owner is not idle; once nobody does, it is."""
    store = FaultyStore(clock=lambda: 0.0)  # where the machine is busy, the upkeep comes late, and nothing has expired
    owner = await start(store, brief(idle=0.02, ttl=0.1))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await until(lambda: len(store.appends) >= 3)  # upkeep has come and gone, after more than `idle`
    assert not owner.stopped.done()
    poll.cancel()
    async with asyncio.timeout(5):
        assert isinstance(await owner.stopped, PassivatedError)


async def test_what_is_only_watched_does_not_expire(start: Activations) -> None:
    """What is only watched does not expire: the TTL is refreshed without a write, again and again."""
    now = [0.0]
    store = FaultyStore(clock=lambda: now[0])
    owner = await start(store, brief(idle=0.02, ttl=0.1))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    for _ in range(3):
        refreshed = len(store.answers)
        now[0] += 0.08
        await until(lambda seen=refreshed: len(store.answers) > seen)  # type: ignore[misc]
        assert await store.head("c") is not None
    assert set(store.appends) == {(0, ())}
    assert store.snapshots == []
    assert [found.conversation_id async for found in store.list()] == ["c"]
    poll.cancel()


async def test_upkeep_finds_the_fence(start: Activations) -> None:
    """An owner that nobody asks learns by its upkeep that it has been replaced."""
    store = FaultyStore(clock=lambda: 0.0)  # where the machine is busy, the upkeep comes late, and nothing has expired
    owner = await start(store, brief(idle=0.02, ttl=0.1))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await turns()
    await start(store)
    with pytest.raises(FencedError):
        await poll
    assert isinstance(await owner.stopped, FencedError)


@pytest.mark.parametrize("lost", ["deleted", "replaced"])
async def test_upkeep_finds_out_long_before_the_time_is_up(start: Activations, lost: str) -> None:
    """Who is only watched writes nothing for a quarter of the retention; that it owns nothing any more is seen before.

    So whoever deletes a conversation need not reach its owner.
    """
    store = FaultyStore(clock=lambda: 0.0)
    owner = await start(store, brief(idle=0.2, ttl=3600))
    await done(owner, append("u0"))
    poll = asyncio.create_task(owner.poll(watcher="w", after_seq=1, timeout=600))
    await turns()
    if lost == "deleted":
        await store.delete("c", ttl=timedelta(hours=1))
    else:
        await start(store)
    async with asyncio.timeout(60):
        with pytest.raises(FencedError):
            await poll
        assert isinstance(await owner.stopped, FencedError)


async def test_upkeep_survives_an_outage(start: Activations) -> None:
    """A store that is away when an idle owner wants to leave postpones that; it leaves when the store is back."""
    store = FaultyStore()
    owner = await start(store, brief(idle=0.02, write=0.01))
    await done(owner, append("u0"))
    store.is_down = True
    await until(lambda: len(store.snapshots) >= 2)
    assert not owner.stopped.done()
    store.is_down = False
    async with asyncio.timeout(5):
        assert isinstance(await owner.stopped, PassivatedError)


async def test_aclose_answers_those_who_wait(start: Activations) -> None:
    """Stopping at once leaves nobody waiting: undecided callers and parked polls are told."""
    store = FaultyStore()
    owner = await start(store)
    store.hold()
    writing = asyncio.create_task(execute(owner, append("u0")))
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await turns()
    await owner.aclose()
    results = await asyncio.gather(writing, parked, return_exceptions=True)
    assert [type(result) for result in results] == [PassivatedError, PassivatedError]


# Recovery


def entry(seq: int, identity: str = "u") -> bytes:
    """Return an encoded entry."""
    return encode_entry(Entry(seq, 1, 1.0, ItemsAppended((message(f"{identity}{seq}"),))))


def recovered(*journal: bytes, seq: int, snapshot: bytes | None = None, snapshot_seq: int = 0) -> Recovered:
    """Return what a store might hold."""
    claim, left = Claim("c", 2, "o"), timedelta(days=1)
    return Recovered(claim, seq, snapshot_seq, snapshot, journal, created=False, left=left, at=1000.0)


def snapshot_at(seq: int) -> bytes:
    """Return a snapshot with one item for each entry."""
    state = ConversationState()
    for number in range(1, seq + 1):
        state.apply(decode_entry(entry(number)))
    return encode_snapshot(state)


async def test_nothing_is_recovered_where_nothing_is_stored(start: Activations) -> None:
    """Without `create` there must be something to recover."""
    with pytest.raises(ConversationNotFoundError):
        await start(FaultyStore(), create=False)


async def test_facts_tell_where_it_was_recovered_from(start: Activations) -> None:
    """The facts say where it was recovered from, and every activation has the next epoch."""
    store = FaultyStore()
    for number in range(3):
        owner = await start(store)
        assert (owner.info().epoch, owner.info().seq, owner.info().replayed) == (number + 1, number, number)
        await done(owner, append(f"u{number}"))
        await owner.aclose()


def test_state_is_rebuilt_from_snapshot_and_journal() -> None:
    """Snapshot and journal give the state; entries before the snapshot, kept for watchers, are not replayed."""
    for given, replayed in (
        (recovered(seq=0), 0),
        (recovered(entry(1), entry(2), entry(3), seq=3), 3),
        (recovered(entry(3), seq=3, snapshot=snapshot_at(2), snapshot_seq=2), 1),
        (recovered(entry(2), entry(3), seq=3, snapshot=snapshot_at(2), snapshot_seq=2), 1),
        (recovered(seq=3, snapshot=snapshot_at(3), snapshot_seq=3), 0),
    ):
        state, count = rebuild(given, Limits())
        assert (state.seq, count) == (given.seq, replayed)
        assert ids(state) == [f"u{number}" for number in range(1, given.seq + 1)]


@pytest.mark.parametrize(
    ("given", "key", "position"),
    [
        (recovered(seq=1, snapshot=b'{"v":1', snapshot_seq=1), "conv:default:{c}:snapshot", 6),
        (recovered(seq=1, snapshot=snapshot_at(1)[:-3], snapshot_seq=1), "conv:default:{c}:snapshot", None),
        (recovered(entry(1), b'{"v":1,"seq":\xff}', seq=2), "conv:default:{c}:journal[1]", 13),
        (recovered(entry(1), b"", seq=2), "conv:default:{c}:journal[1]", 0),
        (recovered(entry(1), entry(3), seq=3), "conv:default:{c}:journal[", 0),
        (recovered(entry(1), entry(1), seq=2), "conv:default:{c}:journal[1]", 0),
        (recovered(entry(2), entry(3), seq=3), "conv:default:{c}:", 0),
        (recovered(entry(1), seq=2), "conv:default:{c}:", 0),
        (recovered(entry(3), seq=3, snapshot=snapshot_at(1), snapshot_seq=1), "conv:default:{c}:", 0),
        (recovered(seq=3, snapshot=snapshot_at(2), snapshot_seq=2), "conv:default:{c}:snapshot", 0),
    ],
    ids=[
        "cut snapshot",
        "cut item",
        "not utf-8",
        "empty entry",
        "missing in the middle",
        "twice",
        "missing first",
        "missing last",
        "missing after snapshot",
        "no journal",
    ],
)
def test_damage_is_told_by_key_and_byte(given: Recovered, key: str, position: int | None) -> None:
    """What cannot be read, or does not fit together, is told with the key and the byte; never skipped."""
    with pytest.raises(CorruptStateError) as error:
        rebuild(given, Limits())
    assert error.value.key.startswith(key)
    assert str(error.value).startswith(key)
    assert position is None or error.value.position == position
    assert position is not None or error.value.position > 10


@pytest.mark.parametrize("part", ["snapshot", "journal"])
def test_what_a_newer_version_wrote_is_not_called_damage(part: str) -> None:
    """What a newer version wrote is told as such, and not as damage."""
    newer = b'{"v":999}'
    given = recovered(newer, seq=1) if part == "journal" else recovered(seq=1, snapshot=newer, snapshot_seq=1)
    with pytest.raises(IncompatibleVersionError, match="999"):
        rebuild(given, Limits())


async def test_corruption_does_not_start(start: Activations) -> None:
    """An activation on damaged state raises and writes nothing."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    await owner.aclose()
    store.inner._conversations["c"].journal[0] = b"{"
    writes = store.writes
    with pytest.raises(CorruptStateError):
        await start(store)
    assert store.writes == writes


# Time


async def test_time_never_goes_back(start: Activations) -> None:
    """A clock that goes back is not believed: `at` stays where it was, in this activation and in the next."""
    now = [100.0]
    store = FaultyStore(clock=lambda: now[0])
    owner = await start(store, elapsed=lambda: now[0])
    for number, moment in enumerate((100.0, 50.0, 120.0)):
        now[0] = moment
        await done(owner, append(f"u{number}"))
    await owner.aclose()
    now[0] = 10.0
    heir = await start(store, elapsed=lambda: now[0])
    await done(heir, append("u3"))
    assert [decode_entry(data).at for _, data in sorted(store.landed.items())] == [100.0, 100.0, 120.0, 120.0]


async def test_no_node_is_asked_for_the_time(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three owners on nodes an hour ahead, right, and an hour behind date what they write by the store's clock."""
    now = [5000.0]
    store = FaultyStore(clock=lambda: now[0])
    for number, ahead in enumerate((3600.0, 0.0, -3600.0)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: now[0] + ahead)
        owner = await start(store, elapsed=lambda: now[0])
        now[0] += 1
        await done(owner, append(f"u{number}"))
        await owner.aclose()
    assert [decode_entry(data).at for _, data in sorted(store.landed.items())] == [5001.0, 5002.0, 5003.0]


async def test_a_lease_lasts_as_long_as_it_was_taken_for(start: Activations) -> None:
    """Also where the store's clock was an hour ahead when it was taken, and is right again: not an hour more."""
    now, elapsed = [9000.0], [0.0]
    store = FaultyStore(clock=lambda: now[0])
    owner = await start(store, elapsed=lambda: elapsed[0])
    await done(owner, Request("r1", AcquireLease("agent", "one", 10.0)))
    await owner.aclose()
    now[0] = 5400.0
    heir = await start(store, elapsed=lambda: elapsed[0])
    elapsed[0] = 9.9
    (reply,) = (await execute(heir, Request("r2", AcquireLease("agent", "two", 10.0)))).replies
    assert isinstance(reply, LeaseHeldError)
    elapsed[0] = 10.0
    assert (await done(heir, Request("r3", AcquireLease("agent", "two", 10.0)))).result is not None


async def test_a_store_whose_clock_jumps_makes_nobody_forget(start: Activations) -> None:
    """Requests are forgotten by an age that was measured: an hour that nobody lived through repeats no request."""
    now = [9000.0]
    store = FaultyStore(clock=lambda: now[0])
    owner = await start(store)
    first = await done(owner, append("u0"))
    await owner.aclose()
    for step in (3600.0, -3600.0, 48 * 3600.0):
        now[0] += step
        heir = await start(store)
        await done(heir, append(f"later {step}"))
        assert await done(heir, append("u0")) == first
        await heir.aclose()


async def test_requests_are_forgotten_when_they_are_old(start: Activations) -> None:
    """By what the owner has measured, and not before; what is forgotten would happen again."""
    now = [0.0]
    owner = await start(FaultyStore(), brief())
    owner._forgotten = ForgottenRequests(60.0, elapsed=lambda: now[0])
    states = (owner._decider.working, owner._committer.durable)
    await done(owner, append("u0"))
    for moment in (0.0, 30.0, 59.9):
        now[0] = moment
        owner._forgotten.forget(states)
    await done(owner, append("u1"))
    assert all(set(state.requests) == {"request-u0", "request-u1"} for state in states)
    now[0] = 60.0
    owner._forgotten.forget(states)
    assert all(set(state.requests) == {"request-u1"} for state in states)


async def test_leases_end_by_the_clock(start: Activations) -> None:
    """A lease holds until the clock has passed it; a clock that goes back does not end it sooner or later."""
    now = [100.0]
    store = FaultyStore(clock=lambda: now[0])
    owner = await start(store, elapsed=lambda: now[0])
    first = await done(owner, Request("r1", AcquireLease("agent", "one", 10.0)))
    assert isinstance(first.result, Lease)
    assert first.result.expires_at == 110.0
    for number, moment in enumerate((109.9, 20.0)):
        now[0] = moment
        (reply,) = (await execute(owner, Request(f"r2{number}", AcquireLease("agent", "two", 10.0)))).replies
        assert isinstance(reply, LeaseHeldError)
        assert (reply.holder, reply.expires_at) == ("one", 110.0)
    now[0] = 110.0
    second = await done(owner, Request("r3", AcquireLease("agent", "two", 10.0)))
    assert isinstance(second.result, Lease)
    assert second.result.token > first.result.token


async def test_a_deposed_writer_is_refused(start: Activations) -> None:
    """The next activation knows as well which token is the present one; a refusal writes nothing."""
    store = FaultyStore()
    owner = await start(store)
    first = await done(owner, Request("r1", AcquireLease("agent", "one", 60.0)))
    assert isinstance(first.result, Lease)
    guard = Guard("agent", first.result.token, "one", first.result.life)
    await done(owner, Request("r2", SetAttributes({"a": 1}), guard))
    await done(owner, Request("r3", AcquireLease("agent", "two", 60.0, replacing="one")))
    await owner.aclose()
    heir = await start(store)
    (reply,) = (await execute(heir, Request("r4", SetAttributes({"a": 2}), guard))).replies
    assert isinstance(reply, LeaseLostError)
    assert (reply.name, reply.token, sorted(store.landed)) == ("agent", 1, [1, 2, 3])


async def test_what_a_deposed_writer_did_before_is_still_answered(start: Activations) -> None:
    """A repeat gets its first result from memory: the command happened while the lease was its own."""
    owner = await start(FaultyStore())
    lease = (await done(owner, Request("r1", AcquireLease("agent", "one", 60.0)))).result
    assert isinstance(lease, Lease)
    write = Request("r2", SetAttributes({"a": 1}), Guard("agent", 1, "one", lease.life))
    first = await done(owner, write)
    await done(owner, Request("r3", AcquireLease("agent", "two", 60.0, replacing="one")))
    assert await done(owner, write) == first


# Polling


async def test_poll_brings_what_becomes_durable(start: Activations) -> None:
    """A parked poll brings what becomes durable; from an older position entries come at once."""
    owner = await start(FaultyStore())
    parked = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await turns()
    assert owner.info().watchers == 1
    await done(owner, append("u0"))
    assert [decode_entry(data).seq for data in (await parked).entries] == [1]
    await done(owner, append("u1"))
    again = await owner.poll(watcher="w", after_seq=0, timeout=60)
    assert [decode_entry(data).seq for data in again.entries] == [1, 2]


async def test_poll_that_nothing_happens_to_returns_nothing(start: Activations) -> None:
    """A poll that nothing happens to returns with nothing."""
    owner = await start(FaultyStore())
    assert (await owner.poll(watcher="w", after_seq=0, timeout=0.001)).entries == ()


async def test_second_poll_of_a_watcher(start: Activations) -> None:
    """A watcher that polls again, because it lost its answer, ends its first poll with nothing."""
    owner = await start(FaultyStore())
    first = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    await turns()
    second = asyncio.create_task(owner.poll(watcher="w", after_seq=0, timeout=60))
    assert (await first).entries == ()
    await done(owner, append("u0"))
    assert len((await second).entries) == 1


async def test_positions_that_are_lost(start: Activations) -> None:
    """A position that was never reached, or is not kept any more, raises and tells where it goes on."""
    store = FaultyStore()
    owner = await start(store)
    await done(owner, append("u0"))
    await owner.passivate()
    with pytest.raises(PositionLostError):
        await (heir := await start(store)).poll(watcher="w", after_seq=2, timeout=60)
    store.inner._conversations["c"].journal.clear()
    store.inner._conversations["c"].first = 1
    heir = await start(store)
    with pytest.raises(PositionLostError) as lost:
        await heir.poll(watcher="w", after_seq=0, timeout=60)
    assert lost.value.first_available == 1


async def test_entries_survive_the_activation(start: Activations) -> None:
    """A watcher finds its place in the next activation, although a snapshot was saved in between."""
    store = FaultyStore()
    owner = await start(store)
    for number in range(3):
        await done(owner, append(f"u{number}"))
    await owner.passivate()
    heir = await start(store)
    assert heir.info().replayed == 0
    polled = await heir.poll(watcher="w", after_seq=1, timeout=60)
    assert [decode_entry(data).seq for data in polled.entries] == [2, 3]


async def test_a_reply_spares_the_poll(start: Activations) -> None:
    """Whoever gets the entries with the reply is not woken for them; everybody else is."""
    owner = await start(FaultyStore())
    mine = asyncio.create_task(owner.poll(watcher="me", after_seq=0, timeout=60))
    other = asyncio.create_task(owner.poll(watcher="other", after_seq=0, timeout=60))
    await turns()
    executed = await execute(owner, append("u0"), watcher="me", after_seq=0)
    assert len(executed.entries) == 1
    assert len((await other).entries) == 1
    await turns()
    assert not mine.done()
    await execute(owner, append("u1"), watcher="other", after_seq=1)
    assert [decode_entry(data).seq for data in (await mine).entries] == [1, 2]


async def test_a_reply_takes_little_along(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too much is new for the reply, the poll is not spared: it brings the rest."""
    monkeypatch.setattr(activation, "REPLY_BYTES", 300)
    owner = await start(FaultyStore())
    poll = asyncio.create_task(owner.poll(watcher="me", after_seq=0, timeout=60))
    await turns()
    await execute(owner, *(append(f"u{n}", "x" * 150) for n in range(3)), watcher="other")
    executed = await execute(owner, append("u3", "x" * 150), watcher="me", after_seq=0)
    assert len(executed.entries) == 1
    assert len((await poll).entries) == 4
    assert len((await execute(owner, append("u4"), watcher="me", after_seq=4)).entries) == 1
    assert (await execute(owner, append("u5"), watcher="me", after_seq=99)).entries == ()


async def test_a_poll_takes_a_bounded_part(start: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher far behind gets its entries in parts, without a gap."""
    monkeypatch.setattr(activation, "POLL_BYTES", 1000)
    owner = await start(FaultyStore())
    await execute(owner, *(append(f"u{number}", "x" * 300) for number in range(10)))
    seen: list[int] = []
    while len(seen) < 10:
        part, _ = await owner.poll(watcher="w", after_seq=len(seen), timeout=60)
        assert 1 <= len(part) < 5
        seen += [decode_entry(data).seq for data in part]
    assert seen == list(range(1, 11))


async def test_two_reads_of_one_position_share_one_encoding(start: Activations) -> None:
    """Two reads of one position cost one encoding; the request memory is left out."""
    owner = await start(FaultyStore())
    await done(owner, append("u0"))
    view = await owner.read(fresh=False)
    assert await owner.read(fresh=True) is view
    assert decode_snapshot(view.snapshot).requests == {}
    await done(owner, append("u1"))
    assert (await owner.read(fresh=False)).seq == 2


class Deaf(FaultyStore):
    """Loses a cancellation that comes while it writes, as redis-py may up to Python 3.11."""

    def __init__(self) -> None:
        """Deaf once."""
        super().__init__()
        self.heard = False

    async def append(self, claim: Claim, **written: Any) -> Outcome:
        """See `Store.append`."""
        if written["entries"] and not self.heard:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE)
            self.heard = True
        return await super().append(claim, **written)


async def test_aclose_ends_what_did_not_hear_of_it(start: Activations) -> None:
    """A write that loses its cancellation does not keep a stopped owner from ending."""
    store = Deaf()
    owner = await start(store)
    writing = asyncio.create_task(execute(owner, append("u0")))
    await turns()
    async with asyncio.timeout(PATIENCE):
        await owner.aclose()
    assert store.heard
    with pytest.raises(PassivatedError):
        await writing
