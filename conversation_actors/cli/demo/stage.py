"""Everything the demo needs, in one temporary directory, which is gone when the demo ends."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from conversation_actors.archive.address import sqlite_url
from conversation_actors.cli.demo.performer import Performer, Told
from conversation_actors.cli.ray_head import RayHead
from conversation_actors.settings import ArchiveSettings, HistoryLimits, Settings, Timeouts
from conversation_actors.store import EmbeddedServer

HISTORY_ITEMS = 20_000
"""More than the longest transcript has: nothing may leave the window, or it could not be counted."""
HISTORY_BYTES = 64 << 20
_CHUNK_PAUSE = 0.02
"""Seconds between two words of the model: speech takes time, and can be cut off."""
_CPUS = 2


class Stage:
    """The servers and all other processes of the demo. Leaving the stage kills and removes them all, by their ids."""

    def __init__(self, transcript: Path) -> None:
        """Make the directory, and start nothing yet."""
        self._directory = Path(tempfile.mkdtemp(prefix="ca-demo-"))
        self._archive_url = sqlite_url(self._directory / "archive.db")
        self.settings: Settings = make_settings("", "", self._archive_url)
        self._transcript = transcript
        self._server = EmbeddedServer(self._directory / "redis")
        self._head = RayHead(cpus=_CPUS)
        self._performers: list[Performer] = []
        self._model_url = ""

    async def __aenter__(self) -> Self:
        """Start Redis, Ray, the archiver and the stand-in for the language model."""
        try:
            await self._start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """Kill what was started, and remove what was written. Awaits nothing, so that nothing can interrupt it."""
        for performer in self._performers:
            performer.kill()
        self._head.stop(hurry=True)
        self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def agent(self, name: str, *options: str, on_line: Callable[[Told], None] | None = None) -> Performer:
        """Start a process of the agent, on the demo's own servers."""
        command = ["-m", "agent_worker", "talk", *options]
        return await self._perform(name, *command, on_line=on_line)

    def wipe(self) -> None:
        """Remove everything from Redis, as a mistake of an operator would."""
        self._server.wipe()

    @property
    def talking(self) -> tuple[str, ...]:
        """The options of an agent that holds the call."""
        return ("--transcript", str(self._transcript), "--llm-url", self._model_url)

    async def _start(self) -> None:
        self._server.start()
        offline = ("-m", "agent_worker.offline", "--json", "--transcript", str(self._transcript))
        model = await self._perform("language model", *offline, "--chunk-pause", str(_CHUNK_PAUSE))
        address, ready = await asyncio.gather(
            self._head.start(), model.until(lambda line: "base_url" in line, "listen to requests")
        )
        self._model_url = str(ready["base_url"])
        self.settings = make_settings(self._server.url, address, self._archive_url)
        self._tell_settings(address)
        await self._perform("archiver", "-m", "conversation_actors.cli", "archive", "--migrate")

    def _tell_settings(self, address: str) -> None:
        """Write the settings to the file that processes read in their directory: ``ps`` would show the password."""
        lines = [
            f"CONVERSATION_REDIS_URL='{self._server.url}'",
            f"RAY_ADDRESS='{address}'",
            f"CONVERSATION_ARCHIVE_URL='{self._archive_url}'",
            f"CONVERSATION_HISTORY_ITEMS={HISTORY_ITEMS}",
            f"CONVERSATION_HISTORY_BYTES={HISTORY_BYTES}",
        ]
        (self._directory / ".env").write_text("\n".join(lines) + "\n")

    async def _perform(self, name: str, *command: str, on_line: Callable[[Told], None] | None = None) -> Performer:
        performer = Performer(name, self._directory, on_line=on_line)
        await performer.start(sys.executable, *command)
        self._performers.append(performer)
        return performer


def make_settings(redis_url: str, ray_address: str, archive_url: str) -> Settings:
    """Return the demo's own settings; nothing is read from the environment or a file."""
    history: dict[str, Any] = {"items": HISTORY_ITEMS, "bytes": HISTORY_BYTES}
    return Settings.model_construct(
        redis_url=SecretStr(redis_url),
        ray_address=ray_address,
        history=HistoryLimits.model_construct(**history),
        archive=ArchiveSettings.model_construct(url=SecretStr(archive_url)),
        timeouts=Timeouts.model_construct(),
    )
