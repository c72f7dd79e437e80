"""Processes of one kind that a history kills, pauses and ends: who is gone is followed by another."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import wait_until

_PATIENCE = 90.0


class Crew:
    """Those that run now, of one kind."""

    def __init__(
        self, kind: str, command: Sequence[str], directory: Path, environment: Mapping[str, str], *,
        count: int, begun: bytes,
    ) -> None:  # fmt: skip
        """Nothing runs before `start`. One that has logged `begun` heeds signals."""
        self._kind, self._command, self._directory = kind, command, directory
        self.environment = dict(environment)
        """Of those that are started from now on."""
        self._count, self._begun = count, begun
        self._logs: dict[int, Path] = {}
        self.running: list[subprocess.Popen[bytes]] = []
        self.troubles: list[str] = []

    @property
    def begun(self) -> list[subprocess.Popen[bytes]]:
        """Those that run, and have begun to work."""
        return [process for process in self.running if self._has_begun(process.pid)]

    def start(self) -> None:
        """Start another one."""
        path = self._directory / f"{self._kind}-{len(self._logs) + 1}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._directory, env=self.environment,
            )  # fmt: skip
        self.running.append(process)
        self._logs[process.pid] = path

    def keep(self) -> None:
        """Start as many as there are to be. One that ended by itself is trouble."""
        for process in [process for process in self.running if process.poll() is not None]:
            self.running.remove(process)
            self.troubles.append(f"{self._kind} ended by itself with {process.returncode}, see {self._directory}")
        while len(self.running) < self._count:
            self.start()

    def lose(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGKILL some; nobody follows them before `keep`."""
        for process in processes:
            self.running.remove(process)
            process.kill()
            process.wait()

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGKILL some, and start as many."""
        self.lose(*processes)
        self.keep()

    def clear(self) -> None:
        """SIGKILL all, whatever they do."""
        self.lose(*self.running)

    async def end(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGTERM some, each of which is to end well in its time, whatever others do."""
        for process in processes:
            self.running.remove(process)
            process.send_signal(signal.SIGTERM)

        async def have_ended() -> bool:
            return all(process.poll() is not None for process in processes)

        try:
            await wait_until(have_ended, f"{self._kind} to end", patience=_PATIENCE)
        except TimeoutError as error:
            self.troubles.append(str(error))
        self.troubles += [
            f"{self._kind} ended with {process.poll()} at SIGTERM"
            for process in processes
            if process.poll() != 0 and self._has_begun(process.pid)
        ]
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _has_begun(self, pid: int) -> bool:
        """Tell whether one had come so far that it heeds signals."""
        return self._begun in self._logs[pid].read_bytes()
