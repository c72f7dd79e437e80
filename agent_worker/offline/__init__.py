"""A local server that speaks the protocols of a voice agent's vendors.

The real OpenAI and Deepgram plugins talk to it. It is bundled so that demos and tests run without an account and
without a network. It holds no model. Its chat answers from a `Script`, by default a transcript file, deterministically
and from the request alone. Its speech is an acoustic code, text as chords; its transcription understands that code, and
nothing else. So words really travel as sound.

    python -m agent_worker.offline

prints the variables of an agent that is to use it (``--json``: one line with the two base URLs), and ends on SIGTERM.
It follows the bundled transcript, or talks with whoever says something else; one that is named with ``--transcript`` is
followed to the letter. It listens on the loopback interface only; any key
is accepted, a missing one is not. ``GET /requests`` shows the requests it got, what it said and what it heard.
A realtime model (``/v1/realtime``) is among the stand-ins; it enforces the rules that OpenAI publishes for it.
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
    """Import a name when it is used: the command line can say which extra is missing."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{module}"), name)
