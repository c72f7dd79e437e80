"""Whether LiveKit's server takes a worker's key and secret: asked once at the start, and told in one sentence."""

import logging
from http import HTTPStatus

import aiohttp
from livekit import api

from agent_worker.settings import LiveKitSettings
from conversation_actors.errors import InvalidInputError

logger = logging.getLogger(__name__)

_SECONDS = 3.0
_NO_ROOM = "-"


async def check_admission(settings: LiveKitSettings) -> None:
    """Ask LiveKit's server for nothing. Raises `InvalidInputError` if the key or the secret is not its own.

    A server that does not answer is no mistake, and is waited for by the worker: a line in the log says so.
    """
    url, key, secret = settings.require()
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with api.LiveKitAPI(url, key, secret, timeout=timeout) as livekit:
            await livekit.room.list_rooms(api.ListRoomsRequest(names=[_NO_ROOM]))
    except api.TwirpError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            logger.warning("LiveKit's server does not list rooms", extra={"url": url, "status": error.status})
            return
        message = f"api_key: {url} refuses LIVEKIT_API_KEY and LIVEKIT_API_SECRET; they have to be the server's own"
        raise InvalidInputError(message, field="api_key") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = _brief(error)
        logger.warning("LiveKit does not answer yet, and is waited for", extra={"url": url, "reason": reason})


def _brief(error: Exception) -> str:
    """Say it without the address, which stands beside it, and without aiohttp's words for its own state."""
    if isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
        return "nobody listens there"
    return str(error) or type(error).__name__
