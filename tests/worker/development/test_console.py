"""The console: what it keeps, and what it needs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from agent_worker import cli
code = cli.main(["console", "--offline"])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"ray", "redis"}))
raise SystemExit(code)
"""


def test_a_console_offline_needs_no_server(tmp_path: Path) -> None:
    """Neither Redis nor Ray nor an account: it answers, and says that it keeps nothing; neither is imported."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="my name is Anna\nWhat's my name?\n",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[1] == "No Redis is used: the conversation is in this program's memory, and is forgotten when it ends."
    assert "agent> Your name is Anna." in lines
    assert lines[-1] == "[]"
