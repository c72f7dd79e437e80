"""What needs an extra of the package, and what does not; where one is missing, one sentence says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODELS = ("livekit.plugins.openai", "livekit.plugins.deepgram")
LIVEKIT = {
    "LIVEKIT_URL": "ws://127.0.0.1:1",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "s" * 32,
    "CONVERSATION_REDIS_URL": "redis://127.0.0.1:1",
}


def without(modules: tuple[str, ...], program: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as if these modules were not installed."""
    lacking = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", lacking + program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **LIVEKIT, "PYTHONPATH": str(ROOT)},
    )


def command(*arguments: str) -> str:
    """The program that runs a command of the worker's."""
    return f"from agent_worker.cli import main\nraise SystemExit(main({list(arguments)!r}))"


OFFLINE = "import runpy\nsys.argv = ['offline']\nrunpy.run_module('agent_worker.offline', run_name='__main__')"


@pytest.mark.parametrize(
    "arguments", [("console", "--offline"), ("start",), ("start", "--offline"), ("dev",), ("work",)]
)
def test_the_example_agent_says_what_it_lacks(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """One sentence, and the exit code for what is to be changed before trying again."""
    run = without(MODELS, command(*arguments), tmp_path)
    assert run.returncode == 2, run.stderr
    (told,) = [line for line in run.stderr.splitlines() if "WARNING" not in line]
    assert told.startswith("agent-worker: ")
    assert "LiveKit's plugins for OpenAI and Deepgram: pip install 'conversation-actors[agent]'" in told


def test_without_livekit_every_command_says_what_it_needs(tmp_path: Path) -> None:
    """Of the package without extras only the core is there: one sentence, no traceback, and `--help` all the same."""
    everything = ("livekit", "livekit.agents", "livekit.api", "aiohttp", "numpy", "PIL")
    names = ("start", "dev", "work", "watch", "console", "talk")
    talk = ["--conversation", "c", "--transcript", "call.json"]
    commands = [[name, *talk] if name == "talk" else [name] for name in names]
    program = f"from agent_worker.cli import main\ncodes = [main(one) for one in {commands!r}]\nprint(codes)"
    run = without(everything, program, tmp_path)
    assert run.stdout == "[2, 2, 2, 2, 2, 2]\n"
    lines = [line for line in run.stderr.splitlines() if "WARNING" not in line]
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"agent-worker: {name} needs ")
        assert ": pip install 'conversation-actors[agent" in line
    shown = without(everything, command("start", "--help"), tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize("module", ["aiohttp", "numpy"])
def test_the_stand_ins_say_what_they_lack(module: str, tmp_path: Path) -> None:
    """One sentence."""
    run = without((module,), OFFLINE, tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr == f"python -m agent_worker.offline needs {module}: pip install 'conversation-actors[agent]'\n"


def test_agents_of_ones_own_need_no_models(tmp_path: Path) -> None:
    """Everything that an application's agent or worker uses can be imported."""
    program = """
import agent_worker
from agent_worker.worker import failure_detector, server
from agent_worker.call import starting
from agent_worker.offline import OfflineServer
assert all(hasattr(agent_worker, name) for name in agent_worker.__all__)
"""
    run = without(MODELS, program, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
