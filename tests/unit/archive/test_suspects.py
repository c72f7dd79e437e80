"""A conversation that the database refuses although it takes others: it gets through, and keeps nobody back."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from conversation_actors.archive.archiver import AT_ONCE, GROUP, Archiver
from conversation_actors.archive.suspects import Suspects
from conversation_actors.archive.writer import Written
from conversation_actors.store.backlog import Batch
from tests.support.archiver_fakes import AWAY, QUICK, Backlog, Writer, running
from tests.support.waiting import wait_until


@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.parametrize("others", [0, 40])
async def test_what_takes_too_long_at_once_is_archived_in_smaller_batches(most: int, others: int) -> None:
    """Down to one record, also if nobody else is there to tell that the database is well."""
    backlog, writer = Backlog(), Writer()
    backlog.most_bytes = 1 << 20
    writer.most_records["slow"] = most
    expected = {"slow": backlog.fill("slow", 60)}
    expected |= {f"c{number}": backlog.fill(f"c{number}", 3) for number in range(others)}
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected


async def test_a_batch_written_alone_is_no_larger_than_it_was_among_others() -> None:
    """And half as large the next time: it may be its size that takes too long."""
    backlog, writer = Backlog(), Recorded()
    backlog.most_bytes = 1 << 20
    writer.fault = AWAY
    names = {f"c{number}" for number in range(AT_ONCE * GROUP)}
    expected = {name: backlog.fill(name, 500) for name in names}
    async with running(Archiver(backlog, writer, timing=QUICK)):
        await wait_until(lambda: asyncio.sleep(0, all(len(writer.sizes[name]) > 3 for name in names)), "attempts")
        sizes = {name: writer.sizes[name][:4] for name in names}
        writer.fault = None
        await wait_until(backlog.is_empty, "nothing to wait")
    assert all(first <= 8 << 10 for first, *_ in sizes.values())
    assert all(second <= first for first, second, *_ in sizes.values())
    assert all(later <= earlier / 2 for _, *alone in sizes.values() for earlier, later in pairwise(alone))
    assert writer.records == expected


class Recorded(Writer):
    """It knows how much it was to write."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.sizes: dict[str, list[int]] = defaultdict(list)

    async def write_all(self, batches: Mapping[str, Sequence[bytes]]) -> dict[str, Written]:
        """Note the bytes of each conversation."""
        for name, records in batches.items():
            self.sizes[name].append(sum(map(len, records)))
        return await super().write_all(batches)


async def test_one_that_hangs_until_its_time_is_up_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    """Once the others were written without it, the database does not count as away, and others go on meanwhile."""
    caplog.set_level(logging.INFO, "conversation_actors")
    backlog, writer = Backlog(), Writer()
    hanging = writer.hanging["bad"] = asyncio.Event()
    hanging.set()
    writer.faults["bad"] = AWAY
    expected = {name: backlog.fill(name, 1) for name in ("a", "bad", "b")}
    archiver = Archiver(backlog, writer, timing=QUICK)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, archiver.failures.counts.get("archive")), "it to be known")
        await wait_until(lambda: asyncio.sleep(0, not archiver.is_away), "the others")
        told = _outages(caplog)
        for turn in range(2, 5):
            hanging.clear()
            attempts, failures = writer.attempts.count("bad"), archiver.failures.counts["archive"]
            await wait_until(lambda n=attempts: asyncio.sleep(0, writer.attempts.count("bad") > n), "an attempt")  # type: ignore[misc]
            expected["a"] += backlog.fill("a", 1, first=turn)
            await wait_until(lambda: asyncio.sleep(0, writer.records["a"] == expected["a"]), "what came meanwhile")
            hanging.set()
            await wait_until(lambda n=failures: asyncio.sleep(0, archiver.failures.counts["archive"] > n), "its end")  # type: ignore[misc]
            assert not archiver.is_away
        assert _outages(caplog) == told
        del writer.faults["bad"]
        await wait_until(backlog.is_empty, "nothing to wait")
    assert writer.records == expected


