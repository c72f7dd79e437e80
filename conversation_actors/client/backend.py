"""A client's way to the back end: nothing is imported or connected to before it is first asked."""

import asyncio
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from conversation_actors.archive.extra import REMEDY
from conversation_actors.errors import ArchiveMisconfiguredError
from conversation_actors.settings import Settings

if TYPE_CHECKING:
    from conversation_actors.backend.client import BackendClient
    from conversation_actors.backend.models import Message


class ClientBackend:
    """The back end of one client. Belongs to one event loop.

    Its methods raise `BackendUnavailableError`, and `ArchiveMisconfiguredError` if the extra ``archive`` is not
    installed.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._client: BackendClient | None = None
        self._module: ModuleType | None = None

    @property
    def is_configured(self) -> bool:
        """Whether there is a back end at all."""
        return self._settings.backend.url is not None

    @property
    def is_asked(self) -> bool:
        """Whether it is asked for messages."""
        return self.is_configured and self._settings.backend.messages > 0

    @property
    def is_required(self) -> bool:
        """Whether nothing new may begin while it does not answer."""
        return self._settings.backend.required

    async def messages(self, conversation_id: str, *, limit: int | None = None) -> "Sequence[Message]":
        """See `BackendClient.messages`."""
        return await (await self._made()).messages(conversation_id, limit=limit)

    async def forget(self, conversation_id: str, *, is_known: bool) -> bool:
        """Have the back end forget a conversation, if one is configured; return whether it had messages of it.

        If `is_known` to exist already, that is not asked, and false. Nor is it where no messages are asked for.
        """
        if not self.is_configured:
            return False
        client = await self._made()
        had_messages = not is_known and self.is_asked and bool(await client.messages(conversation_id, limit=1))
        await client.delete(conversation_id)
        return had_messages

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _made(self) -> "BackendClient":
        if self._module is None:
            try:
                # aiohttp takes a while to import, which a client without a back end should not.
                self._module = await asyncio.to_thread(import_module, "conversation_actors.backend.client")
            except ModuleNotFoundError as error:
                message = f"the back end needs {error.name}: {REMEDY}"
                raise ArchiveMisconfiguredError(message) from error
        if self._client is None:
            self._client = self._module.BackendClient(self._settings.backend, self._settings.tenant)
        return self._client
