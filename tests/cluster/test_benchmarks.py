"""The benchmark suite from its command line to its results; that it measures, not what."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import server_binary
from tests.support.ray_cluster import program_environment


@pytest.mark.timeout(110)
def test_a_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    """Rows, single numbers and verdicts are in the document, and no process is left behind."""
    server_binary()
    marker = {"BENCH_TEST": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "record", "--json", "--output", str(tmp_path)]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, env=program_environment(**marker)
    )

    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "results.json").read_text())
    report = document["reports"][0]
    assert report["failure"] is None
    assert report["values"]["record_us"] > 0
    assert {"`record()`", "read of `items`"} <= {row["label"] for row in report["rows"]}
    judged = {aim["value"] for aim in document["aims"] if aim["verdict"] != "not measured"}
    assert judged == {"record.record_us", "record.read_us"}
    assert _processes_of(str(tmp_path)) == []


def _processes_of(marker: str) -> list[str]:
    """Command lines of processes that have the variable in their environment; all that a run starts inherit it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BENCH_TEST") == marker:
                found.append(" ".join(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
