"""A room as an agent sees it: who is in it, what they have open, and what they send."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self, cast

from livekit import rtc

from tests.support.sessions.fakes_call import ROOM

STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
_sids = count(1)


@dataclass
class Permissions:
    """What a participant may do."""

    can_update_metadata: bool = False


@dataclass
class FakePublication:
    """A track that somebody has published."""

    source: rtc.TrackSource.ValueType = rtc.TrackSource.SOURCE_MICROPHONE
    muted: bool = False
    sid: str = field(default_factory=lambda: f"TR_{next(_sids)}")


@dataclass
class FakeParticipant:
    """A participant of a room; `sid` is new with each connection."""

    identity: str
    name: str = ""
    kind: rtc.ParticipantKind.ValueType = STANDARD
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    permissions: Permissions = field(default_factory=Permissions)
    sid: str = field(default_factory=lambda: f"PA_{next(_sids)}")
    track_publications: dict[str, FakePublication] = field(default_factory=dict)


class FakeText:
    """A text stream that is there."""

    def __init__(self, text: str) -> None:
        """All of it."""
        self.info = None
        self._text = text

    async def read_all(self) -> str:
        """See `rtc.TextStreamReader.read_all`."""
        return self._text


@dataclass
class FakeInfo:
    """What a stream's header tells."""

    topic: str
    stream_id: str = field(default_factory=lambda: f"stream-{next(_sids)}")
    timestamp: int = 1
    mime_type: str = ""
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


class FakeStream:
    """A stream that is being sent: by `send`, `end` and `break_off`."""

    def __init__(self, info: FakeInfo) -> None:
        """Only its header has come."""
        self.info = info
        self.is_closed = False
        self._chunks: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, *chunks: str | bytes) -> Self:
        """Some of it comes."""
        for chunk in chunks:
            self._chunks.put_nowait(chunk)
        return self

    def end(self) -> Self:
        """That was all."""
        return self.send(cast("bytes", None))

    def break_off(self) -> Self:
        """Its sender is gone."""
        return self.send(cast("bytes", ConnectionError("gone")))

    def close(self) -> None:
        """See LiveKit's readers."""
        self.is_closed = True
        self.end()

    def __aiter__(self) -> Self:
        """Read it."""
        return self

    async def __anext__(self) -> Any:
        """Read a part."""
        chunk = await self._chunks.get()
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def read_all(self) -> str:
        """Read all of a text."""
        return "".join([chunk async for chunk in self])


class FakeRoom(rtc.EventEmitter[Any]):
    """A room as LiveKit's client has it: participants by identity, and events about them."""

    def __init__(self, *here: FakeParticipant, is_connected: bool = True) -> None:
        """`here` were in the room before it was connected to."""
        super().__init__()
        self.remote_participants = {one.identity: one for one in here}
        self.is_connected = is_connected
        self.name = ROOM
        self.metadata = ""
        self.local_participant = FakeParticipant("agent-1", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
        self.text_handlers: dict[str, Callable[[Any, str], None]] = {}
        self.byte_handlers: dict[str, Callable[[Any, str], None]] = {}

    @property
    def as_room(self) -> rtc.Room:
        """Itself, for those who want the real one."""
        return cast("rtc.Room", self)

    def isconnected(self) -> bool:
        """See `rtc.Room.isconnected`."""
        return self.is_connected

    def register_text_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        """See `rtc.Room.register_text_stream_handler`."""
        if topic in self.text_handlers:
            message = f"text stream handler for topic '{topic}' already set"
            raise ValueError(message)
        self.text_handlers[topic] = handler

    def unregister_text_stream_handler(self, topic: str) -> None:
        """See `rtc.Room.unregister_text_stream_handler`."""
        self.text_handlers.pop(topic, None)

    def register_byte_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        """See `rtc.Room.register_byte_stream_handler`."""
        if topic in self.byte_handlers:
            message = f"byte stream handler for topic '{topic}' already set"
            raise ValueError(message)
        self.byte_handlers[topic] = handler

    def unregister_byte_stream_handler(self, topic: str) -> None:
        """See `rtc.Room.unregister_byte_stream_handler`."""
        self.byte_handlers.pop(topic, None)

    def stream(self, kind: str, participant: "FakeParticipant", topic: str, **told: Any) -> FakeStream | None:
        """Somebody begins to send a text, or bytes; None where nobody takes it."""
        handlers = self.text_handlers if kind == "text" else self.byte_handlers
        stream = FakeStream(FakeInfo(topic, **told))
        if topic not in handlers:
            return None
        handlers[topic](stream, participant.identity)
        return stream

    def send(self, data: bytes, topic: str | None, participant: "FakeParticipant | None") -> None:
        """Somebody sends a packet; None: a server."""
        reliable = rtc.DataPacketKind.KIND_RELIABLE
        self.emit("data_received", rtc.DataPacket(data, reliable, cast("rtc.RemoteParticipant", participant), topic))

    def type(self, text: str, participant: "FakeParticipant") -> bool:
        """Somebody types something; whether anybody takes it."""
        handler = self.text_handlers.get("lk.chat")
        if handler is not None:
            handler(FakeText(text), participant.identity)
        return handler is not None

    def change_connection(self, *, is_connected: bool) -> None:
        """Lose or regain the connection."""
        self.is_connected = is_connected
        state = rtc.ConnectionState.CONN_CONNECTED if is_connected else rtc.ConnectionState.CONN_RECONNECTING
        self.emit("connection_state_changed", state)

    def enter(self, participant: FakeParticipant) -> FakeParticipant:
        """Somebody comes."""
        self.remote_participants[participant.identity] = participant
        self.emit("participant_connected", participant)
        return participant

    def publish(
        self, participant: FakeParticipant, source: rtc.TrackSource.ValueType, *, muted: bool = False
    ) -> FakePublication:
        """Somebody opens a microphone, or something else."""
        publication = FakePublication(source, muted)
        participant.track_publications[publication.sid] = publication
        self.emit("track_published", publication, participant)
        return publication

    def unpublish(self, participant: FakeParticipant, publication: FakePublication) -> None:
        """Somebody takes a track away."""
        del participant.track_publications[publication.sid]
        self.emit("track_unpublished", publication, participant)

    def mute(self, participant: FakeParticipant, publication: FakePublication, *, muted: bool = True) -> None:
        """Somebody mutes a track, or opens it again."""
        publication.muted = muted
        self.emit("track_muted" if muted else "track_unmuted", participant, publication)

    def exit(self, participant: FakeParticipant) -> None:
        """Somebody leaves."""
        if self.remote_participants.get(participant.identity) is participant:
            del self.remote_participants[participant.identity]
        self.emit("participant_disconnected", participant)
