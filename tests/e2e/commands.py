"""Running ``conversation-actors`` as people do: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.servers import wait_for

COMMAND = (sys.executable, "-m", "conversation_actors.cli")
STARTED = 90.0
"""Seconds until a head node is ready on a busy machine."""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=150
    )


@contextmanager
def development_stack(directory: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running ``dev --json`` on a data directory, and the variables it printed; SIGTERM at the end."""
    environment = {**os.environ, "CONVERSATION_DATA_DIR": str(directory)}
    log = directory.with_suffix(".log").open("w")
    process = subprocess.Popen(
        [*COMMAND, "dev", "--json"], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        log.close()


def run_client(code: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a client's code (the body of a coroutine that has `client`) in a process with these variables."""
    body = "\n".join(f"        {line}" for line in code.strip().splitlines())
    program = (
        "import asyncio, json\nfrom conversation_actors import *\nfrom dataclasses import asdict\n"
        f"async def main():\n    async with ConversationClient() as client:\n{body}\nasyncio.run(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes that contain a text, such as a directory only they use."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if text in line]


def wait_for_none_naming(text: str) -> None:
    """Wait until no process is left that names a text."""
    wait_for(lambda: not processes_naming(text), f"no process that names {text}")
