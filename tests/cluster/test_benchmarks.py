"""The benchmark suite from its command line to its results; that it measures, not what."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import server_binary
from tests.support.netns import namespaces_missing
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


@pytest.mark.long
@pytest.mark.timeout(420)
def test_the_line_is_measured_whole(tmp_path: Path) -> None:
    """Every row is of the way that it names, each aim of the line has a number, and nothing is left behind.

    A handle that takes another way than its row says fails the benchmark.
    """
    server_binary()
    missing = namespaces_missing()
    before = _namespaces()
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "line", "--json", "--output", str(tmp_path)]

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=program_environment(BENCH_TEST=str(tmp_path)),
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    document = json.loads(done.stdout)
    unmeasured = {aim["value"] for aim in document["aims"] if aim["verdict"] == "not measured"}
    absent = {"line.to_session"} if find_spec("agents") is None else set()
    absent |= {"line.idle_bytes_per_s"} if missing else set()
    assert {value for value in unmeasured if value.startswith("line.")} == absent
    notes = document["reports"][0]["notes"]
    assert "same node: the line is a connection by unix." in notes
    assert ("another namespace: the line is a connection by tcp." in notes) is (missing is None)
    labels = {row["label"] for row in document["reports"][0]["rows"]}
    assert ("durable append, by line, through a relay of 0.5 ms" in labels) is (missing is None)
    assert _processes_of(str(tmp_path)) == []
    assert _namespaces() == before


def _namespaces() -> str:
    if namespaces_missing():
        return ""
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


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
