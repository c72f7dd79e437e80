"""The supervisor of a worker: starts it, sees it end, calls agents into its calls, starts it again.

It is small on purpose: it imports neither LiveKit's agents nor Ray, and has nothing to do that could fail
while the worker lives.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

from agent_worker.environment import child_environment
from agent_worker.failures import Failures
from agent_worker.settings import CallSettings, LiveKitSettings, TakeoverSettings
from agent_worker.tenure.assignment import RestartReason
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.takeover import HOLD, Takeover
from conversation_actors import Heartbeats, Settings

logger = logging.getLogger(__name__)

EXIT_USAGE = 2
"""A worker's exit code for a mistake in what it was given."""
EXIT_NOT_STARTED = 1
"""In place of a worker's exit code if there was no worker."""
_STEADY = timedelta(minutes=1)
"""A worker that ran for so long is started again at once."""


class Supervisor:
    """Keeps one worker running until it is told to stop."""

    def __init__(
        self,
        arguments: Sequence[str],
        instance: str,
        environment: dict[str, str] | None = None,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """`arguments`: the worker's command line, after ``python -m agent_worker``."""
        self._command = [sys.executable, "-m", "agent_worker", *arguments]
        self._instance, self._delays = instance, timing.restart_delays
        self._environment = environment or {}
        self._failures = Failures()
        self._stop = asyncio.Event()
        self._worker: asyncio.subprocess.Process | None = None

    async def run(self) -> int:
        """Run the worker, again and again; returns its exit code when it ended because it was told to.

        A worker that finds a mistake in its settings (exit code 2) is not started again. One that the system could
        not start is, with the same pauses as one that ended.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._tell_to_stop)
        livekit = LiveKitSettings()
        async with Heartbeats(Settings()) as heartbeats, Rooms(livekit) as rooms:
            takeover = Takeover(heartbeats, rooms, TakeoverSettings(), linger=CallSettings().linger, give_up=None)
            failures, run = 0, 0
            takeovers: set[asyncio.Task[None]] = set()
            while True:
                run += 1
                name = f"{self._instance}-{run}"
                started = time.monotonic()
                try:
                    code = await self.run_once(name)
                except OSError as error:
                    self._failures.count("worker", error, "the worker could not be started", instance=name)
                    code = EXIT_NOT_STARTED
                if self._stop.is_set() or code == EXIT_USAGE:
                    return code
                logger.error("the worker ended", extra={"code": code, "instance": name})
                # beside the restart: a call whose room is empty for a moment is waited for
                takeovers.add(task := asyncio.create_task(self._take_over(heartbeats, takeover, name)))
                task.add_done_callback(takeovers.discard)
                is_steady = time.monotonic() - started > _STEADY.total_seconds()
                failures = 0 if is_steady else failures + 1
                delay = self._delays[min(failures, len(self._delays) - 1)] if failures > 1 else 0.0
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._stop.wait()
                if self._stop.is_set():
                    for task in takeovers:
                        task.cancel()
                    await asyncio.gather(*takeovers, return_exceptions=True)
                    return code

    async def run_once(self, name: str) -> int:
        """Live one life of the worker, in a process group of its own; nothing of it is left."""
        environment = child_environment(name, self._environment)
        worker = await asyncio.create_subprocess_exec(*self._command, env=environment, start_new_session=True)
        self._worker = worker
        if self._stop.is_set():
            worker.terminate()
        try:
            return await worker.wait()
        finally:
            # an agent that outlived its worker for a moment must not speak into its successor's call
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)

    async def _take_over(self, heartbeats: Heartbeats, takeover: Takeover, name: str) -> None:
        """Hand over at once what the dead worker had. What fails here is counted, and workers find it by the clock."""
        try:
            records = await heartbeats.claim_group(name, f"supervisor of {name}", hold=HOLD)
            running = (takeover.run(record, reason=RestartReason.WORKER) for record in records)
            results = await asyncio.gather(*running, return_exceptions=True)
        except Exception as error:  # noqa: BLE001  # see the docstring
            self._failures.count("take_over", error, "the worker's calls cannot be looked up")
            return
        for result in results:
            if isinstance(result, BaseException):
                self._failures.count("take_over", result, "a call was not taken over yet")

    def _tell_to_stop(self) -> None:
        self._stop.set()
        if self._worker is not None and self._worker.returncode is None:
            self._worker.terminate()


def instance_name() -> str:
    """Return a name for a supervisor's workers that people can read, and that no other supervisor gives."""
    return f"{socket.gethostname()}-{uuid4().hex[:12]}"
