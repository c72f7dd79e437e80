"""What was said in a conversation, as the caller's page shows it again."""

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from conversation_actors import ConversationNotFoundError, Message, Settings, Snapshot
from conversation_actors.client.opening import open_readable_store
from conversation_actors.client.reading import Reader
from conversation_actors.store import Store

MAX_LINES = 200
"""The newest ones: a page is no archive."""


def stored_lines(snapshot: Snapshot | None, identity: str) -> list[dict[str, Any]]:
    """Lines of people and agents, in order; none for somebody whom the conversation does not know.

    Each is ``{"id", "speaker": "you" | "agent" | "other", "who": a name or "", "text", "interrupted"}``.
    """
    if snapshot is None or identity not in snapshot.participants:
        return []
    return list(_lines(snapshot, identity))[-MAX_LINES:]


def _lines(snapshot: Snapshot, identity: str) -> Iterator[dict[str, Any]]:
    for item in snapshot.items:
        if not isinstance(item, Message) or item.role not in {"user", "assistant"} or not item.text.strip():
            continue
        speaker, who = ("agent", "") if item.role == "assistant" else _person(item, snapshot, identity)
        yield {"id": item.id, "speaker": speaker, "who": who, "text": item.text, "interrupted": item.interrupted}


def _person(message: Message, snapshot: Snapshot, identity: str) -> tuple[str, str]:
    """Return who said it; if nobody noted that, it was the only person there has been, or somebody."""
    said_by = (message.participant or {}).get("identity")
    if said_by is None and len(snapshot.participants) == 1:
        said_by = identity
    if said_by == identity:
        return "you", ""
    person = snapshot.participants.get(said_by or "")
    return "other", "" if person is None else person.name


class StoredConversations:
    """Reads conversations where they are stored, from ``async with`` to its end; starts no owner, and joins no Ray.

    A `ConversationClient` would join the cluster that RAY_ADDRESS names: 100 MB in a process that has no use for it.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected yet."""
        self._settings = settings
        self._connecting = asyncio.Lock()
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        """Be ready to read."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, if there is one."""
        if self._store is not None:
            await self._store.aclose()

    async def read(self, conversation_id: str) -> Snapshot | None:
        """Return what a conversation holds; None if there is none. Raises `ConversationError`."""
        async with self._connecting:
            if self._store is None:
                self._store, _ = await open_readable_store(self._settings)
        try:
            return await Reader(self._store, None, self._settings).read(conversation_id)
        except ConversationNotFoundError:
            return None
