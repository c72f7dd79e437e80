"""Jobs that end before they have opened their conversation: who has left is not followed, who was killed is."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol.models import ParticipantInfo

from tests.e2e.calls import dispatch, somebody
from tests.e2e.scene import Scene
from tests.e2e.unopened import CAME
from tests.support.processes import kill
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(140)]

SOON = 30.0
LONG = 10.0
"""A successor comes in less than two seconds."""


class Came:
    """What the jobs have written down."""

    def __init__(self, path: Path) -> None:
        """Nothing yet."""
        self.path = path

    def all(self) -> list[dict[str, Any]]:
        """One for each job that has connected, in order."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    async def number(self, number: int, *, patience: float = SOON) -> None:
        """Return when so many jobs have come."""

        async def is_there() -> bool:
            return len(self.all()) >= number

        await wait_until(is_there, f"job {number}", patience=patience)


@asynccontextmanager
async def in_a_call(scene: Scene, entrypoint: str) -> AsyncIterator[tuple[Came, rtc.Room]]:
    """The jobs of a call that is just beginning, and its caller."""
    came = Came(scene.directory / "came")
    await scene.worker("--entrypoint", f"tests.e2e.unopened:{entrypoint}", **{CAME: str(came.path)})
    async with somebody(scene.server, scene.room, *dispatch(scene.agent_name)) as caller:
        await came.number(1)
        yield came, caller


async def has_media(scene: Scene, job_id: str) -> None:
    """Return when the media of a job's participant is connected: who dies before that leaves the room at once."""

    async def is_connected() -> bool:
        there = {one.identity: one.state for one in await scene.server.participants(scene.room)}
        return there.get(f"agent-{job_id}") == ParticipantInfo.State.ACTIVE

    await wait_until(is_connected, f"the media of {job_id}", patience=SOON)


@pytest.mark.parametrize("entrypoint", ["leaving", "raising"])
async def test_who_leaves_before_it_attaches_is_not_followed(scene: Scene, entrypoint: str) -> None:
    """On purpose, or as its entrypoint has raised: the caller is there still, and one job was all."""
    async with in_a_call(scene, entrypoint) as (came, caller):
        with pytest.raises(TimeoutError):
            await came.number(2, patience=LONG)
        assert len(came.all()) == 1
        assert caller.isconnected()


async def test_who_is_killed_before_it_attaches_is_followed(scene: Scene) -> None:
    """It is a ghost in its room; once, as its successor lives."""
    async with in_a_call(scene, "preparing") as (came, _):
        await has_media(scene, came.all()[0]["job"])
        kill(came.all()[0]["pid"])
        await came.number(2)
        jobs = [one["job"] for one in came.all()]
        assert len(set(jobs)) == 2
