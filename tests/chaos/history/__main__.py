"""Plays histories by themselves: `python -m tests.chaos.history --seed 7 --seconds 60`; status 1 where one is wrong."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.history.play import play
from tests.support.ray_cluster import RayCluster


def main() -> int:
    """Play what the arguments ask for, and print what each was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.history", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first history (random)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in each history (60)")
    parser.add_argument("--histories", type=int, default=1, help="how many, with one seed after the other (1)")
    parser.add_argument("--kinds", nargs="*", help="kinds of faults (all)")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="history-"))
    os.chdir(directory)
    sys.stdout.write(f"what is written is in {directory}\n")
    wrong = 0
    with RayCluster() as cluster:
        cluster.join()
        for seed in range(asked.seed, asked.seed + asked.histories):
            weights = dict.fromkeys(asked.kinds, 1) if asked.kinds else None
            report = asyncio.run(
                play(cluster, directory / str(seed), seed=seed, seconds=asked.seconds, weights=weights)
            )
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
            wrong += len(report.violations)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
