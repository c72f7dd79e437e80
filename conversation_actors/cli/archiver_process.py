"""An archiver in a process of its own, kept running by whoever has started it.

``python -m conversation_actors.cli.archiver_process`` is that process. It reads from standard input, as JSON, the URLs
that are to be used instead of those in the environment: a command line is there for all to read.
"""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from conversation_actors.backoff import Backoff
from conversation_actors.cli.archiving import archive_until_stopped, log_to_stderr
from conversation_actors.cli.processes import kill_session, last_lines
from conversation_actors.clock import uptime
from conversation_actors.errors import ConversationError
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "conversation_actors.cli.archiver_process")
_REDIS, _ARCHIVE = "redis_url", "archive_url"
_STOP_SECONDS = TIMING.archive_leave + 5.0
_LASTING_SECONDS = 60.0
"""An archiver that ran for so long is started again at once: what ended it is not what ended the one before."""
_POLL = 0.1


class ArchiverProcess:
    """Starts an archiver, and starts it again when it ends by itself. Whoever made this object stops it at the end.

    It is in a session of its own, so that this terminal's Ctrl-C does not reach it.
    """

    def __init__(
        self,
        log: Path,
        *,
        redis_url: str | None = None,
        archive_url: str | None = None,
        spawned: Callable[[int], None] = lambda _pid: None,
        command: tuple[str, ...] = COMMAND,
        timing: Timing = TIMING,
    ) -> None:
        """Add to the file `log` what it says. `spawned` is told of each process.

        The URLs replace those in the environment.
        """
        urls = {_REDIS: redis_url, _ARCHIVE: archive_url}
        self._urls = {name: url for name, url in urls.items() if url is not None}
        self._log, self._spawned, self._command = log, spawned, command
        self._backoff = Backoff(timing.archive_restart)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now, or ran last; None before the first."""
        return None if self._process is None else self._process.pid

    async def keep(self) -> None:
        """Start it, and start it again each time it ends, until this is cancelled. `stop` ends what runs then."""
        while True:
            began = uptime()
            process = self._start()
            while (code := process.poll()) is None:  # noqa: ASYNC110  # nothing to wait for but the kernel
                await asyncio.sleep(_POLL)
            if uptime() - began > _LASTING_SECONDS:
                self._backoff.reset()
            pause = self._backoff.next()
            told = {"code": code, "said": " ".join(last_lines(self._log, 1)), "seconds": round(pause, 1)}
            logger.error("the archiver has ended, and is started again", extra=told)
            await asyncio.sleep(pause)

    def stop(self, *, hurry: bool = False) -> None:
        """End it, in order unless there is no time for that. Idempotent; blocks."""
        process, self._process = self._process, None
        if process is None:
            return
        if not hurry:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        kill_session(process.pid)
        process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(  # noqa: S603  # arguments of our own, and no shell
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._spawned(process.pid)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already, which is noticed soon
            process.stdin.write(json.dumps(self._urls).encode())
            process.stdin.close()
        return process


def _settings(urls: Mapping[str, str]) -> Settings:
    """Return the settings of the environment, with these URLs."""
    changes: dict[str, Any] = {}
    if _REDIS in urls:
        changes["redis_url"] = SecretStr(urls[_REDIS])
    if _ARCHIVE in urls:
        changes["archive"] = ArchiveSettings(url=SecretStr(urls[_ARCHIVE]))
    return Settings(**changes)


def main() -> int:
    """Archive until SIGTERM. Returns the exit code."""
    log_to_stderr()
    try:
        settings = _settings(json.loads(sys.stdin.buffer.read() or b"{}"))
        asyncio.run(archive_until_stopped(is_to_migrate=False, settings=settings))
    except ConversationError as error:
        logger.error("the archiver cannot go on: %s", error)  # noqa: TRY400  # a sentence for people
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
