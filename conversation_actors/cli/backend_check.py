"""A question to the back end, to see whether it answers as its document says."""

import secrets

from conversation_actors.archive.extra import require_extra
from conversation_actors.errors import BackendUnavailableError, InvalidInputError
from conversation_actors.settings import BackendSettings, Settings


async def run() -> None:
    """Ask for the messages of an unknown conversation, and say that it is well. Raises `ConversationError`."""
    chosen = BackendSettings()
    if chosen.url is None:
        message = "url: no back end is configured; set CONVERSATION_BACKEND_URL"
        raise InvalidInputError(message, field="url")
    require_extra()
    from conversation_actors.backend.client import BackendClient  # noqa: PLC0415  # aiohttp takes its time

    # What is checked is not in them, nor what has no effect without it: with a back end, they would demand an archive.
    tenant = Settings(backend=BackendSettings(url=None, instead=False, context=False, interim=False)).tenant
    async with BackendClient(chosen, tenant) as client:
        found = await client.messages(f"backend-check-{secrets.token_hex(8)}", limit=1)
    if found:
        message = f"the back end at {chosen.shown}: has messages of a conversation that there is not"
        raise BackendUnavailableError(message)
    token = "without a token" if chosen.token is None else "with its token"
    print(f"The back end at {chosen.shown} answers as it should, {token}.")  # noqa: T201  # a command line's way to answer
