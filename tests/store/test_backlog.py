"""What waits for the archive: one contract for memory and for Redis on every server found."""

import logging
from datetime import timedelta

import pytest

from conversation_actors.codec import encode_entry
from conversation_actors.state import (
    AttributesChanged,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    NothingChanged,
    SummaryChanged,
)
from conversation_actors.store import Ancestor, Claim, MemoryStore, Outcome, Record, Store, decode_record
from conversation_actors.store.backlog import Batch, Bounds, Lag, Waiting
from conversation_actors.store.redis import RedisStore
from tests.store.backlogs import revived
from tests.support.servers import wait_until
from tests.support.strategies import message

pytestmark = pytest.mark.asyncio

TTL = timedelta(minutes=10)
ALL = 1 << 30


async def opened(store: Store, owner: str = "o1", *, ttl: timedelta = TTL) -> Claim:
    """Activate, and create where needed."""
    return (await store.activate("c", owner=owner, create=True, ttl=ttl)).claim


async def append(store: Store, claim: Claim, seq: int, *entries: bytes, ttl: timedelta = TTL) -> Outcome:
    """Append entries after `seq`."""
    return await store.append(claim, expected_seq=seq, entries=entries, ttl=ttl)


async def records(store: Store) -> list[Record]:
    """Return what waits."""
    return [decode_record(stored) for stored in (await store.backlog().peek("c")).stored]


async def data(store: Store) -> list[bytes | None]:
    """Return the entries that wait."""
    return [record.data for record in await records(store)]


async def taken(store: Store, archiver: str = "a1", *, most_bytes: int = ALL) -> Batch:
    """Take the backlog, which nobody else has."""
    batch = await store.backlog().take("c", archiver=archiver, ttl=TTL, most_bytes=most_bytes)
    assert batch is not None
    return batch


async def archived(store: Store) -> Batch:
    """Take all that waits, and settle it."""
    batch = await taken(store)
    await store.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    await store.backlog().release("c", archiver="a1")
    return batch


async def listed(store: Store) -> list[Waiting]:
    """Return the listing."""
    return list(await store.backlog().waiting())


def bound(store: Store, size: int) -> None:
    """Let so many bytes wait from now on, under the names that the backlogs have."""
    if isinstance(store, MemoryStore):
        store.archive_within(Bounds(size, timedelta(hours=1)))
    else:
        assert isinstance(store, RedisStore)
        assert store._queueing is not None
        store._queueing._bounds = (size, store._queueing._bounds[1])


async def expired(store: Store) -> None:
    """Wait until the conversation has expired."""

    async def is_gone() -> bool:
        return await store.head("c") is None

    await wait_until(is_gone, "the conversation to expire")


# What is written waits


async def test_each_entry_waits_once_with_whose_it_is(archiving: Store) -> None:
    """All that is acknowledged, in order; a repeat, a refresh and a refused write add nothing."""
    claim = await opened(archiving)
    assert await append(archiving, claim, 0, b"1", b"\x00\n\xff") is Outcome.OK
    assert await append(archiving, claim, 0, b"1", b"\x00\n\xff") is Outcome.DUPLICATE
    assert await append(archiving, claim, 2) is Outcome.OK
    later = await opened(archiving, "o2")
    assert await append(archiving, claim, 2, b"old") is Outcome.FENCED
    assert await append(archiving, later, 3, b"ahead") is Outcome.GAP
    assert await append(archiving, later, 2, b"3") is Outcome.OK
    assert await records(archiving) == [
        Record("o1", 0, 1, "o1", b"1"),
        Record("o1", 0, 1, "o1", b"\x00\n\xff"),
        Record("o1", 0, 2, "o2", b"3"),
    ]
    (waiting,) = await listed(archiving)
    assert (waiting.conversation_id, waiting.records) == ("c", 3)


