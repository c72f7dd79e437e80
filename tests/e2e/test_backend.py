"""A call whose every turn is in a back end of somebody's own, and comes back from there when nothing else has it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors import ArchiveSettings, ConversationClient, Item, Settings
from conversation_actors.archive.database import Database
from tests.e2e.calls import CALL, UTTERANCE
from tests.e2e.commands import COMMAND
from tests.e2e.scene import Scene
from tests.support.backend_contract import TOKEN, ReferenceServer, Speaker, speaking
from tests.support.livekit_server import LiveKitServer
from tests.support.observation import make_settings
from tests.support.processes import kill
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]
TYPING = "tests.e2e.plain_agents:typing"
TOLD = {"message", "function_call", "function_call_output"}
"""Types of the items that a back end is sent."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReferenceServer]:
    """The reference server."""
    with ReferenceServer(tmp_path) as server:
        yield server


@pytest.fixture
def settings(own_redis: Server, cluster: RayCluster, server: ReferenceServer, tmp_path: Path) -> Settings:
    """What a client reads conversations with."""
    return make_settings(
        own_redis.url, cluster.address, archive=archive(tmp_path / "archive.db"), backend=server.settings
    )


@pytest.fixture
def worker_environment(
    livekit_server: LiveKitServer, own_redis: Server, cluster: RayCluster, server: ReferenceServer, tmp_path: Path
) -> dict[str, str]:
    """The same for a worker and for an archiver."""
    return program_environment(
        **livekit_server.env,
        CONVERSATION_REDIS_URL=own_redis.url,
        RAY_ADDRESS=cluster.address,
        CONVERSATION_ARCHIVE_URL=archive_url(tmp_path / "archive.db"),
        CONVERSATION_BACKEND_URL=server.url,
        CONVERSATION_BACKEND_TOKEN=TOKEN,
        CONVERSATION_BACKEND_PRIVATE_NETWORKS="true",
        LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE="0",
    )


@pytest.fixture
async def tables(tmp_path: Path) -> None:
    """The archive's tables, without which archivers do not start."""
    await empty_archive(tmp_path / "archive.db")


@pytest.fixture
def archiver(worker_environment: dict[str, str], tables: None, tmp_path: Path) -> Iterator[None]:
    """A running ``conversation-actors archive``, which delivers too."""
    with (tmp_path / "archiver.log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "archive"], env=worker_environment, stdout=log, stderr=log)
    yield
    process.terminate()
    process.wait(60)


@pytest.mark.usefixtures("archiver")
async def test_a_typed_call_comes_back_from_the_back_end(
    scene: Scene, server: ReferenceServer, own_redis: Server
) -> None:
    """With its tools and ids, after Redis was emptied and the archive replaced by an empty one."""
    worker = await scene.worker("--entrypoint", TYPING, AGENT_LINGER="1")
    items = await typed(scene)
    async with speaking(server.url) as speaker:
        await wait_until(lambda: has_all(speaker, scene.room, items), "the back end to have all", patience=60)
        await wait_until(lambda: is_recorded(speaker), "the call's record", patience=60)
    worker.stop()
    kill((await (await scene.client.open(scene.room, create=False)).info()).pid)
    with own_redis.client() as redis:
        redis.flushall()
    emptied = await empty_archive(scene.directory / "empty.db")
    async with ConversationClient(scene.settings.model_copy(update={"archive": emptied})) as client:
        back = (await (await client.open(scene.room, create=False)).snapshot(fresh=True)).items
    assert [item.to_dict() for item in back] == [item.to_dict() for item in items]
    assert {item.type for item in back} == TOLD


def archive(file: Path) -> ArchiveSettings:
    """Return an archive in a file."""
    return ArchiveSettings(url=SecretStr(archive_url(file)))


def archive_url(file: Path) -> str:
    """Return the URL of an archive in a file."""
    return f"sqlite+aiosqlite:///{file}"


async def empty_archive(file: Path) -> ArchiveSettings:
    """Return an archive that has nothing."""
    made = archive(file)
    assert made.url is not None
    database = Database(made.url, timeout=made.timeout)
    await database.migrate()
    await database.aclose()
    return made


async def typed(scene: Scene) -> list[Item]:
    """Have the call typed, with tools, and return what is stored of it, as far as a back end is sent it."""
    async with scene.caller() as caller:
        await caller.wait_agent(UTTERANCE)
        for line in CALL.turns[:2]:
            sent = await caller.chat(line.user)
            await caller.wait_caption(line.reply, UTTERANCE, after=sent)
        await scene.settled(CALL.turns[1].reply)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(2))
    return [item for item in kept.items if item.type in TOLD]


async def has_all(speaker: Speaker, room: str, items: list[Item]) -> bool:
    """Whether the back end has these, in order."""
    return [item_id for item_id, _ in await speaker.messages(room)] == [item.id for item in items]


async def is_recorded(speaker: Speaker) -> bool:
    """Whether the back end knows of the caller's call."""
    return bool(await speaker.context("caller"))
