"""An archiver beside a Ray head: it runs as long as the head does, however the terminal fares that started the head.

``python -m conversation_actors.cli.beside_head PID`` is the process that keeps it. PID is the process that starts the
head; Ray's control store is a child of that.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from conversation_actors.archive.extra import REMEDY, lacking
from conversation_actors.cli.archiver_process import ArchiverProcess
from conversation_actors.cli.archiving import log_to_stderr
from conversation_actors.cli.dev_record import Process
from conversation_actors.cli.processes import arguments_of, children_of
from conversation_actors.cli.ray_head import NO_ARCHIVER
from conversation_actors.settings import ArchiveSettings, BackendSettings, WebhookSettings, require_outbox

_HEAD = "gcs_server"
_LOG_OPTION = "--log_dir="
_LOG = "conversation_archiver.log"
_FOUND_SECONDS = 10.0
_POLL = 0.1


@contextmanager
def archiver_beside(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Give `ray start` its arguments, and have an archiver beside the node if that is a head and a URL is set.

    Raises `InvalidInputError` for a wrong setting of the archive, of webhooks or of a back end.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--head", "--help", NO_ARCHIVER):
        parser.add_argument(name, action="store_true")
    told = parser.parse_known_args(list(arguments))[0]
    rest = [argument for argument in arguments if argument != NO_ARCHIVER]
    if not told.head or told.help or told.no_archiver or not _has_archive():
        yield rest
    elif missing := lacking():
        _say(f"archive none: {', '.join(missing)} is not installed ({REMEDY})")
        yield rest
    else:
        WebhookSettings()  # a mistake in them would end each archiver
        with _keeper():
            yield rest


def _has_archive() -> bool:
    archive = ArchiveSettings()
    require_outbox(archive, BackendSettings())
    return archive.url is not None


@contextmanager
def _keeper() -> Iterator[None]:
    """Run the process that keeps the archiver. It ends by itself if no head comes up."""
    command = [sys.executable, "-m", "conversation_actors.cli.beside_head", str(os.getpid())]
    keeper = subprocess.Popen(  # noqa: S603  # arguments of our own, and no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert keeper.stdout is not None
    telling = threading.Thread(target=_tell, args=(keeper.stdout,), daemon=True)
    telling.start()
    try:
        yield
    except SystemExit as ended:
        if ended.code in {0, None}:
            telling.join(_FOUND_SECONDS)  # the head is known from its parent, which is this process
        raise


def _tell(output: TextIO) -> None:
    """Say where the archiver logs, when that is known."""
    if place := output.readline().strip():
        _say(f"archive written by a process beside this head, which ends with it; its log is {place}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a command line's way to tell


def _find_head(starter: int) -> int | None:
    """Wait for Ray's control store, and return its process; None if its starter ends without one."""
    while True:
        is_there = os.getppid() == starter
        for pid in children_of(starter):
            if Path(next(iter(arguments_of(pid)), "")).name == _HEAD:
                return pid
        if not is_there:
            return None
        time.sleep(_POLL)


def _log_of(head: int) -> Path:
    """Return where to log: beside Ray's own logs."""
    places = [one.removeprefix(_LOG_OPTION) for one in arguments_of(head) if one.startswith(_LOG_OPTION)]
    return Path(places[0]) / _LOG if places else Path(os.devnull)


async def _keep_beside(head: Process, archiver: ArchiverProcess) -> None:
    """Keep the archiver until the head is gone, or this process is told to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keeping = asyncio.create_task(archiver.keep())
    try:
        while head.is_running and not stop.is_set() and not keeping.done():  # noqa: ASYNC110  # as with `keep`
            await asyncio.sleep(_POLL * 2)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await asyncio.to_thread(archiver.stop)


def main(arguments: Sequence[str]) -> int:
    """Keep an archiver beside the head that the given process starts. Returns the exit code."""
    found = _find_head(int(arguments[0]))
    if found is None:
        return 0
    log = _log_of(found)
    print(log, flush=True)  # noqa: T201  # the interface
    with log.open("ab") as own:
        for stream in (sys.stdout, sys.stderr):  # whoever read them is about to end
            os.dup2(own.fileno(), stream.fileno())
    log_to_stderr()
    asyncio.run(_keep_beside(Process.of(found), ArchiverProcess(log)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