def _outages(caplog: pytest.LogCaptureFixture) -> int:
    return len([record for record in caplog.records if record.name.endswith("outage")])


async def test_two_that_hang_leave_room_for_others() -> None:
    """They are tried one after the other."""
    backlog, writer = Backlog(), Writer()
    for name in ("bad", "worse"):
        writer.hanging[name] = asyncio.Event()
        writer.faults[name] = RuntimeError("a defect")
        writer.hanging[name].set()
        backlog.fill(name, 1)
    archiver = Archiver(backlog, writer, timing=replace(QUICK, archive_leave=0.01))
    async with running(archiver):
        await wait_until(
            lambda: asyncio.sleep(0, archiver._suspects.is_faulty("bad") and archiver._suspects.is_faulty("worse")),
            "both to be known",
        )
        for hanging in writer.hanging.values():
            hanging.clear()
        await wait_until(lambda: asyncio.sleep(0, writer.running), "an attempt")
        expected = backlog.fill("good", 3)
        await wait_until(lambda: asyncio.sleep(0, writer.records["good"] == expected), "the other one")
        assert writer.running == 1
        backlog.clear()
        await wait_until(lambda: asyncio.sleep(0, "worse" not in archiver._suspects), "what waits no more")


def batch(size: int, *, left: int = 0) -> Batch:
    """Return one of so many bytes, in records of ten."""
    return Batch("backlog", 0, (b"0123456789",) * (size // 10), left)


def test_an_outage_is_not_blamed_on_those_who_failed_in_it() -> None:
    """When the database answers once and is gone again, one of them is suspected at most."""
    suspects = Suspects(QUICK.archive_faulty)
    names = [f"c{number}" for number in range(10)]
    assert not suspects.refused({name: batch(100) for name in names}, began=suspects.written)
    assert not any(suspects.refused({name: batch(100)}, began=suspects.written) for name in names)
    suspects.archived(["c0"], {"c0": batch(100)})
    blamed = [suspects.refused({name: batch(100)}, began=suspects.written) for name in names[1:]]
    assert blamed.count(True) == 1


def test_one_that_was_written_before_the_database_went_is_not_blamed() -> None:
    """Nobody else was written since it was tried."""
    suspects = Suspects(QUICK.archive_faulty)
    suspects.archived(["c"], {"c": batch(100)})
    assert not suspects.refused({"c": batch(100)}, began=suspects.written)
    suspects.archived(["other"], {"other": batch(100)})
    assert suspects.refused({"c": batch(100)}, began=suspects.written)
    assert suspects.is_resting("c")


def test_a_suspect_is_forgotten_when_all_of_it_is_written() -> None:
    """Until then it may have more at once with each success."""
    suspects = Suspects(QUICK.archive_faulty)
    for _ in range(5):
        suspects.refused({"c": batch(suspects.most_bytes("c", 320))}, began=0)
    assert suspects.most_bytes("c", 320) == 10
    for _ in range(3):
        suspects.refused({"c": batch(10)}, began=0)
    assert suspects.most_bytes("c", 320) == 5  # one record is taken nevertheless
    suspects.archived(["c"], {"c": batch(10, left=9)})
    assert suspects.most_bytes("c", 320) == 10
    suspects.archived(["c"], {"c": batch(10, left=8)})
    assert "c" in suspects
    assert suspects.most_bytes("c", 320) == 20
    suspects.archived(["c"], {"c": batch(20)})
    assert "c" not in suspects
    assert suspects.most_bytes("c", 320) == 320


def test_a_suspect_that_waits_no_more_is_forgotten() -> None:
    """Another archiver may have written it, or it was deleted."""
    suspects = Suspects(QUICK.archive_faulty)
    suspects.refused({"c": batch(10), "d": batch(10)}, began=0)
    suspects.keep({"d"})
    assert "c" not in suspects
    assert "d" in suspects
