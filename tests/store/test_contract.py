"""One contract for every store: memory, and Redis on every server found (those not installed are not listed)."""

import asyncio
from datetime import timedelta

import pytest

from conversation_actors.errors import ConversationNotFoundError, CorruptStateError, InvalidInputError
from conversation_actors.store import Claim, Head, Outcome, Recovered, Store
from tests.support.servers import wait_until

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
SHORT = timedelta(milliseconds=30)
"""Of what is to be gone, whenever that is."""
BRIEF = {f"brief-{number}": SHORT * 4**number for number in range(5)}
"""Of what is to be gone, but not before the next call: names to try with more and more time."""
STRANGE_IDS = [
    "a",
    "ab",
    "a b",
    "a{b}",
    "{}",
    "}{",
    "100%",
    "%7B",
    "{",
    "a:meta",
    "}:meta",
    "ünï-çødé 🦜",
    "\u0645\u06cc\u200c\u062e",
    "👩\u200d🔧",
    "a\u2028b",
    "*",
    "[a]",
]


async def opened(store: Store, conversation_id: str = "c", *, owner: str = "o1", ttl: timedelta = TTL) -> Recovered:
    """Activate, and create where needed."""
    return await store.activate(conversation_id, owner=owner, create=True, ttl=ttl)


def brand_new(claim: Claim, *, seq: int) -> Recovered:
    """Return what the activation that creates a life reads; times are compared with none."""
    return Recovered(claim, seq, seq, None, (), created=True, left=TTL, at=0.0)


async def expired(store: Store, conversation_id: str = "c") -> None:
    """Wait until a conversation has expired."""

    async def is_gone() -> bool:
        return await store.head(conversation_id) is None

    await wait_until(is_gone, f"{conversation_id} to expire")


async def listed(store: Store, participant: str | None = None) -> list[str]:
    """Return the ids of a listing."""
    return [found.conversation_id async for found in store.list(participant=participant)]


async def test_server_in_good_order_passes_the_check(store: Store) -> None:
    """A server in good order passes the check."""
    await store.check()


async def test_first_activation_takes_epoch_one_of_an_empty_conversation(store: Store) -> None:
    """The first activation takes epoch 1 of an empty conversation."""
    assert await opened(store) == brand_new(Claim("c", 1, "o1", "o1"), seq=0)


async def test_activate_takes_the_next_epoch(store: Store) -> None:
    """Another owner gets a higher epoch, and did not create anything."""
    await opened(store)
    second = await opened(store, owner="o2")
    assert (second.claim.epoch, second.created) == (2, False)


async def test_repeated_activate_takes_no_epoch(store: Store) -> None:
    """A repeat after an unknown outcome returns what the first call returned."""
    first, again = await opened(store), await opened(store)
    assert (first, first.claim.life, first.claim.lineage) == (again, again.claim.life, again.claim.lineage)


async def test_nothing_is_created_unless_asked_for(store: Store) -> None:
    """What does not exist is not created unless asked for."""
    with pytest.raises(ConversationNotFoundError):
        await store.activate("c", owner="o1", create=False, ttl=TTL)
    assert await store.head("c") is None


async def test_activate_finds_without_create(store: Store) -> None:
    """What exists is activated without `create`."""
    await opened(store)
    assert (await store.activate("c", owner="o2", create=False, ttl=TTL)).claim.epoch == 2


async def test_empty_id_is_refused(store: Store) -> None:
    """An empty id has no keys."""
    with pytest.raises(InvalidInputError) as caught:
        await opened(store, "")
    assert caught.value.field == "conversation_id"


async def test_appended_entries_are_recovered_in_order(store: Store) -> None:
    """The next activation reads every entry, oldest first, bytes unchanged."""
    claim = (await opened(store)).claim
    entries = [b"", b"\x00\xff\r\n", "ü".encode()]
    assert await store.append(claim, expected_seq=0, entries=entries[:1], ttl=TTL) is Outcome.OK
    assert await store.append(claim, expected_seq=1, entries=entries[1:], ttl=TTL) is Outcome.OK
    recovered = await opened(store, owner="o2")
    assert (recovered.seq, recovered.journal) == (3, tuple(entries))


async def test_many_entries_at_once(store: Store) -> None:
    """A batch larger than a script's stack is still one atomic append."""
    claim = (await opened(store)).claim
    entries = [b"%d" % number for number in range(9001)]
    assert await store.append(claim, expected_seq=0, entries=entries, ttl=TTL) is Outcome.OK
    assert (await opened(store)).journal == tuple(entries)


