"""A caller made of Python: it talks in tones in real time, and remembers all that it sees and hears."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from livekit import api, rtc

from agent_worker.offline import tones
from tests.support.livekit_server import LiveKitServer
from tests.support.witness import (
    AttributesChanged,
    Caption,
    Chat,
    ConnectionChanged,
    Presence,
    Sound,
    State,
    Utterance,
    Witness,
)

CHAT_TOPIC, CAPTION_TOPIC = "lk.chat", "lk.transcription"
_SPEAK_RATE = 48_000
_HEAR_RATE = 16_000
"""The tones end at 3.4 kHz: less to decode than 48 kHz."""
_FRAME_SECONDS = 0.1
_FRAME = round(_SPEAK_RATE * _FRAME_SECONDS)
_QUEUE_MS = 1000
"""Samples wait there for LiveKit's own clock, so a busy test process does not tear an utterance."""
_STATES = {
    tones.EventKind.STARTED: State.OPEN,
    tones.EventKind.PARTIAL: State.OPEN,
    tones.EventKind.FINISHED: State.COMPLETE,
    tones.EventKind.GARBLED: State.BROKEN,
}
_number = itertools.count().__next__


@dataclass(frozen=True, slots=True)
class Said:
    """When an utterance began and ended at the microphone."""

    text: str
    started: float
    ended: float


class _Microphone:
    """An audio source that is never off: when nothing is said, it sends silence by itself."""

    def __init__(self) -> None:
        self.source = rtc.AudioSource(_SPEAK_RATE, 1, queue_size_ms=_QUEUE_MS)
        self._turn = asyncio.Lock()
        self._hushed = 0

    async def say(self, samples: tones.Samples) -> tuple[float, float]:
        """Say it when what is being said has ended; the times of its first and last sample."""
        hushed = self._hushed
        async with self._turn:
            started = time.monotonic()
            for start in range(0, len(samples), _FRAME):
                if self._hushed != hushed:
                    break
                frame = samples[start : start + _FRAME]
                await self.source.capture_frame(rtc.AudioFrame(frame.tobytes(), _SPEAK_RATE, 1, len(frame)))
            await self.source.wait_for_playout()
            return started, time.monotonic()

    def hush(self) -> None:
        """Say no more of what was begun or waits; who waits for its end goes on."""
        self._hushed += 1
        self.source.clear_queue()


