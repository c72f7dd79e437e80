"""What a newcomer types first: a console and a worker without an account, and a server that says no."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.support.livekit_server import LiveKitServer
from tests.support.servers import wait_for
from tests.support.workers import REPOSITORY, WorkerProcess

_ACCOUNTS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL")


def _without_account(environment: dict[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environment.items() if name not in _ACCOUNTS}
    return {**found, "PYTHONPATH": str(REPOSITORY)}


class Console:
    """``agent-worker console --offline`` in a process, with pipes for a terminal."""

    def __init__(self, directory: Path, environment: dict[str, str], conversation_id: str) -> None:
        """Nothing runs before it is entered."""
        self._directory, self._environment = directory, environment
        self._command = [
            sys.executable,
            "-m",
            "agent_worker",
            "console",
            "--offline",
            "--conversation",
            conversation_id,
        ]
        self.lines: list[str] = []
        self.errors = directory / "console.log"

    def __enter__(self) -> Self:
        """Start, and wait until the console is ready."""
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_without_account(self._environment),
                cwd=self._directory,
                text=True,
            )
        self._until("end with Ctrl-D")
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.process.kill()
        self.process.wait(timeout=30)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()

    def say(self, text: str) -> str:
        """Type a line, and read the agent's answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self._until("agent> ")

    def _until(self, words: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return line.strip()
        raise AssertionError("".join(self.lines) + self.errors.read_text(errors="replace"))


@pytest.mark.timeout(240)
def test_a_console_needs_no_account_and_remembers_across_a_kill(
    worker_environment: dict[str, str], conversation_id: str, tmp_path: Path
) -> None:
    """After kill -9 the next console knows the name and the order; nothing is printed that is not for the reader."""
    with Console(tmp_path, worker_environment, conversation_id) as console:
        assert "no language model" in console.lines[0]
        assert console.say("my name is Anna") == "agent> Nice to meet you, Anna. What can I do for you?"
        assert "brass reading lamp" in console.say("where is order 1042?")
        console.process.send_signal(signal.SIGKILL)
        console.process.wait(30)
    with Console(tmp_path, worker_environment, conversation_id) as console:
        assert console.say("What's my name?") == "agent> Your name is Anna."
        assert console.say("which order did I ask about?") == "agent> You asked about order 1042."
        assert console.process.stdin is not None
        console.process.stdin.close()
        assert console.process.wait(60) == 0
    assert not [
        line for line in console.lines if not line.startswith(("The offline", "conversation ", "agent> ", "  ("))
    ]


@pytest.mark.timeout(240)
async def test_a_worker_for_production_may_run_on_the_stand_ins(
    worker_environment: dict[str, str], tmp_path: Path
) -> None:
    """It says that no language model answers, gets its calls, and leaves nothing behind when it is told to stop."""
    environment = _without_account(worker_environment)
    with WorkerProcess(tmp_path / "worker", environment, options=("--offline",)) as worker:
        assert "calls are answered by offline stand-ins, and by no language model" in worker.log()
        family = set(worker._family)
        worker.terminate()
        assert await worker.wait_ended() == 0
        wait_for(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], "all of it to end")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["start", "work", "watch"])
def test_a_wrong_secret_is_one_sentence(
    command: str, livekit_server: LiveKitServer, worker_environment: dict[str, str], tmp_path: Path
) -> None:
    """LiveKit's server says no: exit code 2 and what to change, instead of attempts without end."""
    models = {"OPENAI_API_KEY": "x", "DEEPGRAM_API_KEY": "x"}
    ran = subprocess.run(
        [sys.executable, "-m", "agent_worker", command, "--api-secret", "w" * 32],
        env={**os.environ, **_without_account(worker_environment), **models},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 2, ran.stderr
    lines = ran.stderr.splitlines()
    assert [line for line in lines if line.startswith(f"agent-worker: api_key: {livekit_server.url} refuses ")]
    assert len(lines) == 1, ran.stderr
