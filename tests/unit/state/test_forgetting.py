"""Taking items out: before the answer nothing stored tells of them, whatever dies in between."""

import asyncio
import random
import re
from dataclasses import replace

import pytest

from conversation_actors.activation import Activation
from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.errors import PositionLostError
from conversation_actors.protocol import Done, Request
from conversation_actors.state import ClearHistory, ItemsRemoved, RemoveItems
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
from tests.support.quick import QUICK

SECRET = "4111 1111 1111 1111"


def remove(*identities: str, request_id: str = "remove") -> Request:
    """A request to take items out."""
    return Request(request_id, RemoveItems(identities))


async def with_secret(start: Activations, store: FaultyStore, *, timing: Timing = QUICK, **history: int) -> Activation:
    """An owner of a conversation in which a secret was said."""
    owner = await start(store, brief(**history), timing=timing)
    await done(owner, append("u0"))
    await done(owner, append("u1", SECRET))
    await done(owner, append("u2"))
    assert SECRET.encode() in store.content
    return owner


async def test_removed_items_are_stored_nowhere(start: Activations) -> None:
    """Neither in the journal nor in the snapshot, once it is acknowledged; the others are.

    Nor is the event: an owner of an older version, which does not know it, can open the conversation.
    """
    store = FaultyStore()
    owner = await with_secret(start, store)
    await done(owner, remove("u1"))
    assert SECRET.encode() not in store.content
    state, recovered = await stored(store)
    assert ids(state) == ["u0", "u2"]
    assert recovered.journal == ()


async def test_replaced_content_is_forgotten(start: Activations) -> None:
    """What an item was before it was replaced stays in the journal, until the past is forgotten."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    await done(owner, append("u1", "[card number]", request_id="replace"))
    assert SECRET.encode() in store.content
    await done(owner, remove())
    assert SECRET.encode() not in store.content
    assert ids((await stored(store))[0]) == ["u0", "u1", "u2"]


async def test_what_left_the_window_is_forgotten(start: Activations) -> None:
    """Entries of what has left the window hold it in full; an id that is not there any more can be removed."""
    store = FaultyStore()
    owner = await with_secret(start, store, items=4)
    for number in range(3, 8):
        await done(owner, append(f"u{number}"))
    assert SECRET.encode() in store.content
    await done(owner, remove("u1"))
    assert SECRET.encode() not in store.content


async def test_cleared_history_is_forgotten(start: Activations) -> None:
    """Who has everything dropped does not want it to be read in the journal."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    await done(owner, Request("clear", ClearHistory()))
    assert SECRET.encode() not in store.content


async def test_later_snapshots_keep_nothing_of_a_forgotten_past(start: Activations) -> None:
    """Entries are kept behind a snapshot for watchers: none from before the removal, by this owner or the next."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    await done(owner, remove("u1"))
    await done(owner, append("u3"))
    await owner.passivate()
    assert SECRET.encode() not in store.content
    owner = await start(store)
    await done(owner, append("u4"))
    await owner.passivate()
    _, recovered = await stored(store)
    assert SECRET.encode() not in store.content
    assert len(recovered.journal) == 2


async def test_answer_waits_until_it_is_forgotten(start: Activations) -> None:
    """A removal whose entry is stored and whose past is not forgotten yet is not acknowledged."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    store.hold_snapshots()
    removing = asyncio.create_task(execute(owner, remove("u1")))
    await until(lambda: len(store.snapshots) == 1)
    await turns()
    assert not removing.done()
    store.release()
    (reply,) = (await removing).replies
    assert isinstance(reply, Done)
    assert SECRET.encode() not in store.content


