"""What is done beside archiving."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from conversation_actors.archive.retention import Retention, kept_by
from conversation_actors.archive.upkeep import Chore, Upkeep
from conversation_actors.errors import ArchiveUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.settings import ArchiveSettings, BackendSettings, Settings
from tests.support.waiting import wait_until


class Counted:
    """A chore that counts, and fails the first time if told so."""

    def __init__(self, *, fails: bool = False) -> None:
        """Never done yet."""
        self.times = 0
        self._fails = fails

    async def __call__(self) -> int:
        """Do it."""
        self.times += 1
        if self._fails and self.times == 1:
            message = "a defect"
            raise RuntimeError(message)
        return 0


async def test_chores_are_done_at_the_start_and_again_in_their_time() -> None:
    """Also after one has failed, which keeps the others from nothing."""
    failures, often, seldom = Failures(), Counted(fails=True), Counted()
    upkeep = Upkeep([Chore("often", often, 0.001), Chore("seldom", seldom, 3600)], failures=failures)
    stop = asyncio.Event()
    task = asyncio.create_task(upkeep.run(stop))
    await wait_until(lambda: asyncio.sleep(0, often.times >= 3 and seldom.times), "both")
    stop.set()
    await asyncio.wait_for(task, 20)
    assert seldom.times == 1
    assert failures.counts == {"often": 1}


async def test_a_stop_waits_for_no_chore() -> None:
    """A chore may take long, and may be repeated."""

    async def hang() -> int:
        return int(await asyncio.Event().wait())

    stop = asyncio.Event()
    task = asyncio.create_task(Upkeep([Chore("hang", hang, 1)], failures=Failures()).run(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 20)


async def test_once_raises_what_fails() -> None:
    """A person waits for it."""
    with pytest.raises(RuntimeError, match="a defect"):
        await Upkeep([Chore("it", Counted(fails=True), 1)], failures=Failures()).once()


class Purging:
    """A writer with lives of certain ages."""

    def __init__(self, *active_at: float, at_once: int = 100) -> None:
        """These are their last moments; removing more than `at_once` takes too long."""
        self.active_at = list(active_at)
        self.at_once, self.asked, self.kept_for = at_once, list[int](), set[str | None]()

    async def purge(self, before: float, *, most: int, kept_for: str | None = None) -> int:
        """Remove some."""
        self.asked.append(most)
        self.kept_for.add(kept_for)
        if most > self.at_once:
            message = "the time is up"
            raise ArchiveUnavailableError(message)
        due = [moment for moment in self.active_at if moment < before][:most]
        self.active_at = [moment for moment in self.active_at if moment not in due]
        return len(due)

    async def lacked(self, before: float, destination: str) -> int:
        """Nothing is lacking."""
        assert (before, destination) == (100.0, "backend")
        return 0


def test_an_outbox_keeps_what_redis_has() -> None:
    """A life that goes on after the archive has forgotten it would number its calls anew."""
    hour = timedelta(hours=1)
    url = SecretStr("https://backend.example")
    for instead, retention, kept in (
        (True, hour, 3 * hour), (True, 9 * hour, 9 * hour), (True, None, None), (False, hour, hour)
    ):  # fmt: skip
        settings = Settings(
            ttl=3 * hour,
            archive=ArchiveSettings(url=SecretStr("sqlite+aiosqlite:///archive.db"), retention=retention),
            backend=BackendSettings(url=url, instead=instead),
        )
        assert kept_by(settings) == kept


async def test_retention_removes_all_that_is_due() -> None:
    """In as many transactions as that takes, and nothing that is younger."""
    writer = Purging(*range(250))
    assert await Retention(writer, timedelta(seconds=10), clock=lambda: 210.0).purge() == 200
    assert writer.active_at == list(range(200, 250))
    assert writer.kept_for == {None}


async def test_retention_keeps_what_a_destination_lacks_each_time_it_tries() -> None:
    """The writer knows which lives those are."""
    writer = Purging(*range(250), at_once=30)
    kept = timedelta(seconds=10)
    await Retention(writer, kept, kept_for="backend", clock=lambda: 110.0).purge()
    assert writer.kept_for == {"backend"}


@pytest.mark.parametrize("at_once", [1, 30])
async def test_retention_removes_fewer_lives_at_once_where_many_take_too_long(at_once: int) -> None:
    """Down to one, and the next time it begins with about as many."""
    writer = Purging(*range(250), at_once=at_once)
    retention = Retention(writer, timedelta(seconds=10), clock=lambda: 110.0)
    assert await retention.purge() == 100
    assert writer.active_at == list(range(100, 250))
    writer.asked.clear()
    assert await retention.purge() == 0
    assert writer.asked[0] <= at_once * 2


async def test_retention_raises_when_the_database_does_not_remove_a_single_life() -> None:
    """It is away then."""
    writer = Purging(1.0, at_once=0)
    with pytest.raises(ArchiveUnavailableError):
        await Retention(writer, timedelta(seconds=10), clock=lambda: 110.0).purge()
    assert writer.asked == [100, 50, 25, 12, 6, 3, 1]
