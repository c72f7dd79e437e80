"""Room → conversation: what participants send each other beside their words, by topic: commands, files.

A packet is kept when it comes, a stream when it has ended or broken off: with its payload where that is small, else
with its size and its digest. However large it is, no more of it is in memory than is kept.
"""

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from livekit import rtc

from agent_worker.call.data_streams import Handler, SharedReader, StreamHandlers
from agent_worker.session.handlers import total
from agent_worker.settings import RoomSettings
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import DataMessage, ItemTooLargeError, OverloadedError

logger = logging.getLogger(__name__)

_MOST_STREAMS = 100
"""Streams that are read at one time; who sends more at once is no person."""
_MOST_HELD, _MOST_HELD_BYTES = 200, 1 << 20
"""Messages held here, and bytes of them: they are recorded again where the conversation has lost them."""
_MOST_UNSURE, _MOST_UNSURE_BYTES = 10_000, 4 << 20
"""Messages that are not durable yet, as many as a conversation lets wait, and bytes of their payloads: beyond it only
the facts of a message are kept."""
_LONGEST_NAME, _LARGEST_ATTRIBUTES = 256, 2 << 10
"""Characters of a topic, of a file's name and type; of a stream's attributes, as JSON."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Signs that no text has; what has them is kept as bytes."""
_DURABLE_SECONDS = 30.0

Kind = Literal["text_stream", "byte_stream"]
Who = Callable[[rtc.RemoteParticipant], Mapping[str, Any]]
"""Gives ``{identity, device}`` of a participant, as the conversation knows it."""


