"""``/health``: what a worker needs, each asked for a bounded time; and `ensure_agent`, `migrate`, the log's lines."""

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from agent_worker.development import develop
from agent_worker.failures import Failures
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.timing import Timing
from agent_worker.worker import health, migration
from agent_worker.worker.health import Health, HealthPortError, HealthServer
from conversation_actors import (
    ClusterUnavailableError,
    ConversationNotFoundError,
    Heartbeats,
    InvalidInputError,
    OutcomeUnknownError,
    Settings,
)
from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from tests.support.fakes import until
from tests.support.sessions.fakes_call import ROOM, FakeRooms, ShakyStore, ghost

DETAILS = {"room": ROOM, "agent_name": "support", "agent_identity": "agent-1", "attempt": 0, "worker_id": "AW_1"}
MIGRATE = RestartReason.MIGRATE
VALID_FOR = timedelta(seconds=3)


class Ray:
    """A cluster that answers, refuses, hangs or breaks."""

    def __init__(self) -> None:
        """It answers."""
        self.trouble: Exception | None = None
        self.hangs = False
        self.asked = 0

    async def __call__(self, settings: Settings) -> None:
        """Be checked."""
        assert isinstance(settings, Settings)
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Ray."""
    cluster = Ray()
    monkeypatch.setattr(health, "check_cluster", cluster)
    return cluster


@pytest.fixture
def rooms(store: ShakyStore) -> FakeRooms:
    """LiveKit."""
    return FakeRooms(people=["alice"], store=store)


Reporting = Callable[[Timing], Health]


@pytest.fixture
def reporting(heartbeats: Heartbeats, rooms: FakeRooms, ray: Ray) -> Reporting:
    """What is reported of them, by a worker that waits so long."""
    assert ray.trouble is None
    told = (heartbeats, rooms.as_rooms, Settings())
    return lambda timing: Health(*told, jobs=lambda: 3, draining=lambda: False, timing=timing)


@pytest.fixture
def report(reporting: Reporting) -> Health:
    """What is reported, anew with each question."""
    return reporting(Timing(health_fresh=0.0))


async def test_all_is_well(report: Health) -> None:
    """In so many words."""
    assert await report.report() == {
        "ok": True,
        "ray": "ok",
        "redis": "ok",
        "livekit": "ok",
        "jobs": 3,
        "draining": False,
        "failures": {},
    }


async def test_what_went_wrong_in_the_background_is_counted(heartbeats: Heartbeats, rooms: FakeRooms, ray: Ray) -> None:
    """By task; that does not make a worker ill, as it was tried again."""
    assert ray.trouble is None
    failures = Failures()
    health = Health(
        heartbeats, rooms.as_rooms, Settings(), jobs=lambda: 0, draining=lambda: False, failures=lambda: failures.counts
    )
    failures.count("give_over", TypeError("private words"))
    told = await health.report()
    assert (told["ok"], told["failures"]) == (True, {"give_over": 1})


async def test_each_trouble_is_told_by_name(report: Health, ray: Ray, store: ShakyStore, rooms: FakeRooms) -> None:
    """And hides none of the others."""
    ray.trouble = ClusterUnavailableError("no cluster")
    store.agents.trouble = StoreUnavailableError("Redis is away")
    rooms.is_down = True
    told = await report.report()
    assert told["ok"] is False
    assert told["ray"] == "cannot be reached (ClusterUnavailableError)"
    assert told["redis"] == "cannot be reached (StoreUnavailableError)"
    assert told["livekit"] == "cannot be reached (RoomServiceError)"
    rooms.is_down = False
    assert (await report.report())["livekit"] == "ok"


async def test_one_that_hangs_is_waited_for_only_so_long(reporting: Reporting, ray: Ray) -> None:
    """And the others' answers are told."""
    ray.hangs = True  # for ever: it is the report that ends
    told = await reporting(Timing(health=0.5)).report()
    assert (told["ok"], told["ray"], told["redis"]) == (False, "no answer in 0.5 s", "ok")


async def _get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, await response.json() if "json" in response.content_type else None


async def test_over_http(report: Health, ray: Ray) -> None:
    """200 or 503, for whatever looks after processes; and nothing else is there."""
    async with HealthServer(report, host="127.0.0.1", port=0) as server:
        status, told = await _get(f"{server.url}/health")
        assert (status, told["ok"]) == (200, True)
        ray.trouble = ClusterUnavailableError("no cluster")
        status, told = await _get(f"{server.url}/health")
        assert (status, told["ray"]) == (503, "cannot be reached (ClusterUnavailableError)")
        assert (await _get(f"{server.url}/"))[0] == 404
    with pytest.raises(RuntimeError):
        assert server.url


async def test_a_defect_is_not_well(report: Health, ray: Ray) -> None:
    """A check that breaks is told as trouble, by its kind."""
    ray.trouble = TypeError("broken")
    told = await report.report()
    assert (told["ok"], told["redis"]) == (False, "ok")
    assert "TypeError" in told["ray"]


