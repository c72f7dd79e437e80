"""The plug-in of pytest, as an application's tests have it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.documents import blocks

ROOT = Path(__file__).parents[3]
PLUGIN = "pytest_conversation_actors"
LOOPS = ("-o", "asyncio_default_fixture_loop_scope=function")
"""Keeps pytest-asyncio from warning."""

TESTS = """
import pytest
from conversation_actors import ConversationClient, Message
from conversation_actors.testing import crash

{mark}

async def test_recovery(conversation_client: ConversationClient) -> None:
    conversation = await conversation_client.open("support-42")
    await conversation.append(Message(role="user", content="Hello"))
    await crash("support-42")
    assert (await conversation.append(Message(role="user", content="Still there?"))).epoch == 2

async def test_nothing_is_left_of_another_test(conversation_client: ConversationClient) -> None:
    assert [found async for found in conversation_client.list()] == []
    assert (await conversation_client.open("support-42")).items == ()
"""


def run(directory: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a project of their own, with the plug-in and no other one of this project."""
    (directory / "test_it.py").write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, *options, "test_it.py"]
    return subprocess.run(
        command,
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", [*LOOPS, "-o", "asyncio_mode=auto"]),
        ("pytestmark = pytest.mark.asyncio", [*LOOPS, "-o", "asyncio_mode=strict"]),
        ("pytestmark = pytest.mark.anyio", ["-p", "no:asyncio", "-k", "asyncio"]),
    ],
    ids=["asyncio-auto", "asyncio-strict", "anyio"],
)
def test_each_test_has_an_empty_client(tmp_path: Path, mark: str, options: list[str]) -> None:
    """Whatever runs the coroutines: pytest-asyncio in either mode, or anyio."""
    ran = run(tmp_path, TESTS.format(mark=mark), *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_the_pages_test_passes(tmp_path: Path) -> None:
    """What docs/testing.md shows of a test can be copied as it stands."""
    (shown,) = [block.code for block in blocks() if block.file == "docs/testing.md" and "def test_" in block.code]
    ran = run(tmp_path, shown, *LOOPS, "-o", "asyncio_mode=auto")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_nothing_is_imported_before_it_is_used(tmp_path: Path) -> None:
    """A run that uses no fixture of ours imports no package of ours, nor what that would bring."""
    tests = """
import sys

def test_nothing_is_there() -> None:
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not {"conversation_actors", "ray", "redis", "pydantic"} & loaded
    assert "pytest_conversation_actors" in loaded
"""
    ran = run(tmp_path, tests, *LOOPS)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_pytest_finds_the_plugin() -> None:
    """Installed, it is there without being named; under its module's name, so that naming it does no harm."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"][f"{PLUGIN}.py"] == f"{PLUGIN}.py"
