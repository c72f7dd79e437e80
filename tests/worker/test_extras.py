"""What needs the extra `models`, and what does not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT_MODELS = """
import sys
sys.modules["livekit.plugins.openai"] = sys.modules["livekit.plugins.deepgram"] = None
"""


def without_models(program: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as if the plugins were not installed."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_MODELS + program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_example_agent_says_what_it_lacks(tmp_path: Path) -> None:
    """One sentence, and the exit code for what is to be changed before trying again."""
    program = "from agent_worker.cli import main; raise SystemExit(main(['console', '--conversation', 'c']))"
    run = without_models(program, tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("models: the example agent needs LiveKit's plugins for OpenAI and Deepgram;")
    assert len(run.stderr.splitlines()) == 1


def test_agents_of_ones_own_need_no_models(tmp_path: Path) -> None:
    """Everything that an application's agent or worker uses can be imported."""
    program = """
import agent_worker
from agent_worker.worker import server, supervisor
from agent_worker.call import starting
from agent_worker.offline import OfflineServer
assert all(hasattr(agent_worker, name) for name in agent_worker.__all__)
"""
    run = without_models(program, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
