"""Plays calls by themselves: `python -m tests.chaos.calls --seed 7 --calls 1000`; status 1 where anything is wrong."""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.calls.nemesis import FAULTS
from tests.chaos.calls.play import play


def main() -> int:
    """Play what the arguments ask for, and print what it was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.calls", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the history (random)")
    parser.add_argument("--calls", type=int, default=40, help="how many, of several to a conversation (40)")
    parser.add_argument("--sqlite", action="store_true", help="archive into SQLite, also if there is a PostgreSQL")
    parser.add_argument("--kinds", nargs="+", choices=list(FAULTS), help="kinds of faults (all)")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds without progress at the end (180)")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)  # what was killed is told of by everybody
    directory = Path(tempfile.mkdtemp(prefix="calls-")) / str(asked.seed)
    sys.stdout.write(f"what is written is in {directory}\n")
    sys.stdout.flush()
    weights = dict.fromkeys(asked.kinds, 1) if asked.kinds is not None else None
    report = asyncio.run(
        play(
            directory, seed=asked.seed, calls=asked.calls, sqlite=asked.sqlite, weights=weights,
            patience=asked.patience,
        )
    )  # fmt: skip
    sys.stdout.write(f"{report}\n")
    return 1 if report.violations or report.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
