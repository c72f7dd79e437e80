"""Log lines of the worker's commands, on standard error: date and zone, what happened, and its fields."""

import logging
import warnings

from agent_worker.settings import LogFormat, LogSettings
from conversation_actors.log_lines import JsonFormatter, TextFormatter

_NOISY = frozenset({"aiohttp", "asyncio", "httpcore", "httpcore2", "httpx", "httpx2", "openai", "ray"})
"""Packages whose lines below a warning are of no use in a worker: one for each request to a model, and the like."""

_HARMLESS = ("Attempted to drop unknown FFI handle",)
"""Warnings of LiveKit's that come at the end of every call, and mean nothing to whoever reads them."""


_ROUTINE = ("plugin registered", "preloading plugins", "HTTP server listening on")
"""How LiveKit's lines begin that come at the start of every worker, and tell what it always does."""

_SHORT_KEY = "The HMAC key is 6 bytes long"
"""How PyJWT's warning begins for the secret of `livekit-server --dev`, which nobody who uses that can make longer."""


def accept_dev_secret() -> None:
    """Have this process say nothing of how short the secret of a server for development is, with each token."""
    warnings.filterwarnings("ignore", message=_SHORT_KEY)


def set_up(*, level: int = logging.INFO, is_production: bool = False) -> None:
    """Log to standard error from this level on. Job processes send theirs to the worker, which writes them.

    In production a line is one JSON object, unless AGENT_LOG_FORMAT says otherwise. Raises `InvalidInputError`.
    """
    accept_dev_secret()
    chosen = LogSettings().format or (LogFormat.JSON if is_production else LogFormat.TEXT)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if chosen is LogFormat.JSON else TextFormatter())
    handler.addFilter(is_news)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    rays = logging.getLogger("ray")  # which has given itself a handler of another form, where it was imported before
    rays.handlers, rays.propagate = [], True
    for name in _NOISY:  # who is not listened to does not format either
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def is_news(record: logging.LogRecord) -> bool:
    """Return whether a line is worth writing. Warnings are, but for those that nobody can do anything about."""
    package = record.name.partition(".")[0]
    if record.levelno < logging.WARNING:
        is_routine = package == "livekit" and record.getMessage().startswith(_ROUTINE)
        return package not in _NOISY and not is_routine
    return package != "livekit" or not any(known in record.getMessage() for known in _HARMLESS)
