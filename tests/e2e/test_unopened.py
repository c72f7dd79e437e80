"""Jobs that end before they have opened their conversation: who has left is not followed, who was killed is."""

import json
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from tests.e2e.calls import dispatch
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


async def in_a_call(scene: Scene, entrypoint: str) -> tuple[Came, rtc.Room]:
    """The jobs of a call that is just beginning, and its caller."""
    came = Came(scene.directory / "came")
    await scene.worker("--entrypoint", f"tests.e2e.unopened:{entrypoint}", **{CAME: str(came.path)})
    caller = rtc.Room()
    token = scene.server.token("caller", scene.room, dispatch=dispatch(scene.agent_name))
    await caller.connect(scene.server.url, token)
    await came.number(1)
    return came, caller


@pytest.mark.parametrize("entrypoint", ["leaving", "raising"])
async def test_who_leaves_before_it_attaches_is_not_followed(scene: Scene, entrypoint: str) -> None:
    """On purpose, or as its entrypoint has raised: the caller is there still, and one job was all."""
    came, caller = await in_a_call(scene, entrypoint)
    with pytest.raises(TimeoutError):
        await came.number(2, patience=LONG)
    assert len(came.all()) == 1
    assert caller.isconnected()
    await caller.disconnect()


async def test_who_is_killed_before_it_attaches_is_followed(scene: Scene) -> None:
    """It is a ghost in its room; once, as its successor lives."""
    came, caller = await in_a_call(scene, "preparing")
    kill(came.all()[0]["pid"])
    await came.number(2)
    jobs = [one["job"] for one in came.all()]
    assert len(set(jobs)) == 2
    await caller.disconnect()