async def test_repeated_append_is_a_duplicate(store: Store) -> None:
    """The same batch at the same place lands once."""
    claim = (await opened(store)).claim
    for outcome in (Outcome.OK, Outcome.DUPLICATE, Outcome.DUPLICATE):
        assert await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL) is outcome
    assert (await opened(store)).journal == (b"1", b"2")


async def test_old_claim_is_fenced_even_where_seq_matches(store: Store) -> None:
    """Only the epoch tells the old owner from the new one: both know the right seq."""
    old = (await opened(store)).claim
    await opened(store, owner="o2")
    assert await store.append(old, expected_seq=0, entries=[b"old"], ttl=TTL) is Outcome.FENCED
    assert (await opened(store, owner="o2")).journal == ()


async def test_old_claim_is_fenced_where_a_repeat_would_match(store: Store) -> None:
    """The new owner's entries are never taken for the old owner's repeat."""
    old = (await opened(store)).claim
    new = (await opened(store, owner="o2")).claim
    await store.append(new, expected_seq=0, entries=[b"new"], ttl=TTL)
    assert await store.append(old, expected_seq=0, entries=[b"old"], ttl=TTL) is Outcome.FENCED


async def test_same_epoch_of_another_owner_is_fenced(store: Store) -> None:
    """Two claims of one epoch (after a failover that lost one) exclude each other."""
    claim = (await opened(store)).claim
    twin = Claim("c", claim.epoch, "twin", claim.life)
    assert await store.append(twin, expected_seq=0, entries=[b"x"], ttl=TTL) is Outcome.FENCED
    assert await store.save_snapshot(twin, seq=5, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.FENCED


async def test_old_claim_cannot_save_a_snapshot(store: Store) -> None:
    """A fenced owner's snapshot is not taken, at whatever seq."""
    old = (await opened(store)).claim
    await opened(store, owner="o2")
    for seq in (0, 7):
        assert await store.save_snapshot(old, seq=seq, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.FENCED
    assert (await opened(store, owner="o2")).snapshot is None


async def test_append_without_entries_changes_only_the_ttl(store: Store) -> None:
    """Without entries an append changes nothing but the time to live."""
    claim = (await opened(store)).claim
    assert await store.append(claim, expected_seq=0, entries=[], ttl=TTL) is Outcome.OK
    assert await store.head("c") == Head(1, "o1", 0)


async def test_empty_append_beside_a_write(store: Store) -> None:
    """A refresh that was overtaken by a write of its own claim is no contradiction."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    assert await store.append(claim, expected_seq=0, entries=[], ttl=TTL) is Outcome.OK


async def test_empty_append_tells_fenced(store: Store) -> None:
    """A refresh of an old claim learns that it is fenced."""
    old = (await opened(store)).claim
    await opened(store, owner="o2")
    assert await store.append(old, expected_seq=0, entries=[], ttl=TTL) is Outcome.FENCED


async def test_gap_where_the_store_is_behind(store: Store) -> None:
    """A store that knows fewer entries than the owner says so and writes nothing."""
    claim = (await opened(store)).claim
    assert await store.append(claim, expected_seq=3, entries=[b"x"], ttl=TTL) is Outcome.GAP
    assert (await opened(store)).journal == ()


async def test_gap_where_the_store_lost_everything(store: Store) -> None:
    """An append to a vanished conversation does not create it."""
    claim = (await opened(store, ttl=SHORT)).claim
    await expired(store)
    assert await store.append(claim, expected_seq=0, entries=[b"x"], ttl=TTL) is Outcome.GAP
    assert await store.head("c") is None


async def test_seq_ahead_of_its_owner_is_corrupt(store: Store) -> None:
    """The owner's own claim, further on than the owner ever was: nobody can say what is true."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    with pytest.raises(CorruptStateError):
        await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)


async def test_snapshot_trims_the_journal(store: Store) -> None:
    """Entries up to the snapshot go, those behind it stay."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    assert await store.save_snapshot(claim, seq=2, snapshot=b"s2", ttl=TTL, participants=[]) is Outcome.OK
    recovered = await opened(store)
    assert (recovered.seq, recovered.snapshot_seq, recovered.snapshot) == (3, 2, b"s2")
    assert recovered.journal == (b"3",)


async def test_snapshot_keeps_entries_for_watchers(store: Store) -> None:
    """The entries asked for stay before the snapshot, across a second one and further appends."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    await store.save_snapshot(claim, seq=3, snapshot=b"s3", ttl=TTL, participants=[], keep=2)
    await store.append(claim, expected_seq=3, entries=[b"4"], ttl=TTL)
    first = await opened(store)
    await store.save_snapshot(claim, seq=4, snapshot=b"s4", ttl=TTL, participants=[], keep=100)
    second = await opened(store)
    assert (first.snapshot_seq, first.journal) == (3, (b"2", b"3", b"4"))
    assert (second.snapshot_seq, second.snapshot, second.journal) == (4, b"s4", (b"2", b"3", b"4"))


async def test_second_snapshot_replaces_the_first(store: Store) -> None:
    """A second snapshot replaces the first and trims from there."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2", b"3"], ttl=TTL)
    for seq in (1, 3):
        await store.save_snapshot(claim, seq=seq, snapshot=b"s%d" % seq, ttl=TTL, participants=[])
    recovered = await opened(store)
    assert (recovered.snapshot_seq, recovered.snapshot, recovered.journal) == (3, b"s3", ())


@pytest.mark.parametrize("seq", [1, 2])
async def test_older_snapshot_is_a_duplicate(store: Store, seq: int) -> None:
    """A snapshot at or behind the stored one changes nothing."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL)
    await store.save_snapshot(claim, seq=2, snapshot=b"kept", ttl=TTL, participants=[])
    assert await store.save_snapshot(claim, seq=seq, snapshot=b"x", ttl=TTL, participants=[]) is Outcome.DUPLICATE
    assert (await opened(store)).snapshot == b"kept"


async def test_snapshot_heals_a_store_that_is_behind(store: Store) -> None:
    """Acknowledged state that the store forgot comes back, and appends go on behind it."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    assert await store.save_snapshot(claim, seq=5, snapshot=b"s5", ttl=TTL, participants=[]) is Outcome.OK
    assert await store.append(claim, expected_seq=5, entries=[b"6"], ttl=TTL) is Outcome.OK
    recovered = await opened(store)
    assert (recovered.seq, recovered.snapshot, recovered.journal) == (6, b"s5", (b"6",))


async def test_snapshot_heals_a_lost_conversation(store: Store) -> None:
    """A conversation that vanished under its owner comes back from its snapshot."""
    claim = (await opened(store, ttl=SHORT)).claim
    await expired(store)
    assert await store.save_snapshot(claim, seq=4, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.OK
    recovered = await opened(store, owner="o2")
    assert (recovered.seq, recovered.snapshot, recovered.created) == (4, b"s", False)


async def test_snapshot_that_may_not_restore_says_gap(store: Store) -> None:
    """Of a store that is behind, or has nothing any more, it writes nothing; of one in good order it is a snapshot."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL)
    behind = await store.save_snapshot(claim, seq=3, snapshot=b"s3", ttl=TTL, participants=[], restore=False)
    whole = await store.save_snapshot(claim, seq=2, snapshot=b"s2", ttl=TTL, participants=[], restore=False)
    assert (await opened(store)).snapshot == b"s2"
    again = await store.save_snapshot(claim, seq=2, snapshot=b"s2", ttl=SHORT, participants=[], restore=False)
    assert (behind, whole, again) == (Outcome.GAP, Outcome.OK, Outcome.DUPLICATE)
    await expired(store)
    assert (
        await store.save_snapshot(claim, seq=2, snapshot=b"s", ttl=TTL, participants=[], restore=False) is Outcome.GAP
    )
    assert await store.head("c") is None


async def test_snapshot_of_an_old_claim_restores_nothing(store: Store) -> None:
    """Whether it may or not: it is fenced."""
    old = (await opened(store)).claim
    await opened(store, owner="o2")
    assert (
        await store.save_snapshot(old, seq=7, snapshot=b"s", ttl=TTL, participants=[], restore=False) is Outcome.FENCED
    )


async def test_head_tells_epoch_owner_and_seq(store: Store) -> None:
    """The head tells epoch, owner and seq, and None of what is not there."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    assert await store.head("c") == Head(1, "o1", 1)
    assert await store.head("other") is None


async def test_deleted_conversation_is_gone(store: Store) -> None:
    """A deleted conversation is gone; deleting it again finds nothing."""
    await opened(store)
    assert not await store.remembers_deletion("c")
    assert await store.delete("c", ttl=TTL)
    assert not await store.delete("c", ttl=TTL)
    assert await store.head("c") is None
    assert await store.remembers_deletion("c")
    with pytest.raises(ConversationNotFoundError):
        await store.activate("c", owner="o2", create=False, ttl=TTL)


async def test_deleting_what_never_was_leaves_nothing(store: Store) -> None:
    """Deleting what never was leaves nothing behind."""
    assert not await store.delete("c", ttl=TTL)
    assert (await opened(store)).claim.epoch == 1


async def test_owner_of_a_deleted_conversation_cannot_write(store: Store) -> None:
    """Whoever owned it can neither write nor bring it back."""
    claim = (await opened(store)).claim
    await store.delete("c", ttl=TTL)
    assert await store.append(claim, expected_seq=0, entries=[b"x"], ttl=TTL) is Outcome.FENCED
    assert await store.save_snapshot(claim, seq=9, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.FENCED


async def test_new_life_begins_above_all_that_was_used_before(store: Store) -> None:
    """A new life starts empty, with epoch and seq above all that was used before."""
    claim = (await opened(store)).claim
    await store.append(claim, expected_seq=0, entries=[b"1", b"2"], ttl=TTL)
    await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=[])
    await store.delete("c", ttl=TTL)
    reborn = await opened(store, owner="o2")
    assert reborn == brand_new(Claim("c", 3, "o2", "o2"), seq=3)
    assert await store.append(reborn.claim, expected_seq=3, entries=[b"4"], ttl=TTL) is Outcome.OK
    assert (await opened(store, owner="o3")).journal == (b"4",)


async def test_first_snapshot_after_deletion(store: Store) -> None:
    """The new life's first snapshot is stored although no entry came before it."""
    await opened(store)
    await store.delete("c", ttl=TTL)
    reborn = await opened(store, owner="o2")
    assert await store.save_snapshot(reborn.claim, seq=1, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.OK
    assert (await opened(store)).snapshot == b"s"


async def test_nothing_is_remembered_after_the_tombstones_time(store: Store) -> None:
    """After the tombstone's time nothing is remembered."""
    claim = (await opened(store)).claim
    await store.delete("c", ttl=SHORT)

    async def is_forgotten() -> bool:
        return await store.append(claim, expected_seq=0, entries=[], ttl=SHORT) is Outcome.GAP

    await wait_until(is_forgotten, "the tombstone to expire")
    assert (await opened(store)).claim.epoch == 1


async def test_activation_leaves_the_ttl(store: Store) -> None:
    """How long it is kept is for its owner to say, who has to read that first; a shorter one says nothing either."""
    for name, brief in BRIEF.items():
        claim = (await opened(store, name)).claim
        await store.append(claim, expected_seq=0, entries=[b"1"], ttl=brief)
        if not (await opened(store, name, owner="o2", ttl=TTL)).created:
            await expired(store, name)
            break
    else:
        pytest.fail("it was always over before the second owner came")
    await opened(store, ttl=TTL)
    await opened(store, owner="o2", ttl=SHORT)
    await opened(store, "other", ttl=SHORT)
    await expired(store, "other")
    assert await store.head("c") is not None


async def test_append_says_how_long_it_is_kept(store: Store) -> None:
    """Longer or shorter than before, with entries or without."""
    for name, brief in BRIEF.items():
        claim = (await opened(store, name, ttl=brief)).claim
        if await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL) is Outcome.OK:
            await opened(store, "other", ttl=brief)
            await expired(store, "other")
            assert await store.head(name) is not None
            await store.append(claim, expected_seq=1, entries=[], ttl=SHORT)
            await expired(store, name)
            break
    else:
        pytest.fail("it was always over before the append came")


async def test_ids_do_not_meet(store: Store) -> None:
    """Ids with braces, percent signs and blanks, and prefixes of each other, are different conversations."""
    for conversation_id in STRANGE_IDS:
        claim = (await opened(store, conversation_id)).claim
        await store.append(claim, expected_seq=0, entries=[conversation_id.encode()], ttl=TTL)
    for conversation_id in STRANGE_IDS:
        assert (await opened(store, conversation_id)).journal == (conversation_id.encode(),)


async def test_list_is_ordered_and_detailed(store: Store) -> None:
    """The most recently active comes first, with who takes part and where it stands."""
    for conversation_id in ("a", "b"):
        claim = (await opened(store, conversation_id)).claim
        await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL, participants=["al", "ü"])
        await store.index(conversation_id, participants=["al"], ttl=TTL)

    async def is_first() -> bool:  # its clock counts milliseconds: entered in the same one, they are equal
        await store.index("b", participants=["al"], ttl=TTL)
        return await listed(store) == ["b", "a"]

    await wait_until(is_first, "b to be listed first")
    found = [one async for one in store.list()]
    assert [(one.conversation_id, one.participants, one.seq) for one in found] == [
        ("b", ("al", "ü"), 1),
        ("a", ("al", "ü"), 1),
    ]
    assert found[0].last_active_at >= found[1].last_active_at > 1e9