_ADDRESSED = "nobody answers at redis://:secret@10.1.2.3:6379/0 (ray.internal:6379)"


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (ClusterUnavailableError(_ADDRESSED), "cannot be reached (ClusterUnavailableError)"),
        (StoreMisconfiguredError(_ADDRESSED), "a person has to look (StoreMisconfiguredError)"),
        (InvalidInputError(_ADDRESSED, field="redis_url"), "refuses (InvalidInputError)"),
        (OSError(_ADDRESSED), "fails (OSError)"),
    ],
)
async def test_what_is_told_to_everybody_names_no_host(
    report: Health, ray: Ray, caplog: pytest.LogCaptureFixture, trouble: Exception, told: str
) -> None:
    """Its kind alone is told; the reason, with its address, stands in the worker's log, once for each change."""
    caplog.set_level(logging.INFO)
    ray.trouble = trouble
    for _ in range(3):
        assert (await report.report())["ray"] == told
    ray.trouble = None
    assert (await report.report())["ray"] == "ok"
    lines = [(line.levelname, line.getMessage(), vars(line).get("reason")) for line in caplog.records]
    assert lines == [("WARNING", "a health check fails", _ADDRESSED), ("INFO", "a health check is well again", None)]


async def test_whoever_asks_at_once_shares_one_look(reporting: Reporting, ray: Ray) -> None:
    """However many ask while an answer is fresh, Ray, Redis and LiveKit are asked once."""
    report = reporting(Timing(health_fresh=3600.0))
    told = await asyncio.gather(*(report.report() for _ in range(50)))
    assert [one["ok"] for one in told] == [True] * 50
    ray.trouble = ClusterUnavailableError("away")
    assert (await report.report())["ok"]
    assert ray.asked == 1


async def test_an_answer_that_is_not_fresh_is_asked_for_again(report: Health, ray: Ray) -> None:
    """What has changed since is told."""
    assert (await report.report())["ok"]
    ray.trouble = ClusterUnavailableError("away")
    assert not (await report.report())["ok"]
    assert ray.asked == 2


async def test_who_stops_asking_spoils_it_for_nobody(reporting: Reporting, ray: Ray) -> None:
    """A request that is cancelled leaves the look to the others who wait for it."""
    report = reporting(Timing(health=0.5))
    ray.hangs = True
    impatient, patient = asyncio.create_task(report.report()), asyncio.create_task(report.report())
    await until(lambda: ray.asked == 1)
    impatient.cancel()
    assert (await patient)["ray"] == "no answer in 0.5 s"
    assert ray.asked == 1


async def test_calls_and_draining_are_as_of_now(heartbeats: Heartbeats, rooms: FakeRooms, ray: Ray) -> None:
    """Only what is asked of others is remembered for a second."""
    assert ray.asked == 0
    calls = iter(range(2))
    health = Health(heartbeats, rooms.as_rooms, Settings(), jobs=lambda: next(calls), draining=lambda: False)
    assert [(await health.report())["jobs"] for _ in range(2)] == [0, 1]


# Bringing an agent to a room


async def begin(heartbeats: Heartbeats, holder: str = "job-1") -> None:
    """An agent is in the room's conversation."""
    await heartbeats.start(ROOM, holder, valid_for=VALID_FOR, group="worker-1", details=DETAILS)


async def test_a_room_with_an_agent_gets_no_other(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Heard of in time."""
    await begin(heartbeats)
    assert not await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)
    assert rooms.asked == []


async def test_a_room_that_is_not_there_gets_none(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """The token that creates it brings one along."""
    rooms.exists = False
    assert not await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)


async def test_a_room_without_an_agent_gets_one(heartbeats: Heartbeats, rooms: FakeRooms) -> None:
    """Once nobody is heard of; one that has just joined is given time, unless there is a dead one's record."""
    rooms.agents = [ghost("agent-2", age=1.0)]
    assert not await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)
    rooms.agents = [ghost("agent-2", age=60.0)]
    assert await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)
    assert rooms.dispatched == [(ROOM, "support", Assignment(conversation_id=ROOM))]
    await begin(heartbeats)
    assert not await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)
    await heartbeats.claim(ROOM, "w", hold=VALID_FOR, holder="job-1")
    rooms.agents = [ghost("agent-1", age=1.0)]
    assert await develop.ensure_agent(ROOM, "support", heartbeats, rooms.as_rooms)
    assert rooms.dispatched[1][2].replaces == "job-1"


# Migrating a call


@pytest.fixture
def migrating(monkeypatch: pytest.MonkeyPatch, rooms: FakeRooms) -> Callable[..., Any]:
    """Migrate, with these rooms."""

    class Entered:
        def __init__(self, _settings: Any, **_timing: Any) -> None:
            """Any settings."""

        async def __aenter__(self) -> FakeRooms:
            return rooms

        async def __aexit__(self, *_error: object) -> None:
            """Nothing to close."""

    monkeypatch.setattr(migration, "Rooms", Entered)
    timing = Timing(migration_look=0.002, migration_declined=(0.002, 0.01))
    return functools.partial(migration.migrate, timing=timing)


