"""A process of the demo, and the lines of JSON in which it tells what it does."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from conversation_actors.cli.processes import last_lines

Told = dict[str, Any]
_LONGEST_LINE = 1 << 20


class DemoFailedError(Exception):
    """The demo cannot go on. The error carries the last lines of the process that is to blame."""

    def __init__(self, message: str, *, stderr: Sequence[str] = ()) -> None:
        """Take as `stderr` the end of what the process wrote there."""
        super().__init__(message)
        self.stderr = list(stderr)


class Performer:
    """One process that prints a line of JSON for each event."""

    def __init__(self, name: str, directory: Path, *, on_line: Callable[[Told], None] | None = None) -> None:
        """Take the `directory` in which the process runs, and in which its stderr is kept.

        `on_line` is told every line as it comes.
        """
        self.name = name
        self.lines: list[Told] = []
        self._directory, self._on_line = directory, on_line
        self._log = directory / f"{name.replace(' ', '-')}.stderr"
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *command: str) -> None:
        """Start the process, in a session of its own, which this terminal's Ctrl-C does not reach."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                limit=_LONGEST_LINE,
            )
        self._reader = asyncio.create_task(self._read())

    async def until(self, wanted: Callable[[Told], bool], what: str, *, patience: float = 40.0) -> Told:
        """Return the first line that is wanted, printed already or still to come. Raises `DemoFailedError`."""
        seen = 0
        try:
            async with asyncio.timeout(patience):
                while True:
                    for line in self.lines[seen:]:
                        seen += 1
                        if wanted(line):
                            return line
                    if self._reader is None or self._reader.done():
                        if self._reader is not None:
                            self._reader.result()  # raises what ended the reading, unless that was the end of the file
                        break
                    changed = self._changed
                    await changed.wait()
        except TimeoutError:
            message = f"{self.name} has not come to this in {patience:.0f} s: {what}"
            raise self.failed(message) from None
        message = f"{self.name} has ended before this: {what}"
        raise self.failed(message)

    def failed(self, message: str) -> DemoFailedError:
        """Return an error with this process's last words."""
        return DemoFailedError(message, stderr=last_lines(self._log))

    def kill(self) -> None:
        """Kill the process with SIGKILL: no goodbye. Does nothing if the process has ended."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async for data in self._process.stdout:
                try:
                    line = json.loads(data)
                except ValueError:
                    continue  # half a line: it was killed while it wrote
                self.lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)
                self._tell()
        finally:
            # those who wait have to see that no more will come, which is true one turn of the loop later
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
