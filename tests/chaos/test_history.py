"""Seeded histories: clients do everything at once while everything fails, and a checker judges what they were told.

One short history with a fresh seed, or with `LONG_SEEDS` and `LONG_SECONDS` (`make long`) many longer ones. A seed is
repeated by `python -m tests.chaos.history --seed …`: the same faults in the same order, at nearly the same moments.
"""

import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history.nemesis import FAULTS
from tests.chaos.history.play import Report, play
from tests.support.faketime import REMEDY, libfaketime
from tests.support.ray_cluster import RayCluster

pytestmark = [pytest.mark.skipif(libfaketime() is None, reason=REMEDY), pytest.mark.chaos]
logger = logging.getLogger(__name__)

SECONDS = 18.0
"""Of the short one; starting and ending take as long again on two cores."""
LONG_SEEDS = int(os.environ.get("LONG_SEEDS") or 22)
LONG_SECONDS = float(os.environ.get("LONG_SECONDS") or 1980)
"""Of faults, in all histories together."""


@pytest.fixture(scope="module")
def history_cluster() -> Iterator[RayCluster]:
    """One head for all histories."""
    with RayCluster() as cluster:
        yield cluster


async def judged(cluster: RayCluster, directory: Path, seconds: float) -> Report:
    """Play a history with a fresh seed; fail where it has violations."""
    cluster.join()
    report = await play(cluster, directory, seed=random.randrange(10**6), seconds=seconds)
    logger.warning("%s", report)
    assert report.violations == [], f"seed {report.seed}, see {directory}"
    assert report.figures["ok"] > 20 * seconds / SECONDS
    assert min(report.figures["by unix"], report.figures["by ray"]) > 0  # both ports in one history
    return report


@pytest.mark.timeout(180)
async def test_short_history(history_cluster: RayCluster, tmp_path: Path) -> None:
    """Whatever of all faults comes in a short time: everybody was told one story."""
    await judged(history_cluster, tmp_path / "history", SECONDS)


@pytest.fixture(scope="module")
def met() -> Counter[str]:
    """Return the faults of all long histories."""
    return Counter()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(LONG_SEEDS))
async def test_long_history(history_cluster: RayCluster, tmp_path: Path, met: Counter[str], number: int) -> None:
    """Many longer histories, in which every kind of fault comes, and comes again."""
    met += (await judged(history_cluster, tmp_path / "history", LONG_SECONDS / LONG_SEEDS)).faults
    logger.warning("history %d of %d; faults of all: %s", number + 1, LONG_SEEDS, dict(met))
    assert number + 1 < LONG_SEEDS or set(met) == set(FAULTS)
