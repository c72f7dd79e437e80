"""Real worker processes, and the offline models they use: started, watched and killed by pid."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from agent_worker.environment import offline_environment
from tests.support.servers import wait_for, wait_until

REPOSITORY = Path(__file__).parents[2]
TRANSCRIPT = REPOSITORY / "tests" / "data" / "transcript.json"
STARTED = 90.0
"""Seconds until a worker is ready on a busy machine."""
_ENDED = 30.0


class OfflineModels:
    """``python -m agent_worker.offline`` in a process of its own."""

    def __init__(self, directory: Path, *, transcript: Path = TRANSCRIPT) -> None:
        """Nothing runs before it is entered."""
        self._log = directory / "offline.log"
        self._transcript = transcript
        self.environment: dict[str, str] = {}
        self._url = ""

    def __enter__(self) -> Self:
        """Start, and learn the addresses."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent_worker.offline", "--json", "--transcript", self._transcript],
                stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY,
            )  # fmt: skip
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self._url = told["base_url"].removesuffix("/v1")
        self.environment = offline_environment(told["base_url"], told["deepgram_url"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._process.terminate()
        self._process.wait(timeout=_ENDED)
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def requests(self) -> list[dict[str, Any]]:
        """Bodies of the last completion requests, the newest last."""

        def fetch() -> list[dict[str, Any]]:
            with urllib.request.urlopen(f"{self._url}/requests", timeout=10) as answer:  # noqa: S310  # our own server
                requests: list[dict[str, Any]] = json.load(answer)["requests"]
                return requests

        return await asyncio.to_thread(fetch)

    async def requests_about(self, words: str) -> list[dict[str, Any]]:
        """Those whose last user message has these words."""
        return [one for one in await self.requests() if words in _last_user_text(one)]


def _last_user_text(request: Mapping[str, Any]) -> str:
    said = [one for one in request["messages"] if one["role"] == "user"]
    return json.dumps(said[-1]["content"]) if said else ""


class WorkerProcess:
    """``python -m agent_worker start`` (or ``work``), its log, and everything it has started."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str], *, command: str = "start", options: tuple[str, ...] = ()
    ) -> None:
        """`directory` is made; nothing runs before `start`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory / "worker.log"
        self._command = [sys.executable, "-m", "agent_worker", command, *options]
        self._environment = {
            "AGENT_LOG_FORMAT": "text",  # for people who read why a test failed
            **environment,
            "AGENT_PORT": "0",
            "AGENT_HEALTH_PORT": "0",
            "AGENT_MOST_CALLS": "20",
            "PYTHONPATH": str(REPOSITORY),
        }
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._family: set[int] = set()

    def launch(self) -> Self:
        """Start, and don't wait."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, cwd=self._directory
            )
        return self

    def start(self, *, idle: int = 1) -> Self:
        """Start, and wait until LiveKit's server has it, with a job process ready."""
        self.launch()
        self.wait_ready(idle=idle)
        return self

    def wait_ready(self, *, lives: int = 1, idle: int = 1) -> None:
        """Wait until it has been registered so many times, and that many processes are ready for a call."""

        def is_ready() -> bool:
            if self.process.poll() is not None:
                message = f"the worker ended with {self.process.returncode}:\n{self.log()[-3000:]}"
                raise RuntimeError(message)
            log = self.log()
            return log.count("registered worker") >= lives and log.count("process initialized") >= idle

        wait_for(is_ready, "the worker to be ready", patience=STARTED)
        self.remember()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started: of ``start`` the supervisor, of ``work`` the worker."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def worker(self) -> psutil.Process:
        """The worker itself, whoever its supervisor is."""
        own = psutil.Process(self.process.pid)
        children = [child for child in own.children() if "work" in child.cmdline()]
        return children[0] if children else own

    def log(self) -> str:
        """Return what it, and its jobs, have logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def health_url(self) -> str:
        """Where its newest worker tells how it is."""
        told = re.findall(r"agent_worker\.worker\.server health url=(\S+)", self.log())
        return str(told[-1])

    def remember(self) -> None:
        """Note all that runs for it, so that nothing is left behind when it is killed."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            self._family |= {own.pid, *(child.pid for child in own.children(recursive=True))}

    def terminate(self) -> None:
        """Ask it to end: SIGTERM, as a deploy does."""
        self.remember()
        self.process.send_signal(signal.SIGTERM)

    async def wait_ended(self, *, patience: float = 60.0) -> int:
        """Wait for its end; returns the exit code."""

        async def has_ended() -> bool:
            return self.process.poll() is not None

        await wait_until(has_ended, "the worker to end", patience=patience)
        return self.process.returncode

    def stop(self) -> None:
        """End it and whatever it has started, at once."""
        if self._process is None:
            return
        self.remember()
        for pid in self._family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=_ENDED)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; a failure shows the log's end."""
        self.stop()
        if isinstance(error, Exception):
            error.add_note(f"the worker's log ends:\n{self.log()[-6000:]}")
