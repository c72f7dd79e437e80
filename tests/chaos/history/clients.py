"""The client processes of one history."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from conversation_actors import Settings
from tests.chaos.history.client import LAST_SECONDS, OPERATIONS_VARIABLE, TICK_SECONDS
from tests.support.ray_cluster import program_environment
from tests.support.servers import wait_until

CLIENTS = 3
"""That play at once."""
PATIENCE = 30.0
"""Seconds in which clients do what they do at once on an idle machine."""
_TAIL_BYTES = 64 << 10
_OK = b'"result": "ok"'


class Clients:
    """The client processes of one history; who is killed is followed by another."""

    def __init__(
        self, directory: Path, settings: Settings, conversations: list[str], *,
        dice: random.Random, python_path: str, operations: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Nothing runs before `start`.

        A `python_path` has another version of the product; `operations` are what clients do, and how often each is
        drawn, in the place of `client.OPERATIONS`.
        """
        self._directory, self._conversations, self._dice = directory, conversations, dice
        self._environment = {**_environment(settings, python_path), OPERATIONS_VARIABLE: json.dumps(operations or {})}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._count = 0

    def start(self) -> None:
        """Start another one."""
        self._count += 1
        name = f"client-{self._count}"
        direct = "off" if self._count % CLIENTS == 0 else "auto"  # one of them has no line: both ports in one history
        command = [sys.executable, "-m", "tests.chaos.history.client", str(self._directory), name]
        with (self._directory / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*command, str(self._dice.random()), *self._conversations],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
                env={**self._environment, "CONVERSATION_DIRECT": direct},
            )  # fmt: skip

    def replace_one(self) -> None:
        """SIGKILL one, and start another."""
        process = self._running.pop(self._dice.choice(sorted(self._running)))
        process.kill()
        process.wait()
        self.start()

    def some_pid(self) -> int:
        """One of them."""
        return self._running[self._dice.choice(sorted(self._running))].pid

    def are_running(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self._running.values())

    def acknowledged(self) -> int:
        """How many operations of all clients, of the killed ones too, have been acknowledged."""
        return sum(path.read_bytes().count(_OK) for path in self._directory.glob("client-*.jsonl"))

    async def all_awake(self) -> None:
        """Wait until every client has been awake since now, and has written down what was on its way to it."""
        now = time.monotonic() + 2 * TICK_SECONDS

        async def are_awake() -> bool:
            return all(_last_seen(self._directory / f"{name}.jsonl") > now for name in self._running)

        await wait_until(are_awake, "all clients to be awake", patience=PATIENCE)

    async def finish(self) -> list[str]:
        """Have all of them end what they have begun; tell who did not."""
        (self._directory / "stop").touch()

        async def have_ended() -> bool:
            return all(process.poll() is not None for process in self._running.values())

        with suppress(TimeoutError):
            await wait_until(have_ended, "all clients to end", patience=LAST_SECONDS + PATIENCE)
        ends = {name: process.poll() for name, process in self._running.items()}
        return [f"{name} has not ended well: {status}, see {name}.log" for name, status in ends.items() if status != 0]

    def kill(self) -> None:
        """End all that run."""
        for process in self._running.values():
            process.kill()
            process.wait()


def _environment(settings: Settings, python_path: str) -> dict[str, str]:
    timeouts = {
        f"CONVERSATION_TIMEOUT_{name.upper()}": str(value.total_seconds())
        for name in type(settings.timeouts).model_fields
        if (value := getattr(settings.timeouts, name))
    }
    paths = {"PYTHONPATH": python_path} if python_path else {}
    return program_environment(
        CONVERSATION_REDIS_URL=settings.require_redis_url(),
        RAY_ADDRESS=str(settings.ray_address),
        CONVERSATION_HISTORY_ITEMS=str(settings.history.items),
        CONVERSATION_HISTORY_BYTES=str(settings.history.bytes),
        **timeouts,
        **paths,
    )


def _last_seen(path: Path) -> float:
    """When a process wrote its last whole line."""
    with suppress(FileNotFoundError, IndexError, ValueError):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            whole = file.read().rpartition(b"\n")[0]
        return float(json.loads(whole.rpartition(b"\n")[2])["at"])
    return 0.0
