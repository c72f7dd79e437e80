"""What was said in a conversation, as the caller's page shows it again."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from conversation_actors import ConversationClient, ConversationNotFoundError, Message, Settings, Snapshot

MOST_LINES = 200
"""The newest ones: a page is no archive."""


def stored_lines(snapshot: Snapshot | None, identity: str) -> list[dict[str, Any]]:
    """Lines of people and agents, in order; none for somebody whom the conversation does not know.

    Each is ``{"id", "speaker": "you" | "agent" | "other", "who": a name or "", "text", "interrupted"}``.
    """
    if snapshot is None or identity not in snapshot.participants:
        return []
    return list(_lines(snapshot, identity))[-MOST_LINES:]


def _lines(snapshot: Snapshot, identity: str) -> Iterator[dict[str, Any]]:
    for item in snapshot.items:
        if not isinstance(item, Message) or item.role not in {"user", "assistant"} or not item.text.strip():
            continue
        speaker, who = ("agent", "") if item.role == "assistant" else _person(item, snapshot, identity)
        yield {"id": item.id, "speaker": speaker, "who": who, "text": item.text, "interrupted": item.interrupted}


def _person(message: Message, snapshot: Snapshot, identity: str) -> tuple[str, str]:
    """Who said it; where nobody noted that, it was the only person there has been, or somebody."""
    said_by = (message.participant or {}).get("identity")
    if said_by is None and len(snapshot.participants) == 1:
        said_by = identity
    if said_by == identity:
        return "you", ""
    person = snapshot.participants.get(said_by or "")
    return "other", "" if person is None else person.name


class StoredConversations:
    """Reads conversations, from ``async with`` to its end; connects when the first one is asked for."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected yet."""
        self._settings = settings
        self._stack = AsyncExitStack()
        self._client: ConversationClient | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Be ready to read."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, where there is one."""
        await self._stack.aclose()

    async def read(self, conversation_id: str) -> Snapshot | None:
        """What a conversation holds; None where there is none. Raises `ConversationError`."""
        client = await self._connected()
        try:
            conversation = await client.open(conversation_id, create=False)
            return await conversation.snapshot(fresh=True)
        except ConversationNotFoundError:
            return None

    async def _connected(self) -> ConversationClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._stack.enter_async_context(ConversationClient(self._settings))
            return self._client
