"""Processes of tests: hung, woken and killed by their ids, and servers that run in one."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import psutil

from tests.support.waiting import PATIENCE, wait_for


def pause(pid: int) -> None:
    """Hang a process: its sockets accept connections (the kernel does), and nobody answers."""
    os.kill(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    """Let a paused process go on."""
    os.kill(pid, signal.SIGCONT)


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Hang processes while the block runs; those that have ended are left alone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            pause(pid)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                resume(pid)


def kill(pid: int) -> float:
    """End a process without a chance to say goodbye. Return when, on the monotonic clock."""
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return moment


def sigkill(pid: int) -> None:
    """Kill a process, if it still runs, and wait until it is gone."""
    with suppress(ProcessLookupError):
        kill(pid)
    wait_for(lambda: not is_alive(pid), f"process {pid} to be gone")


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class ServerProcess(ABC):
    """A server in a process of a test's own. Use it as a context manager; it is killed whatever state it is in."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> Self:
        """Start, and wait until it answers. Does nothing while it runs."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether this process, and no stranger on its port, answers."""

    def _comes_up(self) -> bool:
        """Wait until it answers; tell whether it does."""
        deadline = time.monotonic() + PATIENCE
        while self.is_running and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.01)
        return False

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; a paused one has not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id, of a server that this test has started."""
        if self.process is None:
            message = "not started by this test"
            raise RuntimeError(message)
        return self.process.pid

    def pause(self) -> None:
        """Hang it."""
        pause(self.pid)

    def resume(self) -> None:
        """Let a paused server go on."""
        resume(self.pid)

    def kill(self) -> None:
        """End it without a chance to say goodbye: paused, too. Does nothing if this test has not started it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @contextmanager
    def killed_on_error(self) -> Iterator[None]:
        """Kill it when what follows its start fails."""
        try:
            yield
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Kill."""
        self.kill()
