"""Owners have nothing of the programs that open them."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from conversation_actors import ConversationClient
from conversation_actors.runtime import NAMESPACE, actor_name
from conversation_actors.runtime.starter import STARTER_NAME
from conversation_actors.runtime.warm_pool import POOL_NAME
from tests.support.observation import make_settings, start_program, texts, user
from tests.support.processes import sigkill
from tests.support.ray_cluster import IS_PLAIN, RayCluster
from tests.support.servers import Server

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def fresh_cluster() -> Iterator[RayCluster]:
    """A cluster where nobody has started anything."""
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What a job has for its working directory."""
    made = tmp_path / "of-the-job"
    made.mkdir()
    (made / "data.txt").write_text("of the job")
    return made


def described(name: str) -> dict[str, Any]:
    """Return what a running actor's process has of its creator."""
    actor = ray.get_actor(name, namespace=NAMESPACE)

    def describe(_: object) -> dict[str, Any]:
        environment = ray.get_runtime_context().get_runtime_env_string()
        return {"variable": os.environ.get("OF_THE_JOB"), "cwd": str(Path.cwd()), "environment": environment}

    found: dict[str, Any] = ray.get(actor.__ray_call__.remote(describe))
    return found


def clean(cluster: RayCluster) -> dict[str, Any]:
    """Return what an actor has to which nobody gave anything: its node's working directory, and no more."""
    return {"variable": None, "cwd": cluster.nodes[0].raylet.cwd(), "environment": "{}"}


async def opened_by_job(
    cluster: RayCluster, redis: Server, conversation_id: str, directory: Path, *options: str
) -> int:
    """Have a program with a runtime environment open a conversation, and end; returns the owner's process id."""
    settings = make_settings(redis.url, cluster.address)
    program = start_program("opener", conversation_id, str(directory), *options, settings=settings)
    output, _ = await asyncio.to_thread(program.communicate)
    assert program.returncode == 0
    return int(output)


@pytest.mark.asyncio
async def test_owner_has_nothing_of_its_opener(
    fresh_cluster: RayCluster, redis: Server, conversation_id: str, directory: Path
) -> None:
    """Opened first by a job with variables and a working directory, an owner has neither, also after a crash."""
    pid = await opened_by_job(fresh_cluster, redis, conversation_id, directory)
    fresh_cluster.join()
    settings = make_settings(redis.url, fresh_cluster.address)
    name = actor_name(conversation_id, settings)
    assert await asyncio.to_thread(described, name) == clean(fresh_cluster)
    assert await asyncio.to_thread(described, POOL_NAME) == clean(fresh_cluster)
    async with ConversationClient(settings) as client:
        handle = await client.open(conversation_id)
        before = await handle.info()
        assert (before.pid, before.is_forked) == (pid, not IS_PLAIN)
        sigkill(pid)
        await handle.append(user("from another"))
        after = await handle.info()
        assert (after.pid != pid, after.is_forked) == (True, not IS_PLAIN)
        assert await asyncio.to_thread(described, name) == clean(fresh_cluster)
        assert texts(handle.items) == ["from the job", "from another"]


@pytest.mark.asyncio
async def test_starter_is_shared_and_replaced(
    fresh_cluster: RayCluster, redis: Server, conversation_id: str, directory: Path
) -> None:
    """Jobs share one starter, which starts owners when its own job has ended, and after it was killed."""
    await opened_by_job(fresh_cluster, redis, f"{conversation_id}-1", directory)
    fresh_cluster.join()
    starter = ray.get_actor(STARTER_NAME, namespace=NAMESPACE)
    pid = ray.get(starter.__ray_call__.remote(lambda _: os.getpid()))
    await opened_by_job(fresh_cluster, redis, f"{conversation_id}-2", directory)
    assert ray.get(starter.__ray_call__.remote(lambda _: os.getpid())) == pid
    sigkill(pid)
    await opened_by_job(fresh_cluster, redis, f"{conversation_id}-3", directory)
    settings = make_settings(redis.url, fresh_cluster.address)
    for number in (1, 2, 3):
        name = actor_name(f"{conversation_id}-{number}", settings)
        assert await asyncio.to_thread(described, name) == clean(fresh_cluster)
    assert ray.get(starter.__ray_call__.remote(lambda _: os.getpid())) != pid


@pytest.mark.asyncio
async def test_owner_starts_without_starter(
    fresh_cluster: RayCluster, redis: Server, conversation_id: str, directory: Path
) -> None:
    """Where no starter can be had an owner is started all the same, and keeps what its opener has."""
    fresh_cluster.join()
    with suppress(ValueError):  # there is none
        ray.kill(ray.get_actor(STARTER_NAME, namespace=NAMESPACE))
    await opened_by_job(fresh_cluster, redis, conversation_id, directory, "alone")
    name = actor_name(conversation_id, make_settings(redis.url, fresh_cluster.address))
    assert (await asyncio.to_thread(described, name))["variable"] == "1"


@pytest.mark.asyncio
async def test_no_starter_without_need(cluster: RayCluster, client: ConversationClient, conversation_id: str) -> None:
    """A program without a runtime environment starts owners itself."""
    handle = await client.open(conversation_id)
    assert psutil.pid_exists((await handle.info()).pid)
    with pytest.raises(ValueError, match=STARTER_NAME):
        ray.get_actor(STARTER_NAME, namespace=NAMESPACE)