async def test_list_pages_without_loss(store: Store) -> None:
    """More than a page, with equal times among them: each appears once."""
    ids = {f"c{number:03}" for number in range(250)}
    for conversation_id in ids:
        await opened(store, conversation_id)
        await store.index(conversation_id, participants=["al"], ttl=TTL)
    for participant in (None, "al"):
        found = await listed(store, participant)
        assert len(found) == len(ids)
        assert set(found) == ids


async def test_participants_listing_holds_that_ones_conversations_only(store: Store) -> None:
    """A participant's listing holds that one's conversations, not those of a longer name."""
    for conversation_id, identities in (("a", ["al"]), ("b", ["alice"]), ("c", ["al", "alice"])):
        await opened(store, conversation_id)
        await store.index(conversation_id, participants=identities, ttl=TTL)
    assert set(await listed(store, "al")) == {"a", "c"}
    assert await listed(store, "nobody") == []


async def test_list_of_strange_ids(store: Store) -> None:
    """Any id and identity can be listed."""
    for conversation_id in STRANGE_IDS:
        await opened(store, conversation_id)
        await store.index(conversation_id, participants=[conversation_id], ttl=TTL)
        assert await listed(store, conversation_id) == [conversation_id]
    assert set(await listed(store)) == set(STRANGE_IDS)