async def test_many_entries_wait(archiving: Store) -> None:
    """A batch larger than a script's stack waits as a whole; it is taken, and settled, in parts."""
    claim = await opened(archiving)
    entries = [b"%d" % number for number in range(9001)]
    await append(archiving, claim, 0, *entries)
    found: list[bytes | None] = []
    while (batch := await taken(archiving, most_bytes=100_000)).stored:
        assert sum(map(len, batch.stored)) <= 100_000
        assert batch.left == len(entries) - batch.through
        found += [decode_record(stored).data for stored in batch.stored]
        await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert found == entries


async def test_nothing_waits_without_an_archive(store: Store) -> None:
    """Who names no archive has no backlog, no listing, and no keys of either."""
    claim = await opened(store)
    await append(store, claim, 0, b"1")
    assert await store.requeue(claim, entries=[b"1"]) is Outcome.OK
    await store.save_snapshot(claim, seq=1, snapshot=b"s", ttl=TTL, participants=[])
    await store.check()
    assert await store.delete("c", ttl=TTL)
    assert not await store.delete("never", ttl=TTL)
    assert (await listed(store), await data(store)) == ([], [])
    if isinstance(store, RedisStore):
        client = await store._servers.owner_of("x")
        keys = [key for key in await client.keys("conv:*") if isinstance(key, bytes)]
        assert not [key for key in keys if key.endswith((b":backlog", b":archive", b"{unarchived}", b"{never}:meta"))]


# Archivers


async def test_two_archivers_settle_what_both_have_taken(archiving: Store) -> None:
    """A claim that was over before its holder had settled: what came since is not dropped by the second settling."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1", b"2")
    backlog = archiving.backlog()
    first = await backlog.take("c", archiver="a1", ttl=timedelta(milliseconds=1), most_bytes=ALL)
    found: list[Batch | None] = []

    async def is_free() -> bool:
        found.append(await backlog.take("c", archiver="a2", ttl=TTL, most_bytes=ALL))
        return found[-1] is not None

    await wait_until(is_free, "the first claim to be over")
    assert found[-1] == first
    assert first is not None
    await append(archiving, claim, 2, b"3", b"4")
    for _ in range(2):
        await backlog.settle("c", backlog=first.backlog, through=first.through)
        assert await data(archiving) == [b"3", b"4"]
    await backlog.settle("c", backlog=first.backlog, through=3)
    assert (await taken(archiving, "a2")).first == 3


async def test_a_backlog_is_one_archivers_until_it_lets_go(archiving: Store) -> None:
    """Another one gets nothing meanwhile, and what only it holds is not released by others."""
    await append(archiving, await opened(archiving), 0, b"1")
    backlog = archiving.backlog()
    await taken(archiving, "a1")
    assert await backlog.take("c", archiver="a2", ttl=TTL, most_bytes=ALL) is None
    await backlog.release("c", archiver="a2")
    assert await backlog.take("c", archiver="a2", ttl=TTL, most_bytes=ALL) is None
    assert (await taken(archiving, "a1", most_bytes=0)).stored
    await backlog.release("c", archiver="a1")
    assert (await taken(archiving, "a2")).stored


async def test_an_archiver_settles_nothing_that_another_owner_wrote(archiving: Store) -> None:
    """Numbers are those of one claim's records: the store may have lost some, and another owner written others."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1", b"2")
    batch = await taken(archiving)
    later = await opened(archiving, "o2")
    await append(archiving, later, 2, b"3")
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await data(archiving) == [b"1", b"2", b"3"]
    again = await archived(archiving)
    assert len(again.stored) == 3
    assert await data(archiving) == []


async def test_the_listing_has_those_first_that_entered_first(archiving: Store) -> None:
    """A conversation without records stays in the listing until it is taken out, and then enters anew."""
    for name in ("b", "a"):
        claim = (await archiving.activate(name, owner=f"o-{name}", create=True, ttl=TTL)).claim
        await archiving.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1")
    full = await listed(archiving)
    assert [waiting.conversation_id for waiting in full] == ["b", "a", "c"]
    assert not await archiving.backlog().unlist(full[2])
    await archived(archiving)
    assert [waiting.records for waiting in await listed(archiving)] == [1, 1, 0]
    assert await archiving.backlog().unlist(full[2])
    assert not await archiving.backlog().unlist(full[2])
    assert [waiting.conversation_id for waiting in await listed(archiving)] == ["b", "a"]
    await append(archiving, claim, 1, b"2")
    assert [(waiting.conversation_id, waiting.records) for waiting in await listed(archiving)][2] == ("c", 1)
    assert not await archiving.backlog().unlist(full[2])
    assert await data(archiving) == [b"2"]


