"""The archiver processes of one history, each of them a real one."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from conversation_actors import Settings
from tests.support.ray_cluster import program_environment
from tests.support.waiting import wait_until

ARCHIVERS = 2
COMMAND = (sys.executable, "-m", "tests.chaos.archive.archiver")
_PATIENCE = 30.0


class Archivers:
    """Those that run now; who is killed is followed by another."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        """Nothing runs before `start`."""
        url = settings.archive.url
        assert url is not None
        self._directory = directory
        self._environment = program_environment(
            CONVERSATION_REDIS_URL=settings.require_redis_url(),
            CONVERSATION_ARCHIVE_URL=url.get_secret_value(),
            PYTHONPATH=os.environ["PYTHONPATH"],
        )
        self._logs: dict[int, Path] = {}
        self.running: list[subprocess.Popen[bytes]] = []
        self.troubles: list[str] = []

    def start(self) -> None:
        """Start another one."""
        path = self._directory / f"archiver-{len(self._logs) + 1}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                COMMAND, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory, env=self._environment
            )
        self.running.append(process)
        self._logs[process.pid] = path

    def keep(self) -> None:
        """Start as many as there are to be. One that ended by itself is trouble."""
        for process in [process for process in self.running if process.poll() is not None]:
            self.running.remove(process)
            self.troubles.append(f"an archiver ended by itself with {process.returncode}, see {self._directory}")
        while len(self.running) < ARCHIVERS:
            self.start()

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGKILL some, and start as many."""
        for process in processes:
            self.running.remove(process)
            process.kill()
            process.wait()
        self.keep()

    async def end(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGTERM some, each of which is to end well in its time, whatever the database does."""
        for process in processes:
            self.running.remove(process)
            process.send_signal(signal.SIGTERM)

        async def have_ended() -> bool:
            return all(process.poll() is not None for process in processes)

        try:
            await wait_until(have_ended, "archivers to end", patience=_PATIENCE)
        except TimeoutError as error:
            self.troubles.append(str(error))
        self.troubles += [
            f"an archiver ended with {process.poll()} at SIGTERM"
            for process in processes
            if process.poll() != 0 and self._has_begun(process.pid)
        ]
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _has_begun(self, pid: int) -> bool:
        """Tell whether an archiver had come so far that it heeds signals."""
        return b"archiving" in self._logs[pid].read_bytes()
