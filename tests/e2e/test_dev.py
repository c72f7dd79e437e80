"""`conversation-actors dev`: what another terminal gets, and what stays when it ends."""

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.commands import development_stack, run_client, wait_for_none_naming

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
        assert set(variables) == {"RAY_ADDRESS", "CONVERSATION_REDIS_URL"}
        assert run_client(APPEND, variables) == {"seq": 1, "items": 1}
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


def _child_of(parent: int, command: str) -> int:
    import psutil

    children = [one for one in psutil.Process(parent).children() if command in " ".join(one.cmdline())]
    assert len(children) == 1
    return int(children[0].pid)
