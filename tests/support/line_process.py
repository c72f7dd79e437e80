"""An owner in a process of its own that listens for lines and nothing else: to be measured, stopped and killed.

usage: python -m tests.support.line_process ADDRESS DIRECTORY

Prints where it listens: for TCP at the address, and on a socket in the directory. Ends with its input.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import psutil

from conversation_actors.protocol import PROTOCOL, LineAddress, Opened
from conversation_actors.store import MemoryStore
from conversation_actors.timing import TIMING
from tests.support.both_ports import LineActor
from tests.support.fakes import brief
from tests.support.ray_cluster import program_environment


class LineProcess:
    """The process. Use it as a context manager; it is killed, whatever state it is in, and nothing is left of it."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        """Listen for TCP at this address. Nothing runs before it is entered."""
        self._address = address

    def __enter__(self) -> Self:
        """Start; return when the owner can be reached."""
        self._directory = tempfile.TemporaryDirectory(prefix="line-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.line_process", self._address, self._directory.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=program_environment(),
        )  # fmt: skip
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.line = LineAddress(told["process"], bytes.fromhex(told["secret"]), told["unix"], tuple(told["tcp"]))
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, and remove its socket."""
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    @property
    def cpu_seconds(self) -> float:
        """Time on a processor so far."""
        spent = psutil.Process(self.pid).cpu_times()
        return float(spent.user + spent.system)

    @property
    def memory(self) -> int:
        """Bytes resident now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def descriptors(self) -> int:
        """How many are open."""
        return int(psutil.Process(self.pid).num_fds())


async def _main(address: str, directory: Path) -> None:
    actor = LineActor(brief(items=50), MemoryStore(), directory, node_address=address, timing=TIMING)
    opened = await actor.open(create=True, protocol=PROTOCOL)
    assert isinstance(opened, Opened)
    line = opened.line
    assert line is not None
    told = {"process": line.process, "secret": line.secret.hex(), "unix": line.unix, "tcp": line.tcp}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await actor.kill()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
