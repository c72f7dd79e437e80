"""Faults planted in the product: the checker of histories finds each of them, in a bounded time."""

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history.mutants import MUTANTS, Mutant
from tests.chaos.history.play import play
from tests.support.faketime import REMEDY, libfaketime
from tests.support.ray_cluster import RayCluster

pytestmark = [pytest.mark.skipif(libfaketime() is None, reason=REMEDY), pytest.mark.chaos, pytest.mark.timeout(300)]
logger = logging.getLogger(__name__)

QUICK = "a deposed holder may write"
"""Is found at once, without any fault of the system's: one for each run of all tests."""
HISTORIES = 5
"""A history shows a fault in all likelihood, and not for certain: what two clients do at once is not for the seed."""
_NAMES = [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.long]) for name in MUTANTS]


@pytest.fixture(params=_NAMES)
def mutant(request: pytest.FixtureRequest) -> Mutant:
    """One planted fault."""
    return MUTANTS[request.param]


@pytest.fixture
def python_path(mutant: Mutant, tmp_path: Path) -> str:
    """Where owners and clients find the product with the fault, and the tests."""
    return os.pathsep.join([str(mutant.plant(tmp_path / "mutant")), str(Path(__file__).parents[2])])


@pytest.fixture
def mutated_cluster(python_path: str) -> Iterator[RayCluster]:
    """Make a cluster whose owners have the fault; joined by this process, which has not."""
    with RayCluster(environment={"PYTHONPATH": python_path}) as cluster:
        cluster.join()
        yield cluster


async def test_mutant_is_found(mutated_cluster: RayCluster, mutant: Mutant, python_path: str, tmp_path: Path) -> None:
    """A history that the faulty product played has violations: one of a few, for each is another one."""
    for number in range(HISTORIES):
        report = await play(
            mutated_cluster, tmp_path / f"history-{number}", seed=random.randrange(10**6), seconds=mutant.seconds,
            weights=dict.fromkeys(mutant.kinds, 1), operations=mutant.operations, python_path=python_path,
        )  # fmt: skip
        logger.warning("%s", report)
        if report.violations:
            return
    pytest.fail(f"none of {HISTORIES} histories showed it")
