"""The tests with the lowest and with the newest versions that pyproject.toml allows: `make matrix`.

For each Python of MATRIX_PYTHONS (versions or paths) a set is resolved, installed into build/matrix, and run in parts.
What ran is written into tests/matrix/report.json, by which a test judges pyproject.toml. A set that fails changes
nothing there. A part that failed can be run again alone (`ARGS="-s lowest -- worker"`): the others count as they ran
last, if the same versions are installed. Linux only, for `timeout`.
"""

import datetime as dt
import json
import os
import subprocess
import time
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import IO, Any

import nox

nox.options.default_venv_backend = "none"
nox.options.stop_on_first_error = False

ROOT = Path(__file__).parent
PLACE = ROOT / "build" / "matrix"
REPORT = ROOT / "tests" / "matrix" / "report.json"
EXTRAS = ("agent", "archive", "embedded", "hiredis", "models")
NOT_FOR_TESTS = ("conversation-actors", "mypy", "ruff", "types-")
PARTS = {
    "unit": ["tests/unit", "--ignore=tests/unit/repository/test_matrix_report.py"],
    "store": ["tests/store"],
    "archive": ["tests/archive"],
    "worker": ["tests/worker"],
    "cluster": [
        "tests/cluster/test_public_api.py",
        "tests/cluster/test_crash.py::test_killed_in_mid_stream",
        "tests/cluster/test_crash.py::test_owner_saves_a_snapshot_at_sigterm",
        "tests/cluster/test_passivation.py::test_idle_owner_exits",
    ],
}
"""A part's tests; of the clusters' a few, as a smoke test. What judges the report waits until there is one."""
AT_ONCE = {"unit": 3, "store": 3, "archive": 3, "worker": 3, "cluster": 0}
"""Processes for the tests of a part: most of them wait. A Ray cluster is enough for one."""
MAX_AGAIN = 5
"""Failures of a part that are looked at again, each by itself."""
PART_SECONDS = 600
"""No part takes longer; a quarter of it is usual."""
QUIET = {
    # Releases of other libraries that belong together by time only warn of each other.
    "lowest": ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"],
    "newest": [],
}
PYTHONS = os.environ.get("MATRIX_PYTHONS", "3.11").split()


@nox.session
@nox.parametrize("python_", PYTHONS)
def lowest(session: nox.Session, python_: str) -> None:
    """Each direct dependency at its lower bound, or at the oldest above it that this Python has a wheel of."""
    _run_set(session, "lowest", python_)


@nox.session
@nox.parametrize("python_", PYTHONS)
def newest(session: nox.Session, python_: str) -> None:
    """Everything as new as it may be."""
    _run_set(session, "newest", python_)


def _run_set(session: nox.Session, kind: str, python: str) -> None:
    began = time.monotonic()
    PLACE.mkdir(parents=True, exist_ok=True)
    tells = "import platform; print(platform.python_version())"
    command = ["uv", "run", "--no-project", "-q", "-p", python, "python", "-c", tells]
    version = subprocess.check_output(command, text=True, cwd=PLACE).strip()
    place = PLACE / f"{kind}-{version.rpartition('.')[0]}"
    _install(session, kind, python, place)
    seconds = {"install": round(time.monotonic() - began)}
    parts = [_part(session, name, kind, place) for name in PARTS]
    seconds |= {part["name"]: part.pop("seconds") for part in parts}
    run = {
        "set": kind,
        "python": version,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": seconds,
        "passed": sum(part["passed"] for part in parts),
        "failed": sum(part["failed"] for part in parts),
        "parts": parts,
        "versions": _versions(place),
    }
    session.log(f"{kind}, Python {version}: {run['passed']} passed, {run['failed']} failed; seconds: {seconds}")
    if run["failed"] or not all(part["passed"] for part in parts):
        session.error("; ".join(f"{part['name']}: {part['failed']} failed, see {part['log']}" for part in parts))
    _note(run)


def _install(session: nox.Session, kind: str, python: str, place: Path) -> None:
    """Resolve, install, and add the tools of the tests, which are the newest in each set."""
    locked = place.parent / f"{place.name}.txt"
    extras = [f"--extra={extra}" for extra in EXTRAS]
    resolution = "lowest-direct" if kind == "lowest" else "highest"
    companions = ["--constraint=tests/matrix/lowest.txt"] if kind == "lowest" else []
    session.run(
        "uv", "pip", "compile", "-q", "--no-build", "--upgrade", "-p", python, f"--resolution={resolution}",
        *extras, *companions, "pyproject.toml", "-o", str(locked), external=True,
    )  # fmt: skip
    session.run("uv", "venv", "-q", "--clear", "-p", python, str(place), external=True)
    install = ["uv", "pip", "install", "-q", "-p", str(place / "bin/python")]
    session.run(*install, "--no-build", "-r", str(locked), external=True)
    session.run(*install, "--no-deps", "-e", ".", external=True)
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    tools = [line for line in dev if not line.startswith(NOT_FOR_TESTS)]
    session.run(*install, "-c", str(locked), "pytest-xdist", *tools, external=True)


