"""From a conversation's id to its process, to what it logs, and what of it reaches a client's terminal."""

import asyncio
import json
import logging
import secrets
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from conversation_actors import ConversationClient, ConversationHandle
from conversation_actors.cli.where import document, told
from conversation_actors.runtime import NAMESPACE, find_whereabouts
from conversation_actors.runtime.titles import shown_name
from conversation_actors.runtime.warm_pool import POOL_NAME
from tests.cluster.conftest import Connect
from tests.support.observation import make_settings, pid_of, user
from tests.support.processes import paused, sigkill
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server, wait_until

pytestmark = pytest.mark.timeout(180)
PROGRAMS = Path(__file__).parent / "programs"


def title(pid: int) -> str:
    """What a process is called."""
    return " ".join(psutil.Process(pid).cmdline()).rstrip()


def log_of(cluster: RayCluster) -> Path:
    """The owners' log of the cluster's head."""
    (session,) = [a.partition("=")[2] for a in cluster.nodes[0].raylet.cmdline() if a.startswith("--session_dir=")]
    return Path(session) / "logs" / "conversation_owners.log"


def lines_about(cluster: RayCluster, name: str) -> list[dict[str, Any]]:
    """What owners of one conversation have logged."""
    lines = [json.loads(line) for line in log_of(cluster).read_text().splitlines()]
    return [line for line in lines if line.get("conversation") == name]


async def test_a_process_says_whose_it_is(
    cluster: RayCluster, client: ConversationClient, conversation_id: str
) -> None:
    """Its title has id and epoch, also while calls and a parked poll run; its lines are in the node's log."""
    conversation = await client.open(conversation_id)
    for number in range(5):
        await conversation.append(user(str(number)))
    pid = await pid_of(conversation)
    assert title(pid) == f"ray::conversation {conversation_id} epoch 1"
    assert psutil.Process(pid).name().startswith("ray::")  # by which `ray stop` knows its workers
    sigkill(pid)
    await conversation.append(user("again"))
    later = await pid_of(conversation)
    assert title(later) == f"ray::conversation {conversation_id} epoch 2"
    await conversation.passivate()

    async def has_stopped() -> bool:
        return "stopped" in [line["message"] for line in lines_about(cluster, conversation_id)]

    await wait_until(has_stopped, "the second owner's last line")
    lines = lines_about(cluster, conversation_id)
    assert [(line["message"], line["epoch"], line["pid"]) for line in lines] == [
        ("activated", 1, pid),
        ("activated", 2, later),
        ("stopped", 2, later),
    ]


async def test_hashed_names_are_hashed_everywhere(
    cluster: RayCluster, redis: Server, connect: Connect, conversation_id: str
) -> None:
    """Neither title nor log has the id; the hash is the one that is asked for."""
    client = await connect(hashed_names=True)
    conversation = await client.open(conversation_id)
    name = shown_name(conversation_id, make_settings(redis.url, cluster.address, hashed_names=True))
    assert title(await pid_of(conversation)) == f"ray::conversation {name} epoch 1"
    assert [line["message"] for line in lines_about(cluster, name)] == ["activated"]
    assert conversation_id not in log_of(cluster).read_text()


async def test_the_pool_of_workers_writes_there_too(cluster: RayCluster, client: ConversationClient) -> None:
    """What goes wrong in it is read where the owners' lines are."""
    assert client is not None
    pool = ray.get_actor(POOL_NAME, namespace=NAMESPACE)
    words = f"said {secrets.token_hex(4)}"

    def say(_: object) -> None:
        logging.getLogger("conversation_actors.runtime.warm_pool").warning(words)

    await pool.__ray_call__.remote(say)
    (line,) = [json.loads(one) for one in log_of(cluster).read_text().splitlines() if words in one]
    assert (line["level"], line["logger"]) == ("WARNING", "conversation_actors.runtime.warm_pool")
    assert title(line["pid"]).startswith("ray::WarmPool")


