"""A stand-in for LiveKit's client library in the browser: rooms whose people a test brings, and what was sent there.

``window.room`` is the page's present room: ``room.bring(identity, {name, state})``, ``room.take(identity)`` and
``room.say(identity, text)`` happen in it, and ``sent()`` is what the page sent, also before it was refreshed.
"""

from pathlib import Path

from agent_worker.development.page import LIBRARY

_SOURCE = """
const named = () => new Proxy({}, { get: (_, name) => name });
const SENT = "fake.sent";
window.sent = () => JSON.parse(localStorage.getItem(SENT) ?? "[]");
class Refused extends Error {}
class FakeRoom {
  state = "disconnected";
  canPlaybackAudio = true;
  remoteParticipants = new Map();
  #react = {};
  #read = {};
  constructor() {
    this.localParticipant = {
      identity: "me",
      attributes: {},
      isSpeaking: false,
      setMicrophoneEnabled: async () => {},
      sendText: async (text) => {
        if (window.brokenBefore) throw new Error("the connection broke");
        localStorage.setItem(SENT, JSON.stringify([...window.sent(), text]));
        if (window.neverSent) await new Promise(() => {});
      },
    };
  }
  on(event, react) { (this.#react[event] ??= []).push(react); }
  tell(event, ...told) { for (const react of this.#react[event] ?? []) react(...told); }
  registerTextStreamHandler(topic, read) { this.#read[topic] = read; }
  getParticipantByIdentity(identity) { return this.remoteParticipants.get(identity); }
  async connect() { this.state = "connected"; window.room = this; }
  async startAudio() {}
  async disconnect() {}
  bring(identity, { name = "", state = "listening", isAgent = true } = {}) {
    const attributes = isAgent ? { "lk.agent.state": state } : {};
    const person = { identity, name, isAgent, attributes, isSpeaking: false, joinedAt: Date.now() };
    this.remoteParticipants.set(identity, person);
    this.tell("ParticipantConnected");
  }
  take(identity) {
    this.remoteParticipants.delete(identity);
    this.tell("ParticipantDisconnected");
  }
  say(identity, text) {
    const info = { id: crypto.randomUUID(), attributes: { "lk.transcription_final": "true" } };
    const reader = { info, async *[Symbol.asyncIterator]() { yield text; } };
    this.#read["lk.transcription"](reader, { identity });
  }
}
const library = {
  Room: FakeRoom, ConnectionError: Refused, RoomEvent: named(), DisconnectReason: named(),
  ConnectionErrorReason: named(), LogLevel: named(), setLogLevel: () => {},
};
globalThis.LivekitClient = library;
"""
_NAMES = (
    "Room",
    "ConnectionError",
    "RoomEvent",
    "DisconnectReason",
    "ConnectionErrorReason",
    "LogLevel",
    "setLogLevel",
)


def write_client(web_root: Path) -> None:
    """Put it where the page's server has the library, whichever form of it the page asks for."""
    exports = f"export const {{ {', '.join(_NAMES)} }} = library;\n"
    path = web_root / LIBRARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SOURCE + exports)
