"""Jobs that end before they have opened their conversation: who has left is not followed, who was killed is."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol.models import ParticipantInfo

from tests.e2e.calls import dispatch, somebody
from tests.e2e.scene import Scene, SharedWorker, shared_worker
from tests.e2e.unopened import CAME
from tests.support.processes import kill
from tests.support.servers import wait_until
from tests.support.workers import OfflineModels

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(140)]

SOON = 30.0
NOT_FOLLOWED = "a job has ended without a conversation of its own, and is not followed"
"""What its worker logs when it has decided so."""
LONG = 3.0
"""Behind that decision. A successor comes in less than two seconds behind the other one."""


class Came:
    """What the jobs of one room have written down."""

    def __init__(self, path: Path, room: str) -> None:
        """Nothing yet."""
        self.path, self._room = path, room

    def all(self) -> list[dict[str, Any]]:
        """One for each job that has connected, in order."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [came for came in map(json.loads, lines) if came["room"] == self._room]

    async def number(self, number: int, *, patience: float = SOON) -> None:
        """Return when so many jobs have come."""

        async def is_there() -> bool:
            return len(self.all()) >= number

        await wait_until(is_there, f"job {number}", patience=patience)


@pytest.fixture(scope="module")
def came_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs of `worker` write."""
    return tmp_path_factory.mktemp("unopened") / "came"


@pytest.fixture(scope="module")
def worker(worker_environment: Mapping[str, str], models: OfflineModels, came_path: Path) -> Iterator[SharedWorker]:
    """The worker of all these jobs."""
    environment = {**worker_environment, **models.environment}
    with shared_worker(
        came_path.parent, environment, "tests.e2e.unopened:entrypoint", **{CAME: str(came_path)}
    ) as started:
        yield started


@asynccontextmanager
async def in_a_call(scene: Scene, worker: SharedWorker, came: Came, kind: str) -> AsyncIterator[rtc.Room]:
    """A call that is just beginning, and its caller."""
    async with somebody(scene.server, scene.room, *dispatch(worker.agent_name, kind)) as caller:
        await came.number(1)
        yield caller


@pytest.fixture
def came(came_path: Path, room: str) -> Came:
    """The jobs of the test's call."""
    return Came(came_path, room)


async def has_media(scene: Scene, job_id: str) -> None:
    """Return when the media of a job's participant is connected: who dies before that leaves the room at once."""

    async def is_connected() -> bool:
        there = {one.identity: one.state for one in await scene.server.participants(scene.room)}
        return there.get(f"agent-{job_id}") == ParticipantInfo.State.ACTIVE

    await wait_until(is_connected, f"the media of {job_id}", patience=SOON)


@pytest.mark.parametrize("kind", ["leaving", "raising"])
async def test_who_leaves_before_it_attaches_is_not_followed(
    scene: Scene, worker: SharedWorker, came: Came, kind: str
) -> None:
    """On purpose, or as its entrypoint has raised: the caller is there still, and one job was all."""
    async with in_a_call(scene, worker, came, kind) as caller:

        async def is_decided() -> bool:
            return any(NOT_FOLLOWED in line and scene.room in line for line in worker.process.log().splitlines())

        await wait_until(is_decided, "the worker to decide", patience=SOON)
        with pytest.raises(TimeoutError):
            await came.number(2, patience=LONG)
        assert len(came.all()) == 1
        assert caller.isconnected()


async def test_who_is_killed_before_it_attaches_is_followed(scene: Scene, worker: SharedWorker, came: Came) -> None:
    """It is a ghost in its room; once, as its successor lives."""
    async with in_a_call(scene, worker, came, "preparing"):
        await has_media(scene, came.all()[0]["job"])
        kill(came.all()[0]["pid"])
        await came.number(2)
        jobs = [one["job"] for one in came.all()]
        assert len(set(jobs)) == 2
