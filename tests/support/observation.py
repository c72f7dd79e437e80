"""What tests on a cluster look at: settings, watchers, journals, processes."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from conversation_actors import (
    ActivationInfo,
    ConversationHandle,
    Entry,
    HistoryLimits,
    Item,
    Message,
    RetryableError,
    Settings,
    Timeouts,
)
from conversation_actors.local import MEMORY_NODE
from conversation_actors.state import ItemsAppended
from conversation_actors.testing import crash
from tests.support.processes import is_alive, sigkill
from tests.support.ray_cluster import program_environment
from tests.support.servers import wait_until

PROGRAMS = Path(__file__).parent / "programs"


def make_settings(url: str, ray_address: str, *, timeouts: dict[str, float] | None = None, **fields: Any) -> Settings:
    """Settings as a user has them, with room for a test's whole history; time-outs in seconds."""
    limits: dict[str, Any] = {
        name: timedelta(seconds=value) for name, value in {"poll": 5.0, **(timeouts or {})}.items()
    }
    return Settings(
        redis_url=SecretStr(url),
        ray_address=ray_address,
        timeouts=Timeouts(**limits),
        history=fields.pop("history", None) or HistoryLimits(items=20_000, bytes=8 << 20),
        **fields,
    )


def user(text: str) -> Message:
    """Make a message of a user."""
    return Message(role="user", content=text)


def texts(items: Iterable[Item]) -> list[str]:
    """Return what messages say, in order."""
    return [item.text for item in items if isinstance(item, Message)]


def appended(entries: Iterable[Entry]) -> list[str]:
    """Return what the messages of a journal say: a command that was executed twice shows up twice."""
    found: list[str] = []
    for entry in entries:
        if isinstance(entry.event, ItemsAppended):
            found += texts(stored.to_item() for stored in entry.event.items)
    return found


class Watcher:
    """Follows a conversation by `watch`, keeps every entry it saw, and resumes after a `RetryableError`."""

    def __init__(self, handle: ConversationHandle, *, after_seq: int = 0) -> None:
        """Begin behind `after_seq`, when entered."""
        self._handle, self._after_seq = handle, after_seq
        self.entries: list[Entry] = []
        self.resumed = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and raise what ended it before."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def seqs(self) -> list[int]:
        """The positions seen, in the order they came."""
        return [entry.seq for entry in self.entries]

    @property
    def texts(self) -> list[str]:
        """What the messages said, in the order they came."""
        return appended(self.entries)

    async def saw(self, seq: int) -> None:
        """Wait until it has come to `seq`."""

        async def reached() -> bool:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            return bool(self.entries) and self.entries[-1].seq >= seq

        await wait_until(reached, f"the watcher to see {seq}")

    async def _follow(self) -> None:
        while True:
            try:
                async for entry in self._handle.watch(after_seq=self._after_seq):
                    self.entries.append(entry)
                    self._after_seq = entry.seq
            except RetryableError:
                self.resumed += 1
                await asyncio.sleep(0.05)


def assert_contiguous(seqs: Sequence[int], *, after_seq: int = 0) -> None:
    """Fail unless the positions follow one another without gap, repeat or disorder."""
    assert list(seqs) == list(range(after_seq + 1, after_seq + 1 + len(seqs)))


def assert_exactly_once(present: Sequence[str], acknowledged: Iterable[str]) -> None:
    """Fail if something acknowledged is missing, or anything at all is there twice."""
    counts = Counter(present)
    assert [text for text in acknowledged if text not in counts] == []
    assert [text for text, count in counts.items() if count > 1] == []


def assert_ordered(present: Sequence[str], writer: str) -> None:
    """Fail unless what `writer` numbered (``writer-00017``) is there in its order."""
    own = [text for text in present if text.startswith(f"{writer}-")]
    assert own == sorted(own)


async def kill_owner(info: ActivationInfo) -> None:
    """End an owner without a word: its process, or what stands for one in this process."""
    if info.node_id == MEMORY_NODE:
        await crash(info.conversation_id)
    else:
        assert info.pid != os.getpid()
        sigkill(info.pid)


async def pid_of(handle: ConversationHandle) -> int:
    """The process id of the conversation's owner."""
    return (await handle.info()).pid


async def gone(pid: int, *, patience: float = 20.0) -> float:
    """Wait until a process is gone; return how many seconds that took."""
    started = time.monotonic()

    async def is_gone() -> bool:
        return not is_alive(pid)

    await wait_until(is_gone, f"process {pid} to exit", patience=patience)
    return time.monotonic() - started


def start_program(name: str, *arguments: str, settings: Settings | None = None) -> "subprocess.Popen[str]":
    """Start one of `programs/` as a process of its own; its output is for the test to read."""
    variables: dict[str, str] = {}
    if settings is not None:
        variables = {
            "CONVERSATION_REDIS_URL": settings.require_redis_url(),
            "RAY_ADDRESS": str(settings.ray_address),
            "CONVERSATION_HISTORY_ITEMS": str(settings.history.items),
            "CONVERSATION_HISTORY_BYTES": str(settings.history.bytes),
        }
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / f"{name}.py"), *arguments],
        env=program_environment(**variables), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines_of(path: Path) -> list[str]:
    """The complete lines of a file that somebody is writing."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].split()
