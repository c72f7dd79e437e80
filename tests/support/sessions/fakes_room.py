"""Stand-ins for what the worker's tests do not need for real."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent_worker.offline.script import ChatRequest, Reply
from conversation_actors.errors import OverloadedError, StoreUnavailableError
from conversation_actors.items import Item, item_from_dict


@dataclass(frozen=True)
class FakeEntry:
    """A position, without what happened there."""

    seq: int


class FakeConversation:
    """A conversation in memory: upserts by id, keeps what it would store, refuses what the real one refuses."""

    def __init__(self, *, item_bytes: int = 128 << 10) -> None:
        """`item_bytes`: the limit of one item, as in the settings."""
        self.seq = 0
        self.flushes = 0
        self.full = False
        self.store_is_away = False
        self.history: list[str] = []
        self.removals: list[tuple[str, ...]] = []
        """What was taken out, each time that the past was forgotten."""
        self._items: dict[str, Item] = {}
        self._item_bytes = item_bytes

    @property
    def items(self) -> tuple[Item, ...]:
        """What is stored, read back as another process would read it."""
        return tuple(item_from_dict(item.to_dict()) for item in self._items.values())

    def record(self, item: Item) -> None:
        """Take an item, by the rules of the real one."""
        if self.full:
            message = "the outbox is full"
            raise OverloadedError(message)
        item.to_stored(limit=self._item_bytes)
        self.history.append(item.id)
        self._items[item.id] = item
        self.seq += 1

    def lose_everything(self) -> None:
        """Be empty, as after a loss of the store."""
        self._items.clear()

    def remove(self, *item_ids: str) -> None:
        """Take items out, each call with its outputs, and remember that the past was forgotten."""
        calls = {item.call_id for item in self.items if item.id in item_ids and hasattr(item, "call_id")}
        gone = {item.id for item in self.items if item.id in item_ids or getattr(item, "call_id", None) in calls}
        self._items = {name: item for name, item in self._items.items() if name not in gone}
        self.removals.append(tuple(sorted(gone)))
        self.seq += 1

    async def flush(self) -> None:
        """Acknowledge, unless the store is away."""
        if self.store_is_away:
            message = "Redis does not answer"
            raise StoreUnavailableError(message)
        self.flushes += 1

    async def watch(self, *, after_seq: int) -> AsyncIterator[FakeEntry]:
        """End after what is there: nothing else will come."""
        for seq in range(after_seq + 1, self.seq + 1):
            yield FakeEntry(seq)


class FunctionScript:
    """A script that is one function."""

    def __init__(self, decide: Callable[[ChatRequest], Reply]) -> None:
        """`decide` gives the answer to every request."""
        self._decide = decide

    def reply(self, request: ChatRequest) -> Reply:
        """Answer."""
        return self._decide(request)