async def test_what_the_listing_lost_is_found(archiving: Store) -> None:
    """A listing that is lost, with another server of a cluster, is made anew from the backlogs."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1")
    assert await archiving.backlog().relist() == 0
    if isinstance(archiving, MemoryStore):
        archiving.backlog()._marks.clear()
    else:
        assert isinstance(archiving, RedisStore)
        client = await archiving._servers.owner_of("x")
        await client.delete(archiving._keys.unarchived_index)
    assert await listed(archiving) == []
    assert await archiving.backlog().relist() == 1
    (waiting,) = await listed(archiving)
    await archived(archiving)
    assert await archiving.backlog().unlist(waiting)
    await append(archiving, claim, 1, b"2")
    assert [one.records for one in await listed(archiving)] == [1]


async def test_lag_is_told(archiving: Store) -> None:
    """How much waits, and for how long, of one conversation and of all."""
    assert await archiving.backlog().lag() == Lag()
    claim = await opened(archiving)
    entry = b'{"v":2,"seq":1,"epoch":1,"at":1000.5,"event":"closing"}'
    await append(archiving, claim, 0, entry, b"no entry")
    lag = await archiving.backlog().lag("c")
    assert (lag.conversations, lag.records, lag.given_up) == (1, 2, 0)
    assert lag.bytes == len(entry) + len(b"no entry") + 2 * len(Record("o1", 0, 1, "o1", None).header)
    assert lag.seconds > 1e9
    assert (await archiving.backlog().lag()).records == 2
    assert await archiving.backlog().lag("other") == Lag()
    await archived(archiving)
    assert await archiving.backlog().lag() == Lag()


# The bound, and the age


async def test_beyond_the_bound_the_oldest_are_given_up(archiving: Store, caplog: pytest.LogCaptureFixture) -> None:
    """They are counted, said, and numbered, so that none that are left are taken for them; the newest always stays."""
    store = archiving
    bound(store, 250)
    claim = await opened(store)
    header = len(Record("o1", 0, 1, "o1", None).header)
    await append(store, claim, 0, *[b"%d" % number * 49 for number in range(2)])
    batch = await taken(store)
    await append(store, claim, 2, b"2" * (100 - header), b"3" * (100 - header))
    assert [record and record[:1] for record in await data(store)] == [b"2", b"3"]
    assert (await store.backlog().lag("c")).given_up == 2
    await store.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert [record and record[:1] for record in await data(store)] == [b"2", b"3"]
    await append(store, claim, 4, b"4" * 1000)
    found = await taken(store)
    assert (len(found.stored), found.first, found.given_up) == (1, 4, 4)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (0 if isinstance(store, MemoryStore) else 1)
    assert (await archived(store)).through == 5
    assert (await store.backlog().lag("c")).bytes == 0


def written(seq: int, event: Event, request_id: str | None = None, digest: str | None = None) -> bytes:
    """Return an entry as an owner writes it."""
    return encode_entry(Entry(seq, 1, 1000.0 + seq, event, request_id, digest))


DECOY = '"event":"items_removed"'
WORDS = message("x", "word " * 40)
FORGETTING = [
    written(1, ItemsRemoved(("a", "b"))),
    written(2, ItemsRemoved(()), "request", "digest"),
    written(3, HistoryCleared()),
    encode_entry(Entry(1 << 53, 1 << 31, 1e22, HistoryCleared(), "request")),
    encode_entry(Entry(4, 1, 5e-324, ItemsRemoved(("a",)))),
]
OTHERS = [
    written(5, ItemsAppended((message("x", DECOY),)), DECOY),
    written(6, ItemsEvicted((message("x", DECOY),))),
    written(7, AttributesChanged({"event": "items_removed", "data": [{"event": "history_cleared"}]})),
    written(8, NothingChanged("items_removed"), DECOY),
    written(9, SummaryChanged(f'{DECOY}\n{{"v":2,"seq":1,"epoch":1,"at":1.0,{DECOY}}}', 1)),
    b"no entry",
    FORGETTING[0].replace(b"items_removed", b"items_removed_not"),
]


async def test_the_bound_costs_nothing_that_says_what_to_forget(archiving: Store) -> None:
    """A removal, a clearing and a deletion stay in their order, beyond the bound too; their bytes count."""
    deleted = await opened(archiving)
    await append(archiving, deleted, 0, b"1")
    await archiving.delete("c", ttl=TTL)
    bound(archiving, 64)
    claim = await opened(archiving, "next")
    mixed = [entry for pair in zip(FORGETTING, OTHERS, strict=False) for entry in pair] + OTHERS[len(FORGETTING) :]
    await append(archiving, claim, claim.start, *mixed)
    assert await data(archiving) == [None, *FORGETTING, OTHERS[-1]]
    await append(archiving, claim, claim.start + len(mixed), b"last")
    assert await data(archiving) == [None, *FORGETTING, b"last"]
    lag = await archiving.backlog().lag("c")
    assert (lag.records, lag.given_up) == (len(FORGETTING) + 2, len(OTHERS))
    assert lag.bytes == sum(map(len, (await archiving.backlog().peek("c")).stored))
    await append(archiving, claim, claim.start + len(mixed) + 1, FORGETTING[0])
    assert await data(archiving) == [None, *FORGETTING, FORGETTING[0]]
    batch = await archived(archiving)
    assert batch.through == 1 + len(OTHERS) + 1 + len(batch.stored)
    assert (await archiving.backlog().lag("c")).bytes == 0


async def test_many_records_stay_beyond_the_bound(archiving: Store) -> None:
    """More than a script's stack holds, in their order."""
    claim = await opened(archiving)
    bound(archiving, 64)
    removals = [written(seq, ItemsRemoved(("a",))) for seq in range(1, 9002)]
    await append(archiving, claim, 0, *removals, b"last")
    assert await data(archiving) == [*removals, b"last"]


