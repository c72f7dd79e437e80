"""The examples that need no LiveKit run as their headers say, and what they promise is so when something is killed."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from conversation_actors import ConversationClient
from tests.support.observation import texts
from tests.support.processes import sigkill
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
_WRITTEN = re.compile(r"(\d+)\. (.*) \[owner (\d+): kill -9 (\d+)\]\n")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
async def start(cluster: RayCluster, redis: Server, tmp_path: Path) -> AsyncIterator[Start]:
    """Start an example in a process of its own, with the variables that `dev` prints; it is gone after the test."""
    with ExitStack() as stack:

        def started(name: str, *arguments: str) -> "subprocess.Popen[str]":
            program = subprocess.Popen(
                [sys.executable, EXAMPLES / f"{name}.py", *arguments],
                env=program_environment(RAY_ADDRESS=cluster.address, CONVERSATION_REDIS_URL=redis.url),
                cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.enter_context(program)
            stack.callback(program.kill)
            return program

        yield started


async def _write(notebook: "subprocess.Popen[str]", line: str) -> tuple[int, str, int, int]:
    """Type a line; return its position, its text, the owner's number and the owner's process."""
    assert notebook.stdin is not None
    notebook.stdin.write(f"{line}\n")
    notebook.stdin.flush()
    told = await _next_line(notebook)
    found = _WRITTEN.fullmatch(told)
    assert found is not None, told
    return int(found[1]), found[2], int(found[3]), int(found[4])


async def _next_line(program: "subprocess.Popen[str]") -> str:
    assert program.stdout is not None
    return await asyncio.to_thread(program.stdout.readline)


async def test_the_quickstart_goes_on_whoever_is_killed(start: Start, conversation_id: str) -> None:
    """The owner is killed by the command that is printed, then the program: no line is lost, the numbers go on."""
    notebook = start("quickstart", conversation_id)
    *first, owner = await _write(notebook, "milk")
    assert first == [1, "milk", 1]
    sigkill(owner)
    *second, _ = await _write(notebook, "bread")
    assert second == [2, "bread", 2]
    notebook.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(notebook.wait) == -signal.SIGKILL
    notebook = start("quickstart", conversation_id)
    assert [await _next_line(notebook), await _next_line(notebook)] == ["- milk\n", "- bread\n"]
    *third, _ = await _write(notebook, "tea")
    assert third == [3, "tea", 2]
    rest, _ = await asyncio.to_thread(notebook.communicate, "\n")
    assert (rest, notebook.returncode) == ("", 0)


async def test_plain_ray_reaches_the_actor(start: Start, client: ConversationClient, conversation_id: str) -> None:
    """Workers of Ray's write to one conversation; its actor is found by its name, killed, and comes back with all."""
    program = start("plain_ray", conversation_id)
    told, _ = await asyncio.to_thread(program.communicate)
    assert program.returncode == 0
    findings = [f"finding {number}" for number in range(1, 5)]
    assert told.splitlines() == [
        "4 workers have written at [1, 2, 3, 4]; the owner is number 1",
        "the owner was killed; number 2 has written at 5",
        f"kept: {', '.join([*findings, 'summary'])}",
    ]
    conversation = await client.open(conversation_id, create=False)
    assert sorted(texts(conversation.items)) == [*findings, "summary"]