def _part(session: nox.Session, name: str, kind: str, place: Path) -> dict[str, Any]:
    """Run a part, or take what it told the last time, where others were asked for."""
    kept = place.parent / f"{place.name}-{name}.json"
    versions = _versions(place)
    if session.posargs and name not in session.posargs and kept.exists():
        known: dict[str, Any] = json.loads(kept.read_text())
        if known["versions"] == versions:
            session.log(f"{name}: as it ran before")
            return {key: value for key, value in known.items() if key != "versions"}
    part = _run_part(session, name, kind, place)
    kept.write_text(json.dumps({**part, "versions": versions}))
    return part


def _run_part(session: nox.Session, name: str, kind: str, place: Path) -> dict[str, Any]:
    """Run one part to its end, whatever fails in it; its output is in a file, its counts are returned.

    A few tests that fail, beside two others on as many cores, are run once more by themselves. The report names those
    that passed only then.
    """
    log, result = place.parent / f"{place.name}-{name}.log", place.parent / f"{place.name}-{name}.xml"
    began = time.monotonic()
    with log.open("w") as output:
        is_whole = _pytest(place, kind, result, output, f"-n{AT_ONCE[name]}", *PARTS[name])
        counts, failed = _counts(result, is_whole=is_whole)
        again: list[str] = []
        if is_whole and 0 < len(failed) <= MAX_AGAIN:
            is_whole = _pytest(place, kind, result.with_suffix(".again.xml"), output, "-n0", *failed)
            _, still = _counts(result.with_suffix(".again.xml"), is_whole=is_whole)
            again = [one for one in failed if is_whole and one not in still]
            counts = {**counts, "passed": counts["passed"] + len(again), "failed": counts["failed"] - len(again)}
    part = {
        "name": name,
        **counts,
        "passed_only_alone": again,
        "seconds": round(time.monotonic() - began),
        "log": str(log.relative_to(ROOT)),
    }
    session.log(
        f"{name}: {part['passed']} passed, {part['failed']} failed, {part['skipped']} skipped; {part['seconds']} s"
        + (f"; alone only: {', '.join(again)}" if again else "")
    )
    return part


def _pytest(place: Path, kind: str, result: Path, output: IO[str], *arguments: str) -> bool:
    """Run pytest; whether it came to its end, with or without failures."""
    result.unlink(missing_ok=True)
    ended = subprocess.run(
        [
            "timeout", "--signal=INT", "--kill-after=20", str(PART_SECONDS),
            str(place / "bin/python"), "-m", "pytest", "-q", *QUIET[kind], "-p", "no:cacheprovider",
            f"--junitxml={result}", *arguments,
        ],
        check=False, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    return ended.returncode in {0, 1}


def _counts(result: Path, *, is_whole: bool) -> tuple[dict[str, int], list[str]]:
    """Read pytest's own count, and which tests failed; a part that did not come to its end is one failure more."""
    if not result.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}, []
    cases = list(ET.parse(result).getroot().iter("testcase"))  # noqa: S314  # pytest has just written it
    failed = [_test(case) for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    counts = {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed) + (not is_whole),
        "skipped": skipped,
    }
    return counts, list(dict.fromkeys(failed))


def _test(case: ET.Element) -> str:
    """Return the name by which pytest runs a test, which is a function in a module here."""
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"


def _versions(place: Path) -> dict[str, str]:
    told = subprocess.check_output(["uv", "pip", "list", "--format=json", "-p", str(place / "bin/python")], text=True)
    return {one["name"]: one["version"] for one in json.loads(told) if not one.get("editable_project_location")}


def _note(run: dict[str, Any]) -> None:
    """Put a run in the place of the one before it with the same set and the same minor of Python."""

    def key(run: dict[str, Any]) -> tuple[str, str]:
        return run["set"], run["python"].rpartition(".")[0]

    runs = json.loads(REPORT.read_text())["runs"] if REPORT.exists() else []
    runs = sorted([*(one for one in runs if key(one) != key(run)), run], key=key)
    REPORT.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