async def test_what_stays_moves_no_record_behind_what_is_settled(archiving: Store) -> None:
    """Records are given up between taking and settling: what was taken and is left goes, and nothing else."""
    claim = await opened(archiving)
    removal, entries = FORGETTING[0], [written(seq, ItemsAppended((WORDS,))) for seq in range(2, 7)]
    header = len(Record("o1", 0, 1, "o1", None).header)
    await append(archiving, claim, 0, removal, *entries[:2])
    batch = await taken(archiving)
    bound(archiving, 3 * header + len(removal) + 2 * len(entries[0]))
    await append(archiving, claim, 3, entries[2])
    assert await data(archiving) == [removal, *entries[1:3]]
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await data(archiving) == [entries[2]]

    await append(archiving, claim, 4, removal)  # the newest of what the next batch does not have
    batch = await taken(archiving, most_bytes=1)
    assert batch.stored[0].endswith(entries[2])
    await append(archiving, claim, 5, entries[3], entries[4])
    assert await data(archiving) == [removal, *entries[3:]]
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await data(archiving) == [removal, *entries[3:]]


async def test_what_is_given_up_behind_a_batch_is_not_made_up_for(archiving: Store) -> None:
    """More was given up than the batch had: the record that stays is taken again, and nothing else is dropped."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, FORGETTING[0], *OTHERS[:3])
    batch = await taken(archiving, most_bytes=1)
    assert len(batch.stored) == 1
    bound(archiving, 64)
    await append(archiving, claim, 4, FORGETTING[2], b"last")
    left = [FORGETTING[0], FORGETTING[2], b"last"]
    assert await data(archiving) == left
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await data(archiving) == left
    again = await archived(archiving)
    assert (again.first, len(again.stored)) == (3, 3)
    assert await data(archiving) == []


async def test_what_waits_outlives_its_conversation(archiving: Store) -> None:
    """The conversation expires, and a new life begins: both lives' records wait, in order."""
    brief = timedelta(milliseconds=200)
    claim = await opened(archiving, ttl=brief)
    await append(archiving, claim, 0, b"1", ttl=brief)
    await expired(archiving)
    assert await data(archiving) == [b"1"]
    await append(archiving, await opened(archiving, "o2"), 0, b"2")
    assert [(record.life, record.data) for record in await records(archiving)] == [("o1", b"1"), ("o2", b"2")]