async def test_a_call_moves_to_another_worker(
    heartbeats: Heartbeats, rooms: FakeRooms, migrating: Callable[..., Any]
) -> None:
    """Asked for once, in order; over when another agent is heard of."""
    await begin(heartbeats)
    moving = asyncio.create_task(migrating(ROOM, timeout=timedelta(seconds=5)))
    await until(lambda: bool(rooms.dispatched))
    wanted = Assignment(conversation_id=ROOM, replaces="job-1", is_planned=True, avoid="AW_1", reason=MIGRATE)
    assert rooms.dispatched == [(ROOM, "support", wanted)]
    assert not moving.done()
    await begin(heartbeats, "job-2")
    assert await moving == "job-2"


async def test_a_call_that_lands_where_it_was_is_sent_again(
    heartbeats: Heartbeats, rooms: FakeRooms, migrating: Callable[..., Any]
) -> None:
    """LiveKit's server gives the job to any worker: who declines it makes room for the next one."""
    await begin(heartbeats)
    moving = asyncio.create_task(migrating(ROOM, timeout=timedelta(seconds=5)))
    for number in (1, 2):
        await until(lambda number=number: len(rooms.dispatched) == number)  # type: ignore[misc]
        await until_called(heartbeats)
        (called,) = [one for one in await heartbeats.expected(ROOM, "support") if not one.is_declined]
        await heartbeats.amend(replace(called, is_declined=True), keep=VALID_FOR)
    await until(lambda: len(rooms.dispatched) == 3)
    assert not moving.done()
    await begin(heartbeats, "job-2")
    assert await moving == "job-2"
    assert {assignment.avoid for *_, assignment in rooms.dispatched} == {"AW_1"}


async def until_called(heartbeats: Heartbeats) -> None:
    """Return when LiveKit has answered about everybody who is expected."""
    async with asyncio.timeout(5):
        while not all(one.call for one in await heartbeats.expected(ROOM, "support")):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.001)


async def test_a_call_of_another_role_moves_by_its_role(
    heartbeats: Heartbeats, rooms: FakeRooms, migrating: Callable[..., Any]
) -> None:
    """The agent beside it stays."""
    await begin(heartbeats)
    await heartbeats.start(ROOM, "job-t", role="translator", valid_for=VALID_FOR, details=DETAILS)
    moving = asyncio.create_task(migrating(ROOM, role="translator", timeout=timedelta(seconds=5)))
    await until(lambda: bool(rooms.dispatched))
    assert (rooms.dispatched[0][2].role, rooms.dispatched[0][2].replaces) == ("translator", "job-t")
    await heartbeats.start(ROOM, "job-u", role="translator", valid_for=VALID_FOR, details=DETAILS)
    assert await moving == "job-u"


async def test_a_call_moves_to_another_agent(
    heartbeats: Heartbeats, rooms: FakeRooms, migrating: Callable[..., Any]
) -> None:
    """Which may run on the same worker. Nobody comes: it is told, and the call stays."""
    await begin(heartbeats)
    with pytest.raises(OutcomeUnknownError, match="billing"):
        await migrating(ROOM, to="billing", timeout=timedelta(seconds=0.02))
    wanted = Assignment(conversation_id=ROOM, replaces="job-1", is_planned=True, reason=MIGRATE)
    assert rooms.dispatched == [(ROOM, "billing", wanted)]
    kept = await heartbeats.find(ROOM)
    assert kept is not None
    assert kept.is_alive


async def test_where_no_agent_is_nothing_moves(
    heartbeats: Heartbeats, rooms: FakeRooms, migrating: Callable[..., Any]
) -> None:
    """No record, a dead agent's, or another program's; and no id."""
    with pytest.raises(ConversationNotFoundError):
        await migrating(ROOM)
    await begin(heartbeats)
    await heartbeats.claim(ROOM, "w", hold=VALID_FOR, holder="job-1")
    with pytest.raises(ConversationNotFoundError):
        await migrating(ROOM)
    await heartbeats.start(ROOM, "job-1", valid_for=VALID_FOR, details={"x": 1})
    with pytest.raises(ConversationNotFoundError):
        await migrating(ROOM)
    for arguments in ({"conversation_id": ""}, {"conversation_id": ROOM, "to": "a\nb"}):
        with pytest.raises(InvalidInputError):
            await migrating(**arguments)
    assert rooms.asked == []


async def test_a_port_that_is_taken_is_told_in_one_sentence(report: Health) -> None:
    """A second worker, or a watcher beside one, is told what to set."""
    async with HealthServer(report, host="127.0.0.1", port=0) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(HealthPortError, match=rf"health_port: {port} .*set AGENT_HEALTH_PORT"):
            async with HealthServer(report, host="127.0.0.1", port=port):
                pytest.fail("two listen on one port")
