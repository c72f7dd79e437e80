"""Seeded histories of the archive: owners, archivers, Redis and PostgreSQL fail, and it has what was acknowledged.

One short history with a fresh seed, and 208 rounds of faults with ``-m long``. A seed is repeated by
`python -m tests.chaos.archive --seed …`. And faults planted in the product, which the checker finds.
"""

import asyncio
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.archive.mutants import MUTANTS
from tests.support.postgres import NO_POSTGRES, has_postgres
from tests.support.ray_cluster import program_environment

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not has_postgres(), reason=NO_POSTGRES),
]
logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
ROUNDS = 6
LONG_HISTORIES, LONG_ROUNDS = 8, 26
HISTORIES = 5
"""A history shows a planted fault in all likelihood, and not for certain."""
QUICK = "settled before it is committed"
"""Is found at once: one for each run of all tests."""


async def played(directory: Path, *arguments: str, package: Path | None = None) -> tuple[int, str]:
    """Play a history in a process of its own, whose `package` may have a fault; return its status and what it said."""
    path = f"{package}:{ROOT}" if package else str(ROOT)
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.chaos.archive", "--seed", str(random.randrange(10**6)), *arguments],
        env=program_environment(PYTHONPATH=path), cwd=directory, capture_output=True, text=True,
        check=False, timeout=380,
    )  # fmt: skip
    logger.warning("%s", process.stdout)
    assert "\nseed" in process.stdout, process.stderr[-4000:]
    return process.returncode, process.stdout


async def test_short_history(tmp_path: Path) -> None:
    """Some of all faults: what was acknowledged is in the archive, in order and once."""
    status, _ = await played(tmp_path, "--rounds", str(ROUNDS))

    assert status == 0


@pytest.mark.long
@pytest.mark.parametrize("number", range(LONG_HISTORIES))
async def test_long_history(tmp_path: Path, number: int) -> None:
    """Every kind of fault, each more than once."""
    status, _ = await played(tmp_path, "--rounds", str(LONG_ROUNDS))

    assert status == 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.long]) for name in MUTANTS]
)
async def test_fault_in_the_archive_is_found(tmp_path: Path, name: str) -> None:
    """The checker finds violations in what a product with the fault plays. That something else failed is not enough."""
    mutant = MUTANTS[name]
    package = mutant.plant(tmp_path / "mutant")
    for _ in range(HISTORIES):
        _, said = await played(tmp_path, "--rounds", "6", "--kinds", *mutant.kinds, package=package)
        if "\n    violation: " in said:
            return
    pytest.fail(f"none of {HISTORIES} histories showed it")
