"""A local server that speaks the protocols of a voice agent's vendors, for the real OpenAI and Deepgram plugins.

It is bundled so that demos and tests run without an account and without a network. It holds no model. Its chat answers
from a `Script`, by default a transcript file, deterministically and from the request alone. Its speech is an acoustic
code, text as chords; its transcription understands that code, and nothing else. So words really travel as sound.

    python -m agent_worker.offline --transcript tests/data/transcript.json

prints one line of JSON with the two base URLs and ends on SIGTERM. It listens on the loopback interface only; any key
is accepted, a missing one is not. ``GET /requests`` shows the requests it got, what it said and what it heard.
A realtime model (``/v1/realtime``) is among the stand-ins; it enforces the rules that OpenAI publishes for it.
"""

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