async def test_from_an_id_to_process_and_lines(
    cluster: RayCluster, redis: Server, client: ConversationClient, conversation_id: str
) -> None:
    """One command tells both, starts nothing, and is heard of nowhere afterwards."""
    settings = make_settings(redis.url, cluster.address)
    nobody = await find_whereabouts(conversation_id, settings, most_lines=20)
    assert (nobody.owner, nobody.trouble, nobody.lines, nobody.silent_nodes) == (None, "", (), ())
    assert "owner  none runs\nlog    no line is about it" in told(nobody)
    conversation = await client.open(conversation_id)
    pid = await pid_of(conversation)
    found = await find_whereabouts(conversation_id, settings, most_lines=20)
    assert found.owner is not None
    assert (found.owner.pid, found.owner.epoch) == (pid, 1)
    assert [(line["message"], line["pid"]) for line in found.lines] == [("activated", pid)]
    printed = told(found)
    assert f"owner  process {pid} on node " in printed
    assert f" activated epoch=1 pid={pid} " in printed
    assert json.loads(document(found))["owner"]["pid"] == pid
    await conversation.passivate()
    await _until_gone(pid)
    gone = await find_whereabouts(conversation_id, settings, most_lines=1)
    assert (gone.owner, gone.trouble) == (None, "")
    assert [line["message"] for line in gone.lines] == ["stopped"]


async def _until_gone(pid: int) -> None:
    async def is_gone() -> bool:
        return not psutil.pid_exists(pid)

    await wait_until(is_gone, "the owner to be gone")


async def test_an_owner_that_hangs_is_found_by_its_lines(
    cluster: RayCluster, redis: Server, client: ConversationClient, conversation_id: str
) -> None:
    """It says nothing, within seconds; its log lines have its process."""
    conversation = await client.open(conversation_id)
    pid = await pid_of(conversation)
    with paused(pid):
        found = await find_whereabouts(conversation_id, make_settings(redis.url, cluster.address), most_lines=20)
    assert (found.owner, found.trouble) == (None, "no answer in 5 s")
    assert found.lines[0]["pid"] == pid
    assert "owner  says nothing (no answer in 5 s)" in told(found)


async def test_command_prints_facts_and_nothing_else(
    cluster: RayCluster, redis: Server, client: ConversationClient, conversation_id: str
) -> None:
    """By the command line: facts on standard output, nothing else on it, nothing on standard error."""
    conversation: ConversationHandle = await client.open(conversation_id)
    environment = program_environment(RAY_ADDRESS=cluster.address, CONVERSATION_REDIS_URL=redis.url)
    for given, code in ((conversation_id, 0), ("nobody-has-this", 1)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "conversation_actors.cli", "where", given, "--json"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert (process.returncode, errors.decode()) == (code, "")
        owner = json.loads(output)["owner"]
        assert (None if owner is None else owner["pid"]) == (None if code else await pid_of(conversation))


async def test_standard_output_is_the_programs_own(cluster: RayCluster, redis: Server, conversation_id: str) -> None:
    """Twenty owners, two of which are killed: not a word of Ray's; on standard error a line for each death."""
    environment = program_environment(RAY_ADDRESS=cluster.address, CONVERSATION_REDIS_URL=redis.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, PROGRAMS / "crowd.py", conversation_id),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(150):
        pids = json.loads(await process.stdout.readline())
        assert len(pids) == 20
        for pid in pids[:2]:
            sigkill(pid)
        lines = await _deaths(process.stderr, 2)
        output, errors = await process.communicate(b"end\n")
    lines += errors.decode().splitlines()
    # ordinary workers start slowly, of which a client tells once
    others = [line for line in lines if not line.startswith("an owner was started the slow way")]
    assert {int(line.split()[1]) for line in others} == set(pids[:2])
    assert (process.returncode, output.decode(), len(others)) == (0, "", 2)


async def _deaths(errors: asyncio.StreamReader, number: int) -> list[str]:
    """Read lines until so many have told of a death."""
    lines: list[str] = []
    while sum(line.startswith("process ") for line in lines) < number:
        lines.append((await errors.readline()).decode().rstrip())
    return lines
