"""`conversation-actors dev`: what another terminal gets, and what stays when it ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conversation_actors.cli.ray_head import RayHead
from conversation_actors.free_port import free_port
from conversation_actors.runtime.diagnosis import reach
from conversation_actors.runtime.ray_environment import knows_tokens
from tests.e2e.commands import development_stack, processes_naming, run, run_client, wait_for_none_naming
from tests.support.waiting import wait_for

APPEND = """
conversation = await client.open("support-42")
receipt = await conversation.append(Message(role="user", content="Where is my order?"))
print(json.dumps({"seq": receipt.seq, "items": len(conversation.items)}))
"""
LOOK = """
conversation = await client.open("support-42", create=False)
info = await conversation.info()
print(json.dumps({"items": [item.text for item in conversation.items], "info": asdict(info)}, default=str))
"""


@pytest.mark.timeout(300)
def test_a_second_terminal_and_a_second_day(tmp_path: Path) -> None:
    """The printed variables are enough to append; after SIGTERM the next start has it all, out of a snapshot."""
    directory = tmp_path / "data"
    with development_stack(directory) as (first, variables):
        token = {"RAY_AUTH_MODE", *({"RAY_AUTH_TOKEN"} & os.environ.keys())} if knows_tokens() else set()
        assert set(variables) == {"RAY_ADDRESS", "CONVERSATION_REDIS_URL", "CONVERSATION_ARCHIVE_URL"} | token
        assert run_client(APPEND, variables) == {"seq": 1, "items": 1}
        wait_for(lambda: archived_seq("support-42", variables) == 1, "it to be archived")
    assert first.returncode == 0
    assert "Saved: 1." in directory.with_suffix(".log").read_text()
    wait_for_none_naming(variables["RAY_ADDRESS"])

    with development_stack(directory) as (second, variables):
        told = run_client(LOOK, variables)
    assert told["items"] == ["Where is my order?"]
    assert (told["info"]["recovered_from"], told["info"]["replayed"]) == (1, 0)
    assert second.returncode == 0
    wait_for_none_naming(variables["RAY_ADDRESS"])


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_it_says_when_ray_is_gone(tmp_path: Path) -> None:
    """The head node dies underneath: one sentence, exit code 1, nothing left."""
    directory = tmp_path / "data"
    with development_stack(directory) as (process, variables):
        head = _child_of(process.pid, "conversation_actors.cli start")
        os.kill(head, signal.SIGKILL)
        process.wait(60)
    assert process.returncode == 1
    assert "Ray has ended by itself" in directory.with_suffix(".log").read_text()
    wait_for_none_naming(variables["RAY_ADDRESS"])


@pytest.mark.timeout(300)
def test_a_second_one_a_killed_one_and_stop(tmp_path: Path) -> None:
    """The second says where the first is; what a killed one leaves the next one ends; `stop` ends that one in order."""
    directory = tmp_path / "data"
    with development_stack(directory) as (first, variables):
        again = run("dev", CONVERSATION_DATA_DIR=str(directory), **variables)
        assert again.returncode == 0
        assert f"running already (process {first.pid})" in again.stdout
        for name, value in variables.items():
            assert f"export {name}={value}\n" in again.stdout
        if knows_tokens():
            environment = {**os.environ, **{name: variables[name] for name in ("RAY_ADDRESS", "RAY_AUTH_MODE")}}
            command = [sys.executable, "-m", "ray.scripts.scripts", "status"]
            assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
        assert run_client(APPEND, variables) == {"seq": 1, "items": 1}
        first.kill()
        first.wait()
    assert processes_naming(variables["RAY_ADDRESS"])
    with development_stack(directory) as (second, others):
        assert not processes_naming(variables["RAY_ADDRESS"])
        assert others["CONVERSATION_REDIS_URL"] == variables["CONVERSATION_REDIS_URL"]
        assert run_client(LOOK, others)["items"] == ["Where is my order?"]
        assert "Ended " in directory.with_suffix(".log").read_text()
        ended = run("stop", CONVERSATION_DATA_DIR=str(directory))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"Stopping `dev` (process {second.pid}), it saves every conversation first …" in ended.stdout
        assert second.wait(10) == 0
    assert "Stopping Ray, and Redis" in directory.with_suffix(".log").read_text()
    wait_for_none_naming(others["RAY_ADDRESS"])
    assert not (directory / "server.json").exists()
    assert "Nothing of `dev`" in run("stop", CONVERSATION_DATA_DIR=str(directory)).stdout


@pytest.mark.timeout(180)
async def test_a_port_that_somebody_else_has_got_is_exchanged() -> None:
    """Ray's client server could not have it, and the whole head would end a second after it was told to be ready."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # it is not listened on: whoever asks there is refused
        taken, directories = [held.getsockname()[1]], set()

        def pick_port(host: str) -> int:
            return taken.pop() if taken else free_port(host)

        head = RayHead(pick_port=pick_port, spawned=lambda _pid, directory: directories.add(directory))
        try:
            address = await head.start()
            reach(address)
            assert not taken
            assert sorted(directory.exists() for directory in directories) == [False, True]
        finally:
            await asyncio.to_thread(head.stop, hurry=True)
    assert not any(directory.exists() for directory in directories)


def archived_seq(conversation_id: str, variables: dict[str, str]) -> int | None:
    """Return how far a conversation is archived."""
    told = run("archive", "status", conversation_id, "--json", **variables)
    assert told.returncode == 0, told.stderr
    return next((life["seq"] for life in json.loads(told.stdout)["lives"]), None)


def _child_of(parent: int, command: str) -> int:
    import psutil

    children = [one for one in psutil.Process(parent).children() if command in " ".join(one.cmdline())]
    assert len(children) == 1
    return int(children[0].pid)