async def test_list_drops_what_is_gone(store: Store) -> None:
    """Deleted and expired conversations leave the listing when it is read."""
    await opened(store, "deleted")
    await opened(store, "expired", ttl=SHORT)
    for conversation_id in ("deleted", "expired"):
        await store.index(conversation_id, participants=["al"], ttl=TTL)
    await store.delete("deleted", ttl=TTL)
    await expired(store, "expired")
    assert await listed(store) == []
    assert await listed(store, "al") == []


@pytest.mark.parametrize("participant", [None, "al"])
async def test_entries_leave_by_their_own_expiry(store: Store, participant: str | None) -> None:
    """Entering one conversation drops those whose own time is up, and no other, however short its own time is."""
    for conversation_id, ttl in (("long", TTL), ("short", SHORT), ("next", TTL)):
        await opened(store, conversation_id)
        await store.index(conversation_id, participants=["al"], ttl=ttl)

    async def has_left() -> bool:
        await store.index("next", participants=["al"], ttl=TTL)
        return "short" not in await listed(store, participant)

    await wait_until(has_left, "the short entry to leave")
    await store.index("short", participants=["al"], ttl=SHORT)
    assert set(await listed(store, participant)) == {"long", "short", "next"}


async def test_entry_again_moves_its_expiry(store: Store) -> None:
    """What is entered again is kept for the time given last."""
    for conversation_id in ("kept", "next"):
        await opened(store, conversation_id)
    for ttl in (SHORT, TTL):
        await store.index("kept", participants=[], ttl=ttl)
    await opened(store, "gone", ttl=SHORT)
    await expired(store, "gone")  # so the first time given is over, too
    await store.index("next", participants=[], ttl=TTL)
    assert set(await listed(store)) == {"kept", "next"}