# Deletion


async def test_a_deletion_takes_the_place_of_all_that_waits(archiving: Store) -> None:
    """One record is left, whose number no batch that was taken before has; a repeat adds none."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1", b"2")
    batch = await taken(archiving)
    assert await archiving.delete("c", ttl=TTL)
    assert not await archiving.delete("c", ttl=TTL)
    deletion = Record("o1", 0, 2, "", None)
    assert await records(archiving) == [deletion]
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await records(archiving) == [deletion]
    assert (await taken(archiving)).first == 2
    assert await append(archiving, claim, 2, b"3") is Outcome.FENCED
    assert await archiving.requeue(claim, entries=[b"1"]) is Outcome.FENCED
    later = await opened(archiving, "o2")
    await append(archiving, later, later.start, b"new")
    assert await records(archiving) == [deletion, Record("o2", 3, 3, "o2", b"new")]


async def test_a_conversation_that_waited_for_nothing_is_deleted_in_the_archive(archiving: Store) -> None:
    """Also when all of it was archived, and it had left the listing."""
    await append(archiving, await opened(archiving), 0, b"1")
    await archived(archiving)
    assert await archiving.backlog().unlist((await listed(archiving))[0])
    assert await archiving.delete("c", ttl=TTL)
    assert await data(archiving) == [None]
    assert [waiting.records for waiting in await listed(archiving)] == [1]


async def test_what_has_expired_is_deleted_while_it_waits(archiving: Store) -> None:
    """A deletion of what the store has no more takes the place of what waits of it."""
    brief = timedelta(milliseconds=200)
    await append(archiving, await opened(archiving, ttl=brief), 0, b"1", b"2", ttl=brief)
    await expired(archiving)
    assert await archiving.delete("c", ttl=TTL)
    assert await records(archiving) == [Record("o1", 0, 1, "o1", None)]
    assert not await archiving.delete("c", ttl=TTL)
    assert not await revived(archiving)


async def test_what_is_deleted_in_the_archive_only_is_not_revived(archiving: Store) -> None:
    """Whoever deletes what is not there leaves a tombstone, for those who have just read it in the archive."""
    assert not await archiving.delete("c", ttl=TTL)
    assert await archiving.head("c") is None
    assert not await revived(archiving)
    assert await data(archiving) == []
    claim = await opened(archiving)
    assert await append(archiving, claim, claim.start, b"1") is Outcome.OK


# Losses


async def test_what_was_lost_waits_again_under_another_name(archiving: Store) -> None:
    """An archiver settles nothing by numbers of before the loss; repeats are the archive's to know."""
    claim = await opened(archiving)
    await append(archiving, claim, 0, b"1", b"2")
    batch = await taken(archiving)
    if isinstance(archiving, MemoryStore):
        archiving._conversations.clear()
        archiving.backlog().clear()
    else:
        assert isinstance(archiving, RedisStore)
        await (await archiving._servers.owner_of("x")).flushall()
    assert await append(archiving, claim, 2, b"3") is Outcome.GAP
    assert await archiving.requeue(claim, entries=[b"1", b"2"]) is Outcome.OK
    assert await archiving.save_snapshot(claim, seq=2, snapshot=b"s", ttl=TTL, participants=[]) is Outcome.OK
    assert await append(archiving, claim, 2, b"3") is Outcome.OK
    await archiving.backlog().settle("c", backlog=batch.backlog, through=batch.through)
    assert await data(archiving) == [b"1", b"2", b"3"]
    assert [waiting.records for waiting in await listed(archiving)] == [3]
    assert (await opened(archiving, "o2")).start == claim.start == 0


