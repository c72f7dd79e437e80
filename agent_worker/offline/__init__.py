"""A local server that speaks the protocols of a voice agent's vendors.

The real OpenAI and Deepgram plugins talk to it. It is bundled so that demos and tests run without an account and
without a network. It holds no model. Its chat answers from a `Script`, by default a transcript file, deterministically
and from the request alone. Its speech is an acoustic code that turns text into chords. Its transcription understands
that code and nothing else. So words really travel as sound.

    python -m agent_worker.offline

prints the variables for an agent that is to use it and ends on SIGTERM. With ``--json`` it prints one line of JSON with
the two base URLs and its process id. It follows the bundled transcript, and makes small talk if the caller says
something else. A transcript named with ``--transcript`` is followed to the letter. The server listens on the loopback
interface only. It accepts any key, but not a missing one. ``GET /requests`` shows the requests that the server got,
what it said and what it heard. It also has a realtime model (``/v1/realtime``), which enforces the rules that OpenAI
publishes for such models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_worker.offline.script import ChatRequest, Reply, RequestedCall, Script, TranscriptScript
    from agent_worker.offline.server import KEPT_REQUESTS, MAX_BODY_BYTES, OfflineServer
    from agent_worker.offline.tones import Decoder, Event, EventKind, encode

__all__ = [
    "KEPT_REQUESTS",
    "MAX_BODY_BYTES",
    "ChatRequest",
    "Decoder",
    "Event",
    "EventKind",
    "OfflineServer",
    "Reply",
    "RequestedCall",
    "Script",
    "TranscriptScript",
    "encode",
]

_MODULES = {
    "KEPT_REQUESTS": "server",
    "MAX_BODY_BYTES": "server",
    "OfflineServer": "server",
    "ChatRequest": "script",
    "Reply": "script",
    "RequestedCall": "script",
    "Script": "script",
    "TranscriptScript": "script",
    "Decoder": "tones",
    "Event": "tones",
    "EventKind": "tones",
    "encode": "tones",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that the command line can say which extra is missing."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{module}"), name)