async def test_listings_are_rebuilt_from_living_conversations_alone(store: Store) -> None:
    """The listings are rebuilt from the living conversations alone."""
    for conversation_id in STRANGE_IDS:
        claim = (await opened(store, conversation_id)).claim
        await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL, participants=["al"])
    await opened(store, "deleted")
    await store.delete("deleted", ttl=TTL)
    assert await store.reindex() == len(STRANGE_IDS)
    assert set(await listed(store)) == set(await listed(store, "al")) == set(STRANGE_IDS)


async def test_participants_are_kept_where_not_given(store: Store) -> None:
    """An append without participants leaves them; one with an empty list clears them."""
    claim = (await opened(store)).claim
    await store.index("c", participants=[], ttl=TTL)
    for seq, given, kept in ((0, ["al"], ("al",)), (1, None, ("al",)), (2, [], ())):
        await store.append(claim, expected_seq=seq, entries=[b"x"], ttl=TTL, participants=given)
        assert [found.participants async for found in store.list()] == [kept]


async def test_only_one_of_many_claims_writes(store: Store) -> None:
    """Owners that race for a conversation: the last to activate writes, all others are fenced."""
    claims = [(await opened(store, owner=f"o{number}")).claim for number in range(10)]
    appends = [store.append(claim, expected_seq=0, entries=[b"x"], ttl=TTL) for claim in claims]
    outcomes = await asyncio.gather(*appends)
    assert outcomes == [Outcome.FENCED] * 9 + [Outcome.OK]
