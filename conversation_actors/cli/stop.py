"""How `dev` and all that it started are ended: a living one by a signal, a dead one's by the ids that it wrote down."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from conversation_actors.cli.dev import DRAIN_SECONDS
from conversation_actors.cli.dev_record import DevFile, Phase, end_archiver, end_head, read
from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.settings import data_directory
from conversation_actors.store import EmbeddedServer

_ORDERLY_SECONDS = DRAIN_SECONDS + 40.0
"""Time for draining, for connecting in order to drain, and for ending Ray and Redis."""
_AT_ONCE_SECONDS = 30.0
_POLL = 0.1


def run() -> None:
    """End everything that `dev` has started. Raises `ClusterUnavailableError` if a running `dev` does not end."""
    directory = data_directory()
    ended = []
    if directory.is_dir():
        file = DevFile.take(directory)
        if file is None:
            file = _end_running(directory)
            ended.append("`dev`, with all that it had started")
        with file:
            ended += _end_left(file, directory)
    _say(f"Ended: {'; '.join(ended)}." if ended else f"Nothing of `dev` is running on {directory}.")


def _end_left(file: DevFile, directory: Path) -> list[str]:
    """End what is left of a dead `dev`. Returns what it was."""
    ended = []
    left = file.left
    if left is not None and left.phase is not Phase.ENDED and (count := end_head(left)):
        ended.append(f"{count} processes of Ray, left by a killed `dev` (process {left.dev.pid})")
    if left is not None and end_archiver(left):
        ended.append(f"the archiver, left by a killed `dev` (process {left.dev.pid})")
    server = EmbeddedServer(directory)
    if server.find():
        ended.append(f"Redis (process {server.pid}), whose data stays in {directory}")
        server.adopt()
        server.stop()
    file.close_left()
    return ended


def _end_running(directory: Path) -> DevFile:
    """Have the running `dev` stop in order, or at once if that takes too long. Returns the record, held.

    Raises `ClusterUnavailableError` if it does not end.
    """
    record = None
    for seconds, how in ((_ORDERLY_SECONDS, "it saves every conversation first"), (_AT_ONCE_SECONDS, "at once")):
        record = read(directory)
        if record is not None and record.dev.is_running:
            if record.phase is Phase.STOPPING and seconds == _ORDERLY_SECONDS:
                # after a second signal it would save nothing
                _say(f"`dev` (process {record.dev.pid}) is stopping already, {how} …")
            else:
                _say(f"Stopping `dev` (process {record.dev.pid}), {how} …")
                with suppress(ProcessLookupError):
                    os.kill(record.dev.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (file := DevFile.take(directory)) is not None:
                return file
            time.sleep(_POLL)
    who = f"process {record.dev.pid}" if record is not None else "a process"
    message = f"`dev` does not end: {who} still holds {directory}; `kill -9` it, and run this again"
    raise ClusterUnavailableError(message)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a command line's way to answer