async def test_a_deposed_owner_requeues_nothing(archiving: Store) -> None:
    """Nor one of another life; but one whose successor was lost, and one over what it followed."""
    first = await opened(archiving)
    second = await opened(archiving, "o2")
    assert await archiving.requeue(first, entries=[b"1"]) is Outcome.FENCED
    assert await data(archiving) == []
    assert await archiving.requeue(second, entries=[b"1"]) is Outcome.OK
    assert await data(archiving) == [b"1"]


async def test_a_life_keeps_its_beginning(archiving: Store) -> None:
    """Through owners, a restoration, and up to a deletion, after which the next life begins."""
    await append(archiving, await opened(archiving), 0, b"1", b"2")
    await archiving.delete("c", ttl=TTL)
    assert (await opened(archiving, "o2")).start == 3
    claim = await opened(archiving, "o3")
    await append(archiving, claim, 3, b"4")
    ahead = await archiving.save_snapshot(claim, seq=9, snapshot=b"s", ttl=TTL, participants=[])
    assert ahead is Outcome.OK
    assert (await opened(archiving, "o4")).start == 3


# Back from the archive


async def test_what_is_revived_goes_on_as_if_it_had_never_left(archiving: Store) -> None:
    """The next claim takes the next epoch of the same life, and knows whom it follows."""
    lineage = [Ancestor("l", 3, "older", 4)]
    assert await revived(archiving, lineage=lineage)
    recovered = await archiving.activate("c", owner="o1", create=False, ttl=TTL)
    claim = recovered.claim
    assert (claim.life, claim.epoch, claim.start, recovered.seq) == ("l", 6, 2, 9)
    assert (recovered.snapshot, recovered.snapshot_seq, recovered.journal) == (b"state", 9, ())
    assert not recovered.created
    assert claim.lineage == (*lineage, Ancestor("l", 5, "gone", 9))
    assert recovered.left <= TTL
    assert await append(archiving, claim, 9, b"10") is Outcome.OK
    assert (await archiving.read("c")).seq == 10
    assert await archiving.reindex() == 1


@pytest.mark.parametrize("there", ["new", "written", "tombstone", "revived"])
async def test_nothing_is_revived_over_anything(archiving: Store, there: str) -> None:
    """Whatever is stored stays as it is, and a deleted conversation deleted."""
    if there == "revived":
        assert await revived(archiving)
    else:
        claim = await opened(archiving)
        if there != "new":
            await append(archiving, claim, 0, b"1")
        if there == "tombstone":
            await archiving.delete("c", ttl=TTL)
    before = await archiving.head("c")
    assert not await revived(archiving)
    assert await archiving.head("c") == before


async def test_nothing_is_revived_whose_deletion_waits(archiving: Store) -> None:
    """The tombstone may be gone before the archive has the deletion."""
    brief = timedelta(milliseconds=200)
    await append(archiving, await opened(archiving, ttl=brief), 0, b"1", ttl=brief)
    await archiving.delete("c", ttl=brief)

    async def is_refused_by_the_deletion_alone() -> bool:
        return not await _has_tombstone(archiving)

    await wait_until(is_refused_by_the_deletion_alone, "the tombstone to expire")
    assert not await revived(archiving)
    await archived(archiving)
    assert await revived(archiving)


async def _has_tombstone(store: Store) -> bool:
    if isinstance(store, MemoryStore):
        return store._find("c") is not None
    assert isinstance(store, RedisStore)
    client = await store._servers.owner_of("x")
    return bool(await client.exists(store._keys.conversation("c").meta))
