"""An archiver between a backlog in memory and a database that a test has in its hands."""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from conversation_actors.archive.archiver import AT_ONCE, Archiver
from conversation_actors.archive.writer import Gap
from conversation_actors.errors import ArchiveMisconfiguredError, ArchiveUnavailableError, StoreUnavailableError
from tests.support.archiver_fakes import AWAY, QUICK, Backlog, Checkpoints, Way, Writer, running
from tests.support.waiting import wait_until


async def test_everything_is_archived_in_order_and_once() -> None:
    """Also what comes while others are at it, of more conversations than are archived at once."""
    backlog, writer = Backlog(), Writer()
    expected = {f"c{number}": backlog.fill(f"c{number}", 30) for number in range(150)}
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(lambda: asyncio.sleep(0, len(writer.records) > 10), "the first ones")
        for name, records in expected.items():
            records.extend(backlog.fill(name, 5, first=31))
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected
    assert writer.most_running == 2
    assert max(writer.groups) == 32


async def test_a_database_that_is_away_loses_nothing_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """One attempt at a time, after a pause; then all that has come meanwhile, in order."""
    caplog.set_level(logging.INFO, "conversation_actors")
    backlog, writer = Backlog(), Writer()
    writer.fault = AWAY
    expected = {f"c{number}": backlog.fill(f"c{number}", 10) for number in range(12)}
    archiver = Archiver(backlog, writer, timing=QUICK)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, len(writer.attempts) >= 24), "attempts")
        assert archiver.is_away is True
        assert set(writer.groups[2:]) == {1}
        assert len(set(writer.attempts[12:24])) == 12
        for name, records in expected.items():
            records.extend(backlog.fill(name, 3, first=11))
        writer.fault = None
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected
    told = [record for record in caplog.records if record.name.endswith("outage")]
    assert [(one.levelname, vars(one)["server"]) for one in told] == [
        ("WARNING", "the archive's database"),
        ("INFO", "the archive's database"),
    ]


async def test_while_the_database_is_away_attempts_are_few() -> None:
    """After the first ones only one conversation is tried at a time, and not before the pause is over."""
    backlog, writer = Backlog(), Writer()
    writer.fault = AWAY
    for number in range(200):
        backlog.fill(f"c{number}", 1)
    timing = replace(QUICK, archive_again=(3600.0, 3600.0))
    async with running(Archiver(backlog, writer, timing=timing)):
        await wait_until(lambda: asyncio.sleep(0, len(writer.groups) == 2), "the first attempts")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(writer.groups) == 2


async def test_a_missing_right_is_an_error_for_a_person(caplog: pytest.LogCaptureFixture) -> None:
    """It is told as such, also if the database was away before; it goes on when the right is there."""
    backlog, writer = Backlog(), Writer()
    records = backlog.fill("c", 3)
    writer.fault = AWAY
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(lambda: asyncio.sleep(0, len(writer.attempts) >= 2), "attempts")
        writer.fault = ArchiveMisconfiguredError("no right to insert")
        await wait_until(lambda: asyncio.sleep(0, "no right to insert" in str(_reasons(caplog))), "the reason")
        writer.fault = None
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == {"c": records}
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING", "ERROR"]


def _reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record).get("reason", "") for record in caplog.records]


async def test_one_that_cannot_be_archived_keeps_no_other_from_it() -> None:
    """Its failures are counted, and it is tried again later."""
    backlog, writer = Backlog(), Writer()
    writer.faults["bad"] = RuntimeError("a defect")
    expected = {name: backlog.fill(name, 3) for name in ("bad", "good", "better")}
    archiver = Archiver(backlog, writer, timing=QUICK)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, len(writer.records) == 2), "the others")
        await wait_until(lambda: asyncio.sleep(0, writer.attempts.count("bad") >= 2), "another attempt")
        assert archiver.failures.counts["archive"] >= 1
        assert not archiver.is_away
        del writer.faults["bad"]
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected


async def test_one_that_the_database_refuses_for_now_keeps_no_other_from_it() -> None:
    """Another process may hold its row: the others are written without it, and it when that is over."""
    backlog, writer = Backlog(), Writer()
    writer.faults["locked"] = AWAY
    expected = {name: backlog.fill(name, 3) for name in ("a", "locked", "b", "c")}
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(lambda: asyncio.sleep(0, len(writer.records) == 3), "the others")
        records = backlog.fill("a", 1, first=4)
        await wait_until(lambda: asyncio.sleep(0, len(writer.records["a"]) == 4), "what came since")
        del writer.faults["locked"]
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == {**expected, "a": expected["a"] + records}


async def test_what_was_written_and_not_settled_is_written_again() -> None:
    """The database knows it already; it is dropped from Redis only then."""
    backlog, writer = Backlog(), Writer()
    expected = {"c": backlog.fill("c", 20)}
    backlog.faults["settle"] = StoreUnavailableError("Redis is away")
    archiver = Archiver(backlog, writer, timing=QUICK)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, len(writer.attempts) >= 3), "repeats")
        assert len((await backlog.peek("c")).stored) == 20
        assert archiver.is_away  # although it can be asked what waits
        backlog.faults.clear()
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected


async def test_a_claim_of_a_dead_archiver_ends() -> None:
    """Until then the others leave the conversation alone."""
    backlog, writer = Backlog(), Writer()
    expected = {"c": backlog.fill("c", 3)}
    batch = await backlog.take("c", archiver="dead", ttl=timedelta(seconds=0.2), most_bytes=1)
    assert batch is not None
    async with running(Archiver(backlog, writer, timing=QUICK)):
        other = backlog.fill("other", 1)
        await wait_until(lambda: asyncio.sleep(0, "other" in writer.records), "the other one")
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == {**expected, "other": other}