async def test_owner_that_dies_before_it_has_forgotten(start: Activations) -> None:
    """The next owner forgets before it answers a repeat of the request; nobody else has to ask."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    store.hold_snapshots()
    removing = asyncio.create_task(execute(owner, remove("u1")))
    await until(lambda: len(store.snapshots) == 1)
    await owner.aclose()
    removing.cancel()
    await asyncio.gather(removing, return_exceptions=True)
    assert SECRET.encode() in store.content
    heir = await start(store)
    repeat = asyncio.create_task(execute(heir, remove("u1")))
    await until(lambda: len(store.snapshots) == 2)
    await turns()
    assert not repeat.done()
    store.release()
    (reply,) = (await repeat).replies
    assert isinstance(reply, Done)
    assert SECRET.encode() not in store.content


async def test_store_that_fails_while_it_forgets(start: Activations) -> None:
    """It is tried again until it is done, and only then answered."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    store.snapshot_faults.extend([Fault.BEFORE, Fault.AFTER])
    await done(owner, remove("u1"))
    assert not store.snapshot_faults
    assert SECRET.encode() not in store.content


async def test_removal_is_repeated_without_effect(start: Activations) -> None:
    """The same request gives the first result; another one of the same items changes nothing more."""
    store = FaultyStore()
    owner = await with_secret(start, store)
    first = await done(owner, remove("u1"))
    assert await done(owner, remove("u1")) == first
    await done(owner, remove("u1", request_id="again"))
    assert ids((await stored(store))[0]) == ["u0", "u2"]


async def test_followers_are_told_and_latecomers_are_not(start: Activations) -> None:
    """Who is a moment behind reads on; from then on a position before the removal is lost."""
    owner = await with_secret(start, FaultyStore(), timing=replace(QUICK, forget=0.05))
    await done(owner, remove("u1"))
    polled = await owner.poll(watcher="w", after_seq=2, timeout=0.0)
    assert [decode_entry(data).seq for data in polled.entries] == [3, 4]

    await until(lambda: owner._recent.first_available == 3)
    with pytest.raises(PositionLostError):
        await owner.poll(watcher="w", after_seq=2, timeout=0.0)
    polled = await owner.poll(watcher="w", after_seq=3, timeout=0.0)
    assert [decode_entry(data).event for data in polled.entries] == [ItemsRemoved(("u1",))]


async def _say(owner: Activation, luck: random.Random, said: dict[str, str], step: int) -> None:
    identity, text = f"u{luck.randrange(6)}", f"secret-{step}."
    await done(owner, append(identity, text, request_id=f"say-{step}"))
    said[identity] = text


async def _removed_in_a_crash(
    start: Activations, store: FaultyStore, owner: Activation, request: Request, luck: random.Random
) -> Activation:
    """Ask, have the owner die at any moment of it, and ask the next one the same."""
    store.hold_snapshots()
    asking = asyncio.create_task(execute(owner, request))
    for _ in range(luck.randrange(12)):
        await asyncio.sleep(0)
    await owner.aclose()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    store.release()
    heir = await start(store, brief(items=4))
    await done(heir, request)
    return heir


@pytest.mark.parametrize("seed", range(25))
async def test_random_histories_keep_nothing_that_was_taken_out(start: Activations, seed: int) -> None:
    """Said, replaced, left behind or removed, over failing writes and dying owners: what is stored is what is there."""
    luck, store, said = random.Random(seed), FaultyStore(), dict[str, str]()
    owner = await start(store, brief(items=4))
    for step in range(40):
        match luck.choice(["say", "say", "say", "remove", "remove", "crash", "leave", "fail"]):
            case "say":
                await _say(owner, luck, said, step)
            case "fail":
                faults = [luck.choice([Fault.BEFORE, Fault.AFTER]) for _ in range(luck.randrange(1, 3))]
                luck.choice([store.append_faults, store.snapshot_faults]).extend(faults)
            case "leave":
                await owner.passivate()
                owner = await start(store, brief(items=4))
            case way:
                gone = tuple(f"u{number}" for number in luck.sample(range(6), luck.randrange(3)))
                request = remove(*gone, request_id=f"remove-{step}")
                if way == "crash":
                    owner = await _removed_in_a_crash(start, store, owner, request, luck)
                else:
                    await done(owner, request)
                said = {identity: text for identity, text in said.items() if identity not in gone}
                there = ids(decode_snapshot((await owner.read(fresh=False)).snapshot))
                assert set(there) <= said.keys()
                kept = {said[identity].encode() for identity in there}
                assert set(re.findall(rb"secret-\d+\.", store.content)) == kept
