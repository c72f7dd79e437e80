"""Room → conversation: what participants send each other beside their words, by topic: commands, files.

A packet is kept when it comes, a stream when it has ended or broken off: with its payload if that is small, else
with its size and its digest. However large it is, no more of it is in memory than is kept.
"""

import asyncio
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from livekit import rtc

from agent_worker.call.data_payloads import LONGEST_NAME, Payload, facts_of, likeness
from agent_worker.call.data_streams import Handler, SharedReader, StreamHandlers
from agent_worker.call.held_data import NOT_KEPT, HeldData
from agent_worker.session.handlers import total
from agent_worker.settings import RoomSettings
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import DataMessage, OverloadedError

logger = logging.getLogger(__name__)

MAX_STREAMS = 100
"""Streams that are read at one time; who sends more at once is no person."""
MAX_STANDING = 200
"""Messages that a job keeps while it stands by for the call."""

Kind = Literal["text_stream", "byte_stream"]
Who = Callable[[rtc.RemoteParticipant], Mapping[str, Any]]
"""Gives ``{identity, device}`` of a participant, as the conversation knows it."""


class DataMessages:
    """Records data messages of a room into a conversation. Handlers never raise and never wait.

    A job that stands by for a planned handover holds what comes until the call is its own; then it records what the
    agent before it has not.
    """

    def __init__(self, room: rtc.Room, conversation: CallConversation, settings: RoomSettings, who: Who) -> None:
        """Nothing is followed before `watch`."""
        self._room, self._conversation, self._settings, self._who = room, conversation, settings, who
        self._text = StreamHandlers(
            room.register_text_stream_handler,
            room.unregister_text_stream_handler,
            wanted=settings.keeps,
            on_stream=lambda *told: self._on_stream("text_stream", *told),
        )
        self._bytes = StreamHandlers(
            room.register_byte_stream_handler,
            room.unregister_byte_stream_handler,
            wanted=settings.keeps,
            on_stream=lambda *told: self._on_stream("byte_stream", *told),
        )
        self._reading: set[asyncio.Task[None]] = set()
        self._sharing: set[asyncio.Task[None]] = set()
        self.held = HeldData(conversation)
        self._standing: list[DataMessage] | None = None
        self._before: frozenset[str] = frozenset()
        self._is_stopped = False

    def watch(self) -> None:
        """Follow from now on; before the application brings its own handlers for the same topics."""
        if self._conversation.is_waiting_for_handover:
            self._standing = []
            self._before = frozenset(item.id for item in self._conversation.items)
        # on this instance: the application brings its handlers by these, and nothing else tells which
        for kind, handlers in (("text", self._text), ("byte", self._bytes)):
            setattr(self._room, f"register_{kind}_stream_handler", handlers.register)
            setattr(self._room, f"unregister_{kind}_stream_handler", handlers.unregister)
        for topic in self._settings.named_topics:
            are_read = [handlers.read(topic) for handlers in (self._text, self._bytes)]
            if not all(are_read):
                told = "streams of a topic are not kept: the application read it before attach()"
                logger.warning(told, extra={"topic": topic})
        self._room.on("data_received", total(self._on_packet, self._conversation.failures, "data", NOT_KEPT))
        self._conversation.on_items_missed(self._record_again)
        self._conversation.on_removed(self.held.forget)

    def start(self) -> None:
        """Record what came while this job stood by, less what the other agent has recorded: the call is this job's."""
        standing, self._standing = self._standing, None
        there = [item for item in self._conversation.items if isinstance(item, DataMessage)]
        ids, packets = {item.id for item in there}, Counter(map(likeness, there))
        packets -= Counter(likeness(item) for item in there if item.id in self._before)
        for item in standing or []:
            if item.kind == "packet" and packets[likeness(item)]:
                packets[likeness(item)] -= 1
            elif item.id not in ids:
                self.held.record(item)

    def stop(self) -> None:
        """Record no more. The application goes on reading."""
        self._is_stopped = True
        self._text.let_go()
        self._bytes.let_go()
        for task in self._reading - self._sharing:
            task.cancel()
        self.held.stop()

    async def until_read(self, seconds: float) -> None:
        """Return when the streams that have begun were read, or after so long: nobody else has their beginning."""
        if self._reading:
            await asyncio.wait(set(self._reading), timeout=seconds)

    # What comes.

    def _on_packet(self, packet: rtc.DataPacket) -> None:
        topic = packet.topic or ""
        if self._is_stopped or not self._settings.keeps(topic):
            return
        payload = Payload(self._settings.data_bytes)
        payload.add(packet.data)
        sender = None if packet.participant is None else self._sender(packet.participant.identity)
        self._take(
            DataMessage(
                id=f"data_{os.urandom(12).hex()}",
                topic=topic[:LONGEST_NAME],
                kind="packet",
                participant=sender,
                **payload.fields(),
            )
        )

    def _on_stream(self, kind: Kind, reader: Any, identity: str, handler: Handler | None) -> None:
        """Read a stream, and hand it on to the application's handler, which may raise as it does in LiveKit's rooms."""
        if not self._has_room_for_a_stream():
            if handler is not None:
                handler(reader, identity)
            else:
                _close(reader)
            return
        shared = None if handler is None else SharedReader(reader.info)
        self._begin(lambda: self._read(kind, reader, identity, shared), is_shared=shared is not None)
        if handler is not None:
            handler(shared, identity)

    def _has_room_for_a_stream(self) -> bool:
        if len(self._reading) >= MAX_STREAMS:
            error = OverloadedError(f"{MAX_STREAMS} streams are read; no other one is")
            self._conversation.failures.count("data", error, NOT_KEPT)
            return False
        return not self._is_stopped

    async def _read(self, kind: Kind, reader: Any, identity: str, shared: SharedReader | None) -> None:
        payload, began = Payload(self._settings.data_bytes), time.time()
        sender: dict[str, str | None] = {"identity": identity, "device": None}
        broken: Exception | None = None
        try:
            sender = self._sender(identity)
            async for chunk in reader:
                payload.add(chunk)
                if shared is not None:
                    shared.put(chunk)
        except asyncio.CancelledError:
            _close(reader)
            raise
        except Exception as error:  # noqa: BLE001  # its sender has gone, or it is larger than LiveKit takes
            broken = error
            self._conversation.failures.count("data", error, "a stream broke off")
        if shared is not None:
            shared.end(broken)
        self._take(
            DataMessage(
                id=self._stream_id(kind, identity, reader.info),
                created_at=began,
                kind=kind,
                participant=sender,
                **facts_of(reader.info),
                **payload.fields(),
                **_interruption(broken),
            )
        )

    def _sender(self, identity: str) -> dict[str, str | None]:
        participant = self._room.remote_participants.get(identity)
        if participant is None:
            return {"identity": identity, "device": None}
        who = self._who(participant)
        return {"identity": who["identity"], "device": who.get("device")}

    def _stream_id(self, kind: Kind, identity: str, info: Any) -> str:
        """Return the id of a stream's item: the same in each job of this role that reads it, and nobody else's.

        A sender chooses the id of its stream, and might choose one that is taken.
        """
        names = (self._conversation.role, kind, identity, info.topic, info.stream_id, info.timestamp)
        return f"data_{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:24]}"

    def _begin(self, work: Callable[[], Awaitable[None]], *, is_shared: bool) -> None:
        task = asyncio.create_task(self._conversation.failures.at_most_once("data", work))
        for tasks in (self._reading, self._sharing) if is_shared else (self._reading,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    # What becomes of it.

    def _take(self, item: DataMessage) -> None:
        if self._is_stopped:
            return
        if self._standing is None:
            self.held.record(item)
        elif len(self._standing) < MAX_STANDING:
            self._standing.append(item)
        else:
            logger.warning("a data message was not kept: too many came in a handover")

    def _record_again(self, is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        if not self._is_stopped and self._standing is None:
            self.held.record_again(is_afresh=is_afresh)


def _interruption(broken: Exception | None) -> dict[str, Any]:
    return {} if broken is None else {"interrupted": True}


def _close(reader: Any) -> None:
    if hasattr(reader, "close"):  # LiveKit's older readers (rtc 1.1.8) hold nothing that has to be given back
        reader.close()
