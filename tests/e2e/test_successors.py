"""Successors on a real LiveKit server: what they are told, where they are called to, and which worker takes them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from livekit import api as lk
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.worker.migration import migrate
from tests.e2e.calls import somebody
from tests.e2e.scene import Scene, SharedWorker, shared_worker
from tests.e2e.told import NOTES, digest
from tests.support.livekit_server import LiveKitServer
from tests.support.processes import kill
from tests.support.servers import wait_until
from tests.support.workers import REPOSITORY, STARTED, OfflineModels, WorkerProcess

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

ENTRYPOINT = ("--entrypoint", "tests.e2e.told:entrypoint")
BIG = "+49 30 1234567; not JSON: {\u200d" + "x" * 60_000
SOON = 30.0


class Notes:
    """What the jobs of one room have written down."""

    def __init__(self, path: Path, room: str) -> None:
        """Nothing yet."""
        self.path, self._room = path, room

    def all(self) -> list[dict[str, Any]]:
        """One for each job that had its conversation, in order."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [told for told in map(json.loads, lines) if told["room"] == self._room]

    async def of(self, number: int, *, patience: float = SOON) -> dict[str, Any]:
        """What the job of this number, from 1, has noted."""

        async def is_there() -> bool:
            return len(self.all()) >= number

        await wait_until(is_there, f"job {number}", patience=patience)
        return self.all()[number - 1]


@pytest.fixture
def notes(tmp_path: Path, room: str) -> Notes:
    """This test's."""
    return Notes(tmp_path / "notes", room)


@pytest.fixture(scope="module")
def common_notes_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs of `common` write."""
    return tmp_path_factory.mktemp("common") / "notes"


@pytest.fixture(scope="module")
def common(
    worker_environment: Mapping[str, str], models: OfflineModels, common_notes_path: Path
) -> Iterator[SharedWorker]:
    """A worker for the tests that kill only its jobs."""
    environment = {**worker_environment, **models.environment}
    with shared_worker(
        common_notes_path.parent, environment, ENTRYPOINT[1], **{NOTES: str(common_notes_path)}
    ) as worker:
        yield worker


@pytest.mark.parametrize(
    ("metadata", "is_by_token"),
    [
        (BIG, False),
        ('{"conversation_id": "told by name", "phone_number": "+49"}', False),
        ('{"phone_number": "+49"', True),
    ],
)
async def test_the_third_successor_is_told_what_the_first_job_was_told(
    scene: Scene, common: SharedWorker, common_notes_path: Path, metadata: str, *, is_by_token: bool
) -> None:
    """Byte for byte, 60 KB that are no JSON too; each knows that it follows, and why, and nothing is done twice."""
    scene.agent_name, notes = common.agent_name, Notes(common_notes_path, scene.room)
    by_token = [lk.RoomAgentDispatch(agent_name=scene.agent_name, metadata=metadata)] if is_by_token else []
    async with somebody(scene.server, scene.room, *by_token):
        if not is_by_token:
            await scene.server.create_dispatch(scene.agent_name, scene.room, metadata)
        for number in range(1, 5):
            told = await notes.of(number)
            assert told["metadata"] == digest(metadata)
            assert (told["is_restart"], told["dials"]) == (number > 1, number == 1)
            assert told["reason"] == ("crash" if number > 1 else None)
            kill(told["pid"])
    assert len({told["conversation"] for told in notes.all()}) == 1


async def test_a_migrated_call_lands_on_another_worker(scene: Scene, notes: Notes) -> None:
    """LiveKit's server offers the job to either; the one that the call is to leave declines it, as often as need be."""
    await scene.two_workers(*ENTRYPOINT, **{NOTES: str(notes.path)})
    livekit = LiveKitSettings(
        url=scene.server.url, api_key=scene.server.api_key, api_secret=SecretStr(scene.server.api_secret)
    )
    async with somebody(scene.server, scene.room):
        await scene.server.create_dispatch(scene.agent_name, scene.room, BIG)
        first = await notes.of(1)
        for number in range(2, 5):
            holder = await migrate(scene.room, store=scene.settings, livekit=livekit)
            told = await notes.of(number)
            assert (told["job"], told["reason"]) == (holder, "migrate")
            assert told["worker"] != first["worker"]
            assert told["metadata"] == digest(BIG)
            first = told


async def test_two_agents_in_one_room_are_followed_each_by_itself(scene: Scene, notes: Notes) -> None:
    """The translator dies: a translator comes, and the agent beside it hears nothing of that; then the agent dies."""
    translator = f"{scene.agent_name}-translator"
    here = {NOTES: str(notes.path)}
    await asyncio.gather(
        scene.worker(*ENTRYPOINT, **here),
        scene.worker(*ENTRYPOINT, **here, LIVEKIT_AGENT_NAME=translator, TOLD_ROLE="translator"),
    )
    async with somebody(scene.server, scene.room):
        await scene.server.create_dispatch(scene.agent_name, scene.room, "the agent's")
        agent = await notes.of(1)
        await scene.server.create_dispatch(translator, scene.room, "the translator's")
        assert (await notes.of(2))["is_restart"] is False
        for number, dead, metadata in ((3, notes.all()[1], "the translator's"), (4, agent, "the agent's")):
            kill(dead["pid"])
            told = await notes.of(number)
            assert (told["reason"], told["metadata"], told["dials"]) == ("crash", digest(metadata), False)
            assert told["worker"] == dead["worker"]
        assert len(notes.all()) == 4
        handle = await scene.client.open(scene.room, create=False)
        holders = {name: lease.holder for name, lease in handle.leases.items()}
    assert holders == {"translator": notes.all()[2]["job"], "agent": notes.all()[3]["job"]}


@contextmanager
def by_its_own_cli(directory: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """The agent, started as LiveKit's documentation says; the path of its log."""
    log_path = directory / "own.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, REPOSITORY / "tests" / "e2e" / "told.py", "start"],
            stdout=log, stderr=subprocess.STDOUT, cwd=directory, start_new_session=True,
            env={**environment, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    try:
        yield log_path
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def own_environment(
    own_livekit_server: LiveKitServer, worker_environment: Mapping[str, str], models: OfflineModels, notes: Notes
) -> dict[str, str]:
    """Of programs on a server of the test's own: an agent without a name would come to every room of another one."""
    own = {NOTES: str(notes.path), "CONVERSATION_TENANT": uuid4().hex}  # workers of the session's server see none of it
    return {**worker_environment, **models.environment, **own_livekit_server.env, **own}


async def test_an_agent_without_a_name_is_followed(
    own_livekit_server: LiveKitServer, own_environment: dict[str, str], notes: Notes, tmp_path: Path, room: str
) -> None:
    """Dispatched by LiveKit itself to each new room; killed, it is called again by its empty name, by our watcher."""
    with (
        by_its_own_cli(tmp_path, own_environment) as log,
        WorkerProcess(tmp_path / "watcher", {**own_environment, "LIVEKIT_AGENT_NAME": "somebody-else"}),
    ):

        async def is_registered() -> bool:
            return "registered worker" in log.read_text()

        await wait_until(is_registered, "the agent to be registered", patience=STARTED)
        async with somebody(own_livekit_server, room):
            for number in (1, 2, 3):
                told = await notes.of(number)
                assert told["conversation"] == room
                assert told["is_restart"] == (number > 1)
                kill(told["pid"])
            assert (await notes.of(4))["dials"] is False
