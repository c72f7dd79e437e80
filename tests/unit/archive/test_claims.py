"""Claims: they last as long as the write that they are for, and no longer than that if the archiver dies."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from conversation_actors.archive.archiver import AT_ONCE, Archiver
from conversation_actors.archive.claims import Claims
from conversation_actors.errors import StoreUnavailableError
from conversation_actors.failures import Failures
from tests.support.archiver_fakes import QUICK, Backlog, Writer, running
from tests.support.waiting import wait_until

SECONDS = 0.03
TTL = timedelta(seconds=SECONDS)


async def test_a_claim_outlasts_a_write_that_takes_long() -> None:
    """Others would only wait for the same row. It ends with the write."""
    now = [1000.0]
    backlog = Backlog(lambda: now[0])
    backlog.fill("c", 3)
    claims = Claims(backlog, ttl=TTL, failures=Failures())
    assert (await claims.take({"c": 100}))["c"] is not None
    async with claims.held(["c"]):
        for _ in range(10):
            now[0] += SECONDS * 0.9
            assert await backlog.take("c", archiver="other", ttl=TTL, most_bytes=1) is None
            takes = backlog.takes
            await wait_until(lambda n=takes: asyncio.sleep(0, backlog.takes > n), "a renewal")  # type: ignore[misc]
    assert await backlog.take("c", archiver="other", ttl=TTL, most_bytes=1) is not None


async def test_a_claim_that_cannot_be_renewed_spoils_no_write() -> None:
    """Redis may be away for a moment."""
    backlog = Backlog()
    backlog.fill("c", 3)
    failures = Failures()
    claims = Claims(backlog, ttl=TTL, failures=failures)
    async with claims.held(["c"]):
        backlog.faults["take"] = StoreUnavailableError("Redis is away")
        takes = backlog.takes
        await wait_until(lambda: asyncio.sleep(0, backlog.takes > takes + 2), "attempts")
    assert failures.counts == {}


async def test_an_archiver_renews_its_claims_while_it_writes() -> None:
    """Of all that it writes at once."""
    backlog, writer = Backlog(), Writer()
    writer.gate.clear()
    for name in ("a", "b", "c", "d"):
        backlog.fill(name, 3)
    async with running(Archiver(backlog, writer, timing=replace(QUICK, archive_claim=SECONDS))):
        await wait_until(lambda: asyncio.sleep(0, writer.running == AT_ONCE), "two writes")
        takes = backlog.takes
        await wait_until(lambda: asyncio.sleep(0, backlog.takes >= takes + 12), "three renewals")
        assert writer.running == AT_ONCE
        writer.gate.set()
        await wait_until(backlog.is_empty, "nothing to wait")
