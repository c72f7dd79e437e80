"""`conversation-actors demo` that does not come to its end. `test_wheel` runs the whole of it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.commands import COMMAND, run, wait_for_none_naming
from tests.support.servers import wait_for


@pytest.mark.timeout(120)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the servers start: every process is gone, and so are the files."""
    process = subprocess.Popen(
        ["env", f"TMPDIR={tmp_path}", *COMMAND, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(tmp_path.glob("ca-demo-*/*.stderr")), "the first process of the demo")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert "interrupted" in errors
    wait_for_none_naming(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(120)
def test_a_bad_transcript_is_one_failure(tmp_path: Path) -> None:
    """What the offline model says against the file is in the answer, and the exit code is 1."""
    transcript = tmp_path / "call.json"
    transcript.write_text('{"title": "no turns"}')
    ran = run("demo", "--json", "--transcript", str(transcript))

    assert ran.returncode == 1
    told = json.loads(ran.stdout)
    assert told["passed"] is False
    assert "turns" in " ".join(told["stderr"])
