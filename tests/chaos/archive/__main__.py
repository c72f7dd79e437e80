"""Plays histories by themselves: `python -m tests.chaos.archive --seed 7 --rounds 30`; status 1 where one is wrong."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.archive.nemesis import FAULTS
from tests.chaos.archive.play import play


def main() -> int:
    """Play what the arguments ask for, and print what each was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.archive", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first history (random)")
    parser.add_argument("--rounds", type=int, default=30, help="of faults in each history (30)")
    parser.add_argument("--histories", type=int, default=1, help="how many, with one seed after the other (1)")
    parser.add_argument("--kinds", nargs="*", choices=list(FAULTS), help="kinds of faults (all)")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="archive-"))
    sys.stdout.write(f"what is written is in {directory}\n")
    wrong = 0
    for seed in range(asked.seed, asked.seed + asked.histories):
        weights = dict.fromkeys(asked.kinds, 1) if asked.kinds else None
        report = asyncio.run(play(directory / str(seed), seed=seed, rounds=asked.rounds, weights=weights))
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        wrong += len(report.violations) + len(report.troubles)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
