"""The development stack: a Ray head node, an archiver and, if no Redis is configured, a server of our own."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from conversation_actors.cli.archiver_process import ArchiverProcess
from conversation_actors.cli.dev_archive import DevArchive, archive_for, dev_settings
from conversation_actors.cli.dev_record import (
    DIGESTS,
    DevFile,
    DevRecord,
    Phase,
    Process,
    digest,
    end_archiver,
    end_head,
    read,
)
from conversation_actors.cli.processes import with_environment
from conversation_actors.cli.ray_head import ENVIRONMENT, RayHead, variables_for_others
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Settings, data_directory
from conversation_actors.store import EmbeddedServer, open_store

DRAIN_SECONDS = 20.0
_CONNECT_SECONDS = 15.0
_POLL = 0.1

Value = TypeVar("Value")


@dataclass
class _Signals:
    """Signals from the person at the keyboard: the first one means stop, the second one means stop now."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._told)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under `nohup`
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        """Stop in order because the terminal was closed. Nothing is printed any more, since that would raise now."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        self._told()

    def _told(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


async def run(*, as_json: bool) -> int:
    """Start, wait and stop, or tell where a running `dev` is. Returns the exit code: 1 if Ray ended by itself.

    Raises `ConversationError`.
    """
    signals = _Signals()
    signals.listen()
    # people are told on standard error if standard output is for a program
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    settings = dev_settings(data_directory())
    url = None if settings.redis_url is None else settings.require_redis_url(shared_by="conversation-actors dev")
    directory = await asyncio.to_thread(_directory, url)
    found = await _unless_stopped(_take_or_find(directory, console), signals)
    if found is None:
        return 0
    if isinstance(found, DevRecord):
        _tell_of_other(found, url, console, as_json=as_json)
        return 0
    with found as file:
        return await _Stack(file, url, console, signals).run(as_json=as_json)


async def _check_redis(settings: Settings) -> None:
    """Make sure that the Redis of these settings answers, and allows all that a store does.

    Raises `ConversationError`. ``memory://`` would pass: `run` refuses it before.
    """
    store = open_store(settings)
    try:
        await store.check()
    finally:
        await store.aclose()


def _directory(url: str | None) -> Path:
    """Return where to work: in the directory of a Valkey of our own if `url` is its URL, so that it gets one head."""
    return (EmbeddedServer.directory_of(url) if url is not None else None) or data_directory()


async def _take_or_find(directory: Path, console: Console) -> DevFile | DevRecord:
    """Return the directory's record, held, or the record of another `dev` there, once that one is ready."""
    has_told = False
    while (file := DevFile.take(directory)) is None:
        record = read(directory)
        if record is not None and record.phase is Phase.READY and record.dev.is_running:
            return record
        if not has_told:
            has_told = True
            who = f"Another process works in {directory}"  # `stop`, or one without a record
            if record is not None and record.dev.is_running:
                who = f"Another `dev` (process {record.dev.pid}) is {record.phase}"
            console.print(f"{who}; waiting for it …")
        await asyncio.sleep(_POLL)
    return file


def _tell_of_other(record: DevRecord, url: str | None, console: Console, *, as_json: bool) -> None:
    """Tell where the running `dev` is. Raises `InvalidInputError` if another Redis than its own is asked for."""
    running = f"`conversation-actors dev` is running already (process {record.dev.pid})"
    if url is not None and digest(url) not in record.redis_digests[: None if record.has_server else 1]:
        message = (
            f"{running}, with another Redis than this terminal names: end it with `conversation-actors stop`, "
            "or set CONVERSATION_DATA_DIR to have one beside it"
        )
        raise InvalidInputError(message, field="CONVERSATION_DATA_DIR")
    console.print(f"{running}: nothing is started. `conversation-actors stop` ends it.")
    _tell(record.variables, console, as_json=as_json)


