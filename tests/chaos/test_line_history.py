"""Seeded histories on lines and calls at once, in one process; and faults planted in the line, which they find.

One short history with a fresh seed, and many with ``-m long``. A seed is repeated by
`python -m tests.chaos.history.lines --seed …`. Faults of the system itself are in `test_history.py`.
"""

import asyncio
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.history.lines import play_lines
from tests.chaos.history.mutants import LINE_MUTANTS
from tests.support.ray_cluster import program_environment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
logger = logging.getLogger(__name__)

SECONDS = 5.0
LONG_HISTORIES, LONG_SECONDS = 24, 10.0
HISTORIES = 8
"""A history shows a planted fault in all likelihood, and not for certain."""
ROOT = Path(__file__).parents[2]
QUICK = {"an answer by a line does not wait for the write", "a request has another name by a line"}
"""Are found at once: one in what the line relies on, and one in the line itself, for each run of all tests."""


async def judged(directory: Path, seconds: float) -> None:
    """Play a history with a fresh seed; fail where it has violations, or was not by both ports."""
    seed = random.randrange(10**6)
    played = await play_lines(directory, seed=seed, seconds=seconds)
    figures, counts = played.findings.figures, played.counts
    logger.warning("seed %d: %s; %s", seed, dict(figures), dict(counts))
    assert played.findings.violations + played.troubles == [], f"seed {seed}, see {directory}"
    assert min(counts["by_line"], counts["by_call"]) > 0
    assert figures["ok"] > 10


async def test_short_history_by_both_ports(tmp_path: Path) -> None:
    """Owners die and are deposed, lines are cut and silent, calls are slow and lost: everybody is told one story."""
    await judged(tmp_path, SECONDS)


@pytest.mark.long
@pytest.mark.parametrize("number", range(LONG_HISTORIES))
async def test_long_history_by_both_ports(tmp_path: Path, number: int) -> None:
    """Many of them, and longer."""
    await judged(tmp_path, LONG_SECONDS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long]) for name in LINE_MUTANTS]
)
async def test_fault_in_the_line_is_found(tmp_path: Path, name: str) -> None:
    """The checker finds violations in what a product with the fault plays, in one history of a few.

    That something else went wrong is not enough.
    """
    faulty = LINE_MUTANTS[name].plant(tmp_path / "mutant")
    for _ in range(HISTORIES):
        seed, seconds = str(random.randrange(10**6)), str(LINE_MUTANTS[name].seconds)
        played = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.chaos.history.lines", "--seed", seed, "--seconds", seconds],
            env=program_environment(PYTHONPATH=f"{faulty}:{ROOT}"), cwd=tmp_path, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        logger.warning("%s", played.stdout)
        assert played.stdout.startswith("seed"), played.stderr
        if "\n    violation: " in played.stdout:
            return
    pytest.fail(f"none of {HISTORIES} histories showed it")
