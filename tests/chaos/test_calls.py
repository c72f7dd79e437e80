"""Calls whose agents, owners, archivers, deliverers and receiver die: each has one record, and is told once, in order.

A few calls with a fresh seed, and 1,000 with ``-m long``. A seed is repeated by `python -m tests.chaos.calls --seed …`.
And faults planted in the product, which the checker finds.
"""

import asyncio
import logging
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.calls.mutants import MUTANTS
from tests.support.postgres import NO_POSTGRES, has_postgres
from tests.support.ray_cluster import program_environment

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(not has_postgres(), reason=NO_POSTGRES)]
logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
FEW, MANY = 20, 1000
HISTORIES = 4
"""A history shows a planted fault in all likelihood, and not for certain."""


async def played(directory: Path, *arguments: str, package: Path | None = None, seconds: float) -> tuple[int, str]:
    """Play calls in a process of its own, whose `package` may have a fault; return its status and what it said."""
    path = f"{package}:{ROOT}" if package else str(ROOT)
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.chaos.calls", "--seed", str(random.randrange(10**6)), *arguments],
        env=program_environment(PYTHONPATH=path), cwd=directory, capture_output=True, text=True,
        check=False, timeout=seconds,
    )  # fmt: skip
    logger.warning("%s", process.stdout)
    assert "\nseed" in process.stdout, process.stderr[-4000:]
    return process.returncode, process.stdout


@pytest.mark.timeout(600)
async def test_every_call_has_one_record_and_is_told_of_once(tmp_path: Path) -> None:
    """Whoever of them dies: as many records as calls; each happening arrives, in order, and once by its id."""
    status, said = await played(tmp_path, "--calls", str(FEW), seconds=580)

    assert status == 0
    assert figure("records", said) == figure("calls", said) == FEW


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_thousand_calls_have_a_thousand_records(tmp_path: Path) -> None:
    """Every kind of death, many times."""
    status, said = await played(tmp_path, "--calls", str(MANY), seconds=3500)

    assert status == 0
    assert figure("records", said) == figure("calls", said) == MANY


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", MUTANTS)
async def test_fault_in_what_is_told_is_found(tmp_path: Path, name: str) -> None:
    """The checker finds violations in what a product with the fault plays. That something else failed is not enough."""
    mutant = MUTANTS[name]
    package = mutant.plant(tmp_path / "mutant")
    for _ in range(HISTORIES):
        arguments = ("--calls", "60", "--patience", "60", "--kinds", *mutant.kinds)
        _, said = await played(tmp_path, *arguments, package=package, seconds=280)
        if "\n    violation: " in said and figure("at rest", said):
            return
    pytest.fail(f"none of {HISTORIES} histories showed it")


def figure(name: str, said: str) -> int:
    """Return one of the figures that a history has printed; 0 if it is not among them."""
    found = re.search(rf"[:,] {name} (\d+)", said)
    return int(found[1]) if found else 0
