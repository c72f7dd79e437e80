"""Bounds and classifiers of pyproject.toml, judged by the report of `make matrix`."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from conversation_actors import versions

ROOT = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPORT: dict[str, Any] = json.loads((ROOT / "tests/matrix/report.json").read_text())
OF_USERS = ("agent", "archive", "embedded", "hiredis", "models")
"""Extras whose libraries work inside of a user's programs."""
SINCE_THE_REPORT = {"aiosqlite", "alembic", "psycopg", "sqlalchemy", "standardwebhooks", "zstandard"}
"""Came after the report's last run, with the versions that `make test` runs on as lower bounds."""
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+),<(\d+)(?:\.(\d+))?")


def bounds() -> dict[str, tuple[str, int, int | None]]:
    """Lower bound, major and minor of the upper bound, by name, of all that a user installs."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in OF_USERS for line in extras[name])]
    found = [REQUIREMENT.fullmatch(line) for line in lines]
    assert all(found), lines
    return {m[1]: (m[2], int(m[3]), int(m[4]) if m[4] else None) for m in found if m and m[1] not in SINCE_THE_REPORT}


def release(version: str, length: int | None = None) -> tuple[int, ...]:
    """Return its numbers; zeroes at the end are the same as none."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition(".post")[0])[:length]]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def runs(kind: str) -> list[dict[str, Any]]:
    """Return the report's runs with the lowest or the newest set."""
    return [run for run in REPORT["runs"] if run["set"] == kind]


def test_every_run_of_the_report_passed() -> None:
    """A set that failed makes no bound; each part of it ran tests."""
    for run in REPORT["runs"]:
        assert run["failed"] == 0, run
        assert {"unit", "store", "worker", "cluster"} <= {part["name"] for part in run["parts"]}
        assert all(part["passed"] for part in run["parts"])


def test_what_is_newer_than_the_report_is_not_in_it() -> None:
    """The next `make matrix` has all of it, and takes the names out."""
    assert not any(SINCE_THE_REPORT & run["versions"].keys() for run in REPORT["runs"])


def test_lower_bounds_are_what_ran() -> None:
    """On the oldest Python the lowest set is the bounds themselves: nothing older is allowed."""
    oldest = min(runs("lowest"), key=lambda run: release(run["python"]))
    ran = {name: release(oldest["versions"][name]) for name in bounds()}
    assert ran == {name: release(lower) for name, (lower, *_) in bounds().items()}


def test_upper_bounds_leave_room_for_what_ran() -> None:
    """The newest that ran is allowed, and so is the rest of its major, or of the minor where a bound names one."""
    for run in runs("newest"):
        for name, (_, major, minor) in bounds().items():
            tested = release(run["versions"][name], 2)
            assert tested < (major, minor or 0), name
            assert tested[0] == major - 1 or minor is not None, name


def test_classifiers_name_the_pythons_that_ran() -> None:
    """With the lowest and with the newest set."""
    prefix = "Programming Language :: Python :: 3."
    named = {line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)}
    ran = {kind: {run["python"].split(".")[1] for run in runs(kind)} for kind in ("lowest", "newest")}
    assert ran == {"lowest": named, "newest": named}
    assert PROJECT["requires-python"] == f">=3.{min(named, key=int)}"


def test_what_a_user_is_warned_beyond_is_what_ran() -> None:
    """The newest version of the report, whichever Python it ran on."""
    newest = {name: max(release(run["versions"][name]) for run in runs("newest")) for name in versions.NEWEST_TESTED}
    assert newest == {name: release(version) for name, version in versions.NEWEST_TESTED.items()}
