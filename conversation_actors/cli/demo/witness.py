"""A witness, who reads the journal from its first entry on, and so can say later what happened."""

import asyncio
from collections.abc import Callable

from conversation_actors.cli.demo.performer import DemoFailedError
from conversation_actors.cli.demo.verdict import Written
from conversation_actors.client import ConversationHandle
from conversation_actors.state import Entry, ItemsAppended


class Witness:
    """A watcher of one conversation, who misses no entry."""

    def __init__(self, handle: ConversationHandle) -> None:
        """Take the conversation's handle; `start` begins to watch."""
        self.entries: list[Entry] = []
        self._handle = handle
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch from the first entry on."""
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    async def until(self, wanted: Callable[[Entry], bool], what: str, *, patience: float = 40.0) -> Entry:
        """Return the first wanted entry, seen already or still to come. Raises `DemoFailedError`."""
        seen = 0
        try:
            async with asyncio.timeout(patience):
                while True:
                    for entry in self.entries[seen:]:
                        seen += 1
                        if wanted(entry):
                            return entry
                    changed = self._changed
                    if self._task is not None and self._task.done():
                        await self._task
                    await changed.wait()
        except TimeoutError:
            message = f"the journal has not come to this in {patience:.0f} s: {what}"
            raise DemoFailedError(message) from None

    def written(self) -> list[Written]:
        """Return every item that an entry has appended."""
        return [
            Written(entry.seq, item.id, item.data)
            for entry in self.entries
            if isinstance(entry.event, ItemsAppended)
            for item in entry.event.items
        ]

    async def _watch(self) -> None:
        """Watch until stopped. If anything else ends it, those who wait are told that."""
        try:
            async for entry in self._handle.watch(after_seq=0):
                self.entries.append(entry)
                self._tell()
        finally:
            # one turn of the loop later the task is done, and those who wait look at that
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def says(text: str) -> Callable[[Entry], bool]:
    """Return a function that tells whether an entry has a user's message of these words."""

    def wanted(entry: Entry) -> bool:
        if not isinstance(entry.event, ItemsAppended):
            return False
        told = (stored.to_item().to_dict() for stored in entry.event.items if stored.role == "user")
        return any(text in (fields["content"], "\n".join(map(str, fields["content"]))) for fields in told)

    return wanted