class _Payload:
    """What was sent, as far as it is kept: its first bytes are forgotten as soon as it is too large."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._digest = hashlib.sha256()
        self._kept: bytearray | None = bytearray()

    def add(self, chunk: str | bytes) -> None:
        """Take a part."""
        data = chunk.encode("utf-8", "replace") if isinstance(chunk, str) else chunk
        self.size += len(data)
        self._digest.update(data)
        if self.size > self._limit:
            self._kept = None
        elif self._kept is not None:
            self._kept += data

    def fields(self) -> dict[str, Any]:
        """The fields of a `DataMessage` about it."""
        told: dict[str, Any] = {"size": self.size, "sha256": self._digest.hexdigest()}
        if self._kept is None:
            return told
        with suppress(UnicodeDecodeError):
            text = self._kept.decode()
            if not _CONTROL.search(text):
                return told | {"text": text}
        return told | {"data": base64.b64encode(self._kept).decode()}


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
        self._acknowledging: asyncio.Task[None] | None = None
        self._held: OrderedDict[str, DataMessage] = OrderedDict()
        self._unsure: dict[str, int] = {}
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
        self._room.on("data_received", total(self._on_packet, self._conversation.failures, "data", _NOT_KEPT))
        self._conversation.on_items_missed(self._record_again)
        self._conversation.on_removed(self._forget)

    def start(self) -> None:
        """The call is this job's: record what came while it stood by, without what the other agent has recorded."""
        standing, self._standing = self._standing, None
        there = [item for item in self._conversation.items if isinstance(item, DataMessage)]
        ids, packets = {item.id for item in there}, Counter(map(_likeness, there))
        packets -= Counter(_likeness(item) for item in there if item.id in self._before)
        for item in standing or []:
            if item.kind == "packet" and packets[_likeness(item)]:
                packets[_likeness(item)] -= 1
            elif item.id not in ids:
                self._record(item)

    def stop(self) -> None:
        """Record no more. The application goes on reading."""
        self._is_stopped = True
        self._text.let_go()
        self._bytes.let_go()
        for task in self._reading - self._sharing:
            task.cancel()
        if self._acknowledging is not None:
            self._acknowledging.cancel()

    async def until_read(self, seconds: float) -> None:
        """Return when the streams that have begun were read, or after so long: nobody else has their beginning."""
        if self._reading:
            await asyncio.wait(set(self._reading), timeout=seconds)

    # What comes.

    def _on_packet(self, packet: rtc.DataPacket) -> None:
        topic = packet.topic or ""
        if self._is_stopped or not self._settings.keeps(topic):
            return
        payload = _Payload(self._settings.data_bytes)
        payload.add(packet.data)
        sender = None if packet.participant is None else self._sender(packet.participant.identity)
        self._take(
            DataMessage(
                id=f"data_{os.urandom(12).hex()}",
                topic=topic[:_LONGEST_NAME],
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
        if len(self._reading) >= _MOST_STREAMS:
            error = OverloadedError(f"{_MOST_STREAMS} streams are read; no other one is")
            self._conversation.failures.count("data", error, _NOT_KEPT)
            return False
        return not self._is_stopped

    async def _read(self, kind: Kind, reader: Any, identity: str, shared: SharedReader | None) -> None:
        payload, began = _Payload(self._settings.data_bytes), time.time()
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
                **_facts(reader.info),
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
        """The id of a stream's item: the same in each job of this role that reads it, and nobody else's.

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
            self._record(item)
        elif len(self._standing) < _MOST_HELD:
            self._standing.append(item)
        else:
            logger.warning("a data message was not kept: too many came in a handover")

    def _record(self, item: DataMessage) -> None:
        """Record it, without its payload where there is no room for that. Raises nothing."""
        if self._unsure_bytes + item.size > _MOST_UNSURE_BYTES:
            item = _without_payload(item)
        try:
            try:
                self._conversation.record(item)
            except ItemTooLargeError:
                item = _without_payload(item)
                self._conversation.record(item)
        except Exception as error:  # noqa: BLE001  # one that is refused costs only itself
            self._conversation.failures.count("data", error, _NOT_KEPT)
        self._hold(item)

    def _hold(self, item: DataMessage) -> None:
        """Hold it, so that it can be recorded again, and learn whether it is durable."""
        self._held[item.id] = item
        while len(self._held) > _MOST_HELD or sum(map(_payload_size, self._held.values())) > _MOST_HELD_BYTES:
            self._held.popitem(last=False)
        self._unsure[item.id] = _payload_size(item)
        if len(self._unsure) > _MOST_UNSURE:
            del self._unsure[next(iter(self._unsure))]
        if self._acknowledging is None or self._acknowledging.done():
            self._acknowledging = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Learn which are durable: those are not recorded again, though they leave the history."""
        while self._unsure and not self._conversation.deposed.is_set():
            asked = list(self._unsure)
            if await self._conversation.is_durable(_DURABLE_SECONDS):
                for known in asked:
                    self._unsure.pop(known, None)
            else:
                await asyncio.sleep(self._conversation.timing.data_pause)

    @property
    def _unsure_bytes(self) -> int:
        return sum(self._unsure.values())

    def _forget(self, item_ids: frozenset[str]) -> None:
        """Hold nothing of what somebody wants to be gone."""
        for item_id in item_ids & self._held.keys():
            del self._held[item_id]
            self._unsure.pop(item_id, None)

    def _record_again(self, is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        """Record what the conversation may lack: all that is held, or what nobody knows to be durable."""
        if self._is_stopped or self._standing is not None:
            return
        there = {item.id for item in self._conversation.items}
        for item in list(self._held.values()):
            if item.id not in there and (is_afresh or item.id in self._unsure):
                self._record(item)


_NOT_KEPT = "a data message was not kept"


def _facts(info: Any) -> dict[str, Any]:
    """What a stream's header tells, cut to size."""
    facts: dict[str, Any] = {"topic": info.topic[:_LONGEST_NAME]}
    for field, told in (("name", getattr(info, "name", "")), ("mime_type", info.mime_type)):
        if told:
            facts[field] = told[:_LONGEST_NAME]
    attributes = dict(info.attributes or {})
    if attributes and len(json.dumps(attributes)) <= _LARGEST_ATTRIBUTES:
        facts["extra"] = {"attributes": attributes}
    return facts


def _interruption(broken: Exception | None) -> dict[str, Any]:
    return {} if broken is None else {"interrupted": True}


def _likeness(item: DataMessage) -> tuple[Any, ...]:
    """What two jobs that have got the same packet know of it alike."""
    return item.kind, item.topic, (item.participant or {}).get("identity"), item.sha256


def _payload_size(item: DataMessage) -> int:
    return len(item.text) + len(item.data or "")


def _close(reader: Any) -> None:
    if hasattr(reader, "close"):  # LiveKit's older readers (rtc 1.1.8) hold nothing that has to be given back
        reader.close()


def _without_payload(item: DataMessage) -> DataMessage:
    fields = item.to_dict()
    return DataMessage(**{name: value for name, value in fields.items() if name not in {"text", "data"}})