async def test_several_share_the_work_and_one_that_is_killed_is_missed_by_nobody() -> None:
    """Three at once, one of which ends in the middle of writing and releases nothing."""
    backlog, writer, hanging = Backlog(), Writer(), Writer()
    hanging.gate.clear()
    expected = {f"c{number}": backlog.fill(f"c{number}", 30) for number in range(12)}
    short = replace(QUICK, archive_claim=0.2, archive_leave=0.01)
    way = Way(backlog)
    killed = asyncio.create_task(Archiver(cast("Backlog", way), hanging, timing=short).run(asyncio.Event()))
    await wait_until(lambda: asyncio.sleep(0, hanging.running == AT_ONCE), "one to have claimed")
    way.is_cut = True
    async with running(Archiver(backlog, writer, timing=short)), running(Archiver(backlog, writer, timing=short)):
        await wait_until(backlog.is_empty, "nothing to wait")
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert writer.records == expected


async def test_a_stop_lets_it_finish_what_it_has_begun() -> None:
    """It writes and settles the batch, and begins no other one."""
    backlog, writer = Backlog(), Writer()
    records = backlog.fill("c", 30)
    writer.gate.clear()
    stop = asyncio.Event()
    task = asyncio.create_task(Archiver(backlog, writer, timing=QUICK).run(stop))
    await wait_until(lambda: asyncio.sleep(0, writer.running), "a batch")
    stop.set()
    for _ in range(20):
        await asyncio.sleep(0)  # it has noticed, and waits for the batch
    assert writer.running
    writer.gate.set()
    await asyncio.wait_for(task, 20)
    written = writer.records["c"]
    assert written == records[: len(written)]
    assert 0 < len(written) < 30
    assert list((await backlog.peek("c")).stored) == records[len(written) :]


async def test_a_stop_waits_for_no_database_that_hangs() -> None:
    """What was begun stays in Redis, and others may have it at once."""
    backlog, writer = Backlog(), Writer()
    records = backlog.fill("c", 3)
    writer.gate.clear()
    stop = asyncio.Event()
    task = asyncio.create_task(Archiver(backlog, writer, timing=replace(QUICK, archive_leave=0.01)).run(stop))
    await wait_until(lambda: asyncio.sleep(0, writer.running), "a batch")
    stop.set()
    await asyncio.wait_for(task, 20)
    batch = await backlog.take("c", archiver="other", ttl=timedelta(seconds=60), most_bytes=1 << 20)
    assert batch is not None
    assert batch.stored == tuple(records)


async def test_what_is_quiet_leaves_the_listing_and_counts_as_idle() -> None:
    """And not before: one that still has something waiting, or came back, stays."""
    backlog, writer, checkpoints = Backlog(), Writer(), Checkpoints()
    backlog.fill("c", 1)
    timing = replace(QUICK, archive_quiet=0.02)
    async with running(Archiver(backlog, writer, checkpoints=checkpoints, timing=timing)):
        await wait_until(lambda: asyncio.sleep(0, checkpoints.idled == ["c"]), "it to be idle")
        assert not await backlog.waiting()
        backlog.fill("c", 1, first=2)
        await wait_until(lambda: asyncio.sleep(0, checkpoints.idled == ["c", "c"]), "it to be idle again")
    assert checkpoints.noted == ["c", "c"]
    assert len(writer.records["c"]) == 2


async def test_what_is_not_quiet_stays_listed() -> None:
    """Owners need not enter it anew for each entry."""
    backlog, writer = Backlog(), Writer()
    backlog.fill("c", 1)
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(backlog.is_empty, "nothing to wait")
        assert [one.conversation_id for one in await backlog.waiting()] == ["c"]


async def test_what_is_done_beside_keeps_nothing_from_being_archived() -> None:
    """A checkpoint that fails is counted, and that is all."""
    backlog, writer, checkpoints = Backlog(), Writer(), Checkpoints()
    checkpoints.fault = RuntimeError("a defect")
    expected = backlog.fill("c", 20)
    archiver = Archiver(backlog, writer, checkpoints=checkpoints, timing=QUICK)
    async with running(archiver):
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records["c"] == expected
    assert archiver.failures.counts["archive checkpoint"] >= 1
    assert "archive" not in archiver.failures.counts


async def test_who_can_fill_a_gap_is_told_of_it() -> None:
    """With each batch that has left one."""
    backlog, writer, told = Backlog(), Writer(), []
    backlog.fill("c", 1)
    writer.gaps = (Gap(1, 4, "given up"),)

    async def note(conversation_id: str) -> None:
        told.append(conversation_id)

    async with running(Archiver(backlog, writer, when_lacking=note, timing=QUICK)):
        await wait_until(lambda: asyncio.sleep(0, told), "it to be told")
    assert told == ["c"]


async def test_once_ends_when_nothing_waits() -> None:
    """It counts the entries, and raises what keeps it from archiving them."""
    backlog, writer = Backlog(), Writer()
    expected = {f"c{number}": backlog.fill(f"c{number}", 30) for number in range(3)}
    assert await Archiver(backlog, writer, timing=QUICK).once() == 90
    assert writer.records == expected
    backlog.fill("c0", 1, first=31)
    writer.fault = AWAY
    with pytest.raises(ArchiveUnavailableError):
        await Archiver(backlog, writer, timing=QUICK).once()


async def test_the_more_are_listed_the_longer_it_waits() -> None:
    """Between bounds: a look asks for each of them."""
    backlog, writer = Backlog(), Writer()
    archiver = Archiver(backlog, writer)
    assert await archiver._look() >= 0.25  # nothing at all
    backlog.fill("c", 1)
    few = await archiver._look()
    for number in range(300):
        backlog.fill(f"c{number}", 1)
    many = await archiver._look()
    assert 0.05 < few < many