class _Stack:
    """Everything that one `dev` starts and stops."""

    def __init__(self, file: DevFile, url: str | None, console: Console, signals: _Signals) -> None:
        """Take as `url` that of the Redis that is configured, if one is; `file` tells what another `dev` has left."""
        left = file.left
        if left is not None and url is not None and left.is_own(url):
            url = None  # pasted from what a `dev` here has printed: its own server
        self._file, self._url, self._console, self._signals = file, url, console, signals
        self._server = EmbeddedServer(file.directory) if url is None else None
        self._head = RayHead(spawned=self._note_head)
        self._archiver: ArchiverProcess | None = None

    async def run(self, *, as_json: bool) -> int:
        """Start everything, wait, and stop everything. Returns the exit code."""
        try:
            await self._clean_up()
            redis_url = await asyncio.to_thread(self._start_server) if self._url is None else self._url
            if self._url is not None:
                await _check_redis(dev_settings(self._file.directory))
                self._console.print("Redis  yours, from the environment or .env")
            archive = await archive_for(self._file.directory, self._console)
            self._console.print("Ray    starting, which takes some seconds …")
            address = await _unless_stopped(self._head.start(), self._signals)
            if address is None:
                return 0
            variables: dict[str, str] = variables_for_others(address) | {"CONVERSATION_REDIS_URL": redis_url}
            if archive is not None:
                variables |= {"CONVERSATION_ARCHIVE_URL": archive.url}
            self._file.write(phase=Phase.READY, variables=variables, redis_digests=self._digests(redis_url))
            self._console.print(f"Ray    ready at {address}")
            _tell(variables, self._console, as_json=as_json)
            self._console.print("\nCtrl-C saves every conversation and stops all this.")
            async with self._archiving(archive, redis_url):
                return await self._until_stopped(address)
        finally:
            await asyncio.to_thread(self._stop)

    @asynccontextmanager
    async def _archiving(self, archive: DevArchive | None, redis_url: str) -> AsyncIterator[None]:
        """Have an archiver run inside the block, if there is an archive."""
        if archive is None:
            yield
            return
        self._archiver = archive.process(redis_url, spawned=self._note_archiver)
        keeping = asyncio.create_task(self._archiver.keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _until_stopped(self, address: str) -> int:
        """Wait until Ray has ended or a signal comes, save every conversation if one came, and return the exit code."""
        code = await _unless_stopped(self._head.wait(), self._signals)
        if code is not None:
            print(f"Ray has ended by itself (exit code {code}): {self._head.last_words()}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
            return 1
        self._note_end(phase=Phase.STOPPING)
        self._console.print(
            f"\nSaving every conversation, for {DRAIN_SECONDS:.0f} s at most … (Ctrl-C again: stop at once)"
        )
        self._console.print(await _drain(address, self._signals.hurry))
        return 0

    async def _clean_up(self) -> None:
        """End the Ray and the archiver of a `dev` that was killed, and adopt the server that it has left."""
        left = self._file.left
        if left is not None and left.phase is not Phase.ENDED:
            await asyncio.to_thread(end_archiver, left)
            count = await asyncio.to_thread(end_head, left)
            if self._server is not None and left.has_server:
                self._server.adopt()
            if count:
                self._console.print(
                    f"Ended {count} processes of Ray, which a killed `dev` (process {left.dev.pid}) had left"
                )
        has_server = self._server is not None
        self._file.write(has_server=has_server, redis_digests=left.redis_digests if left and has_server else ())

    def _start_server(self) -> str:
        assert self._server is not None
        self._server.start()
        how = "a server of our own"
        if self._server.is_reused:
            how = "running already, and " + ("used on" if self._server.is_adopted else "left running")
        self._console.print(f"Redis  {how}; its data stays in {self._file.directory}")
        return self._server.url

    def _digests(self, redis_url: str) -> tuple[str, ...]:
        left = self._file.left
        earlier = left.redis_digests if left is not None and self._server is not None else ()
        return tuple(dict.fromkeys([digest(redis_url), *earlier]))[:DIGESTS]

    def _note_head(self, pid: int | None, directory: Path) -> None:
        self._file.write(head=None if pid is None else Process.of(pid), head_directory=str(directory))

    def _note_archiver(self, pid: int) -> None:
        self._file.write(archiver=Process.of(pid))

    def _note_end(self, **changes: Any) -> None:
        """Note how far the end is. If that is impossible, say so and go on, since everything has to be ended anyway."""
        try:
            self._file.write(**changes)
        except OSError as error:
            self._console.print(f"The data directory {self._file.directory} cannot be written to: {error.strerror}")

    def _stop(self) -> None:
        self._note_end(phase=Phase.STOPPING)
        if self._signals.stop.is_set():
            is_ours = self._server is not None and (self._server.is_adopted or not self._server.is_reused)
            self._console.print(
                "Stopping Ray" + (", and Redis, which writes its data to disk" if is_ours else "") + " …"
            )
        self._head.stop(hurry=self._signals.hurry.is_set() or not self._signals.stop.is_set())
        if self._archiver is not None:
            self._archiver.stop(hurry=self._signals.hurry.is_set())
        if self._server is not None:
            self._server.stop()
        self._note_end(phase=Phase.ENDED, variables={})


async def _unless_stopped(starting: Coroutine[Any, Any, Value], signals: _Signals) -> Value | None:
    """Return what `starting` returns; None if a signal came first."""
    work, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(signals.stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        return await work
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    return None


def _tell(variables: dict[str, str], console: Console, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(variables), flush=True)  # noqa: T201  # the interface
        return
    console.print("\nIn another terminal:\n")
    for name, value in variables.items():
        console.print(f"export {name}={shlex.quote(value)}", markup=False)


async def _drain(address: str, hurry: asyncio.Event) -> str:
    """Save every conversation, as long as nobody is in a hurry. Returns the line that tells what was saved."""
    command = [sys.executable, "-m", "conversation_actors.cli.drain", address, str(DRAIN_SECONDS)]
    process = await asyncio.create_subprocess_exec(
        *with_environment(command, changes=ENVIRONMENT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    work, hurried = asyncio.create_task(process.communicate()), asyncio.create_task(hurry.wait())
    await asyncio.wait({work, hurried}, timeout=DRAIN_SECONDS + _CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not work.done():
        process.kill()
        await work
        return "Not all saved; they will be rebuilt from their journals."
    told, errors = await work
    if process.returncode:
        reason = errors.decode(errors="replace").strip()[-400:]
        return f"Not saved ({reason}); the conversations will be rebuilt from their journals."
    saved, running = (int(count) for count in told.split())
    if saved == running:
        return f"Saved: {saved}."
    reason = errors.decode(errors="replace").strip()[-400:] or "no answer in time"
    return f"Saved: {saved} of {running}; the others will be rebuilt from their journals ({reason})."