class Caller(Witness):
    """A participant. Use it as an async context manager: inside it is in the room, and its microphone is on.

    It keeps its record over `leave` and `rejoin`. With ``kind="agent"`` others take it for an agent.
    """

    def __init__(
        self,
        server: LiveKitServer,
        *,
        room: str,
        identity: str = "caller",
        name: str | None = None,
        kind: api.AccessToken.ParticipantKind | None = None,
        attributes: Mapping[str, str] | None = None,
        metadata: str | None = None,
        dispatch: Iterable[api.RoomAgentDispatch] = (),
        is_deaf: bool = False,
    ) -> None:
        """`dispatch` brings agents if this caller is the first in the room. Nothing is sent before it is entered.

        A caller who `is_deaf` subscribes to nobody's track before `listen`.
        """
        super().__init__()
        self.room_name = room
        self.identity = identity
        self.said: list[Said] = []
        self.joined_at = 0.0
        self._url = server.url
        self._is_deaf = is_deaf
        self._make_token = partial(
            server.token,
            identity,
            room,
            name=name,
            kind=kind,
            attributes=attributes,
            metadata=metadata,
            dispatch=tuple(dispatch),
        )
        self._room: rtc.Room | None = None
        self._microphone: _Microphone | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._stays: dict[str, Presence] = {}

    @property
    def rtc_room(self) -> rtc.Room:
        """LiveKit's own object, for what this class has no word for. Fails outside of the room."""
        assert self._room is not None, "not in the room"
        return self._room

    @property
    def attributes(self) -> dict[str, dict[str, str]]:
        """The attributes of everybody in the room now, by identity; its own are among them."""
        others = {identity: dict(one.attributes) for identity, one in self.rtc_room.remote_participants.items()}
        return others | {self.identity: dict(self.rtc_room.local_participant.attributes)}

    async def __aenter__(self) -> Self:
        """Join."""
        await self._join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        await self.leave()
        if error is not None and isinstance(error, Exception):
            error.add_note(f"what {self.identity} witnessed:\n{self.summary()}")

    async def rejoin(self) -> None:
        """Come back, as the same person; nothing where it has not left."""
        if self._room is None:
            await self._join()

    async def _join(self) -> None:
        room = rtc.Room()
        self._watch(room)
        await room.connect(self._url, self._make_token(), rtc.RoomOptions(auto_subscribe=not self._is_deaf))
        self._room = room
        self.joined_at = time.monotonic()
        self.note(ConnectionChanged(self.joined_at, "connected"))
        for participant in room.remote_participants.values():
            self._arrived(participant)
        self._microphone = _Microphone()
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._microphone.source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

    def listen(self) -> None:
        """Subscribe to the tracks of everybody who is here."""
        for participant in self.rtc_room.remote_participants.values():
            for publication in participant.track_publications.values():
                publication.set_subscribed(True)

    async def leave(self) -> None:
        """Hang up, as a client does that closes its page; nothing where it has left."""
        room, self._room = self._room, None
        if room is None:
            return
        assert self._microphone is not None
        self._microphone.hush()
        await room.disconnect()
        self.note(ConnectionChanged(time.monotonic(), "left"))
        self._everybody_is_out_of_sight()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self._microphone.source.aclose()
        self._listening.clear()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def say(self, text: str) -> Said:
        """Say something in tones, in real time: 20 bytes a second. Returns when it is said."""
        assert self._microphone is not None, "not in the room"
        started, ended = await self._microphone.say(tones.encode(text, sample_rate=_SPEAK_RATE))
        self.said.append(Said(text, started, ended))
        return self.said[-1]

    def hush(self) -> None:
        """Break off what is being said."""
        assert self._microphone is not None, "not in the room"
        self._microphone.hush()

    async def chat(self, text: str) -> float:
        """Write something, and return the time just before: no answer to it began earlier.

        An answer may begin before LiveKit says that the text was sent.
        """
        before = time.monotonic()
        await self.rtc_room.local_participant.send_text(text, topic=CHAT_TOPIC)
        return before

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        """Change its own attributes."""
        await self.rtc_room.local_participant.set_attributes(dict(attributes))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    def _watch(self, room: rtc.Room) -> None:
        room.on("participant_connected", self._arrived)
        room.on("participant_disconnected", self._departed)
        room.on("participant_attributes_changed", self._attributes_changed)
        room.on("track_subscribed", self._track_came)
        room.on("track_unsubscribed", self._track_went)
        for state in ("reconnecting", "reconnected"):
            room.on(state, lambda state=state: self.note(ConnectionChanged(time.monotonic(), state)))
        room.on("disconnected", self._disconnected)
        room.register_text_stream_handler(CAPTION_TOPIC, self._caption_came)
        room.register_text_stream_handler(CHAT_TOPIC, self._chat_came)

    def _arrived(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity in self._stays:
            return
        stay = Presence(
            _number(),
            participant.identity,
            participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
            joined=time.monotonic(),
            name=participant.name,
            attributes=dict(participant.attributes),
        )
        self._stays[participant.identity] = stay
        self.note(stay)

    def _departed(self, participant: rtc.RemoteParticipant) -> None:
        stay = self._stays.pop(participant.identity, None)
        if stay is not None:
            self.note(replace(stay, left=time.monotonic(), reason=int(participant.disconnect_reason or 0)))

    def _everybody_is_out_of_sight(self) -> None:
        for stay in self._stays.values():
            self.note(replace(stay, left=time.monotonic()))
        self._stays.clear()

    def _disconnected(self, _: object) -> None:
        if self._room is None:
            return
        self.note(ConnectionChanged(time.monotonic(), "disconnected"))
        self._everybody_is_out_of_sight()

    def _attributes_changed(self, changed: dict[str, str], participant: rtc.Participant) -> None:
        self.note(AttributesChanged(time.monotonic(), participant.identity, dict(changed)))
        if stay := self._stays.get(participant.identity):
            self._stays[participant.identity] = replace(stay, attributes=dict(participant.attributes))
            self.note(self._stays[participant.identity])

    def _track_came(self, track: rtc.Track, _: rtc.TrackPublication, participant: rtc.RemoteParticipant) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._listening[track.sid] = self._spawn(self._listen(track, participant.identity))

    def _track_went(self, track: rtc.Track | None, *_: object) -> None:
        if track is not None and (task := self._listening.pop(track.sid, None)):
            task.cancel()

    def _caption_came(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._spawn(self._read_caption(reader, identity))

    def _chat_came(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._spawn(self._read_chat(reader, identity))

    async def _listen(self, track: rtc.Track, identity: str) -> None:
        if self._room is None:
            return  # left before this had its first turn: the track went with the room
        ear = _Ear(self, identity)
        stream = rtc.AudioStream(track, sample_rate=_HEAR_RATE, num_channels=1, frame_size_ms=10)
        try:
            async for event in stream:
                ear.hear(np.frombuffer(event.frame.data, np.int16))
        finally:
            ear.finish()
            with contextlib.suppress(asyncio.CancelledError):
                await stream.aclose()

    async def _read_caption(self, reader: rtc.TextStreamReader, identity: str) -> None:
        now = time.monotonic()
        caption = Caption(reader.info.stream_id, identity, "", State.OPEN, now, now)
        self.note(caption)
        try:
            async for chunk in reader:
                caption = replace(caption, text=caption.text + chunk, updated=time.monotonic())
                self.note(caption)
            state, error = State.COMPLETE, ""
        except rtc.StreamError as broken:  # its sender died
            state, error = State.BROKEN, broken.description
        attributes = dict(reader.info.attributes or {})  # those of the stream's end are there only now
        self.note(
            replace(
                caption,
                state=state,
                error=error,
                updated=time.monotonic(),
                segment_id=attributes.get("lk.segment_id", ""),
                is_final=attributes.get("lk.transcription_final") == "true",
                attributes=attributes,
            )
        )

    async def _read_chat(self, reader: rtc.TextStreamReader, identity: str) -> None:
        with contextlib.suppress(rtc.StreamError):
            self.note(Chat(time.monotonic(), identity, await reader.read_all()))


class _Ear:
    """Notes what is on one track."""

    def __init__(self, witness: Witness, identity: str) -> None:
        self._witness = witness
        self._identity = identity
        self._decoder = tones.Decoder(_HEAR_RATE)
        self._utterance: Utterance | None = None

    def hear(self, samples: tones.Samples) -> None:
        """Note a frame's loudness, and what was said up to its end."""
        rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
        self._witness.note(Sound(time.monotonic(), self._identity, rms))
        self._note_all(self._decoder.feed(samples))

    def finish(self) -> None:
        """Note what broke off with the track."""
        self._note_all(self._decoder.finish())

    def _note_all(self, events: Iterable[tones.Event]) -> None:
        now = time.monotonic()
        for event in events:
            if event.kind is tones.EventKind.STARTED:
                self._utterance = Utterance(_number(), self._identity, "", State.OPEN, now, now)
            assert self._utterance is not None
            self._utterance = replace(self._utterance, text=event.text, state=_STATES[event.kind], updated=now)
            self._witness.note(self._utterance)
