"""Conversations that fall idle: they leave the listing, and what is done for them then keeps nobody waiting."""

import asyncio
from dataclasses import replace

from conversation_actors.archive import idle
from conversation_actors.archive.archiver import Archiver
from tests.support.archiver_fakes import AWAY, QUICK, Backlog, Checkpoints, Writer, running
from tests.support.waiting import wait_until

SOON = replace(QUICK, archive_quiet=0.02, again=0.005)


async def test_a_checkpoint_that_hangs_keeps_nobody_from_being_archived_and_no_stop_from_being_heard() -> None:
    """Also of those that fall idle later, which leave the listing all the same."""
    backlog, writer, checkpoints = Backlog(), Writer(), Checkpoints()
    checkpoints.gate.clear()
    backlog.fill("first", 1)
    stop = asyncio.Event()
    task = asyncio.create_task(Archiver(backlog, writer, checkpoints=checkpoints, timing=SOON).run(stop))
    await wait_until(lambda: asyncio.sleep(0, checkpoints.idled), "one to be idle")
    expected = {f"c{number}": backlog.fill(f"c{number}", 3) for number in range(5)}
    await wait_until(lambda: asyncio.sleep(0, len(writer.records) == 6), "the others")
    await wait_until(lambda: _is_unlisted(backlog), "nothing to be listed")
    assert checkpoints.idled == ["first"]
    stop.set()
    await asyncio.wait_for(task, 20)
    assert {name: writer.records[name] for name in expected} == expected


async def _is_unlisted(backlog: Backlog) -> bool:
    return not await backlog.waiting()


async def test_idle_conversations_wait_while_the_database_is_away() -> None:
    """Their checkpoints are made when it is back, and not tried before."""
    backlog, writer, checkpoints = Backlog(), Writer(), Checkpoints()
    writer.fault = AWAY
    backlog.fill("other", 1)
    archiver = Archiver(backlog, writer, checkpoints=checkpoints, timing=SOON)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, archiver.is_away), "the database to be away")
        await _let_be_quiet(backlog, "c")
        await wait_until(lambda: _is_listed(backlog, ["other"]), "it to leave the listing")
        attempts = len(writer.attempts)
        await wait_until(lambda: asyncio.sleep(0, len(writer.attempts) > attempts + 3), "some more attempts")
        assert checkpoints.idled == []
        writer.fault = None
        await wait_until(lambda: asyncio.sleep(0, checkpoints.idled == ["c", "other"]), "both to be idle")


async def _let_be_quiet(backlog: Backlog, conversation_id: str) -> None:
    """Leave a conversation in the listing of which nothing waits."""
    backlog.fill(conversation_id, 1)
    batch = await backlog.peek(conversation_id)
    await backlog.settle(conversation_id, backlog=batch.backlog, through=batch.through)


async def _is_listed(backlog: Backlog, names: list[str]) -> bool:
    return [one.conversation_id for one in await backlog.waiting()] == names


async def test_a_checkpoint_that_fails_is_counted_and_the_next_one_is_made() -> None:
    """It is not tried again: bringing the conversation back only replays more."""
    backlog, writer, failing = Backlog(), Writer(), Failing()
    backlog.fill("bad", 1)
    archiver = Archiver(backlog, writer, checkpoints=failing, timing=SOON)
    async with running(archiver):
        await wait_until(lambda: asyncio.sleep(0, failing.idled == ["bad"]), "the first one")
        backlog.fill("good", 1)
        await wait_until(lambda: asyncio.sleep(0, failing.idled == ["bad", "good"]), "the other one")
    assert archiver.failures.counts == {"archive checkpoint": 1}


class Failing(Checkpoints):
    """One of them cannot be made."""

    async def idle(self, conversation_id: str) -> None:
        """Note it."""
        await super().idle(conversation_id)
        if conversation_id == "bad":
            raise AWAY


async def test_a_look_takes_some_from_the_listing_and_few_wait_for_their_checkpoint() -> None:
    """A look keeps all others waiting. Beyond the bound no checkpoint is made, which is counted."""
    backlog, checkpoints = Backlog(), Checkpoints()
    checkpoints.gate.clear()
    for number in range(12):
        await _let_be_quiet(backlog, f"c{number:02}")
    resting = idle.Idle(backlog, checkpoints.idle, timing=replace(SOON, archive_quiet=0.0), at_once=5, most=7)
    left = []
    while listed := await backlog.waiting():
        await resting.unlist(listed, running=set())
        left.append(len(await backlog.waiting()))
    assert left == [7, 2, 0]
    assert resting.failures.counts == {"archive checkpoint": 5}
    checkpoints.gate.set()
    task = asyncio.create_task(resting.run())
    await wait_until(lambda: asyncio.sleep(0, len(checkpoints.idled) == 7), "those that wait")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert checkpoints.idled == [f"c{number:02}" for number in range(7)]
