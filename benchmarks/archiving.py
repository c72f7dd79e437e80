"""An archiver as everybody runs it, beside what is measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.stage import Valkey


@contextmanager
def archiver(server: Valkey, url: str, **variables: str) -> Iterator[Path]:
    """Run one until the end of the block; `variables` are added to its environment. Yield the path of its log."""
    log = server.directory / "archiver.log"
    environment = {
        **os.environ, "CONVERSATION_REDIS_URL": server.url, "CONVERSATION_ARCHIVE_URL": url, **variables,
    }  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "conversation_actors.cli", "archive"],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
