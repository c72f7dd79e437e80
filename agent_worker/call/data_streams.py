"""Streams of a room that two read: the application, as ever, and whoever keeps them for the conversation.

LiveKit has one handler for a topic, and a stream can be read once. So what comes is read here, and handed on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from livekit import rtc

Handler = Callable[[Any, str], None]
"""Takes a stream's reader, and the identity of its sender: as LiveKit's rooms have them."""
OnStream = Callable[[Any, str, Handler | None], None]
"""The same, with the application's handler if there is one."""


class SharedReader:
    """A stream as the application reads it: what LiveKit's readers have, and the same at the same time.

    Like LiveKit's it holds what was not read yet, however much that is.
    """

    def __init__(self, info: rtc.TextStreamInfo | rtc.ByteStreamInfo) -> None:
        """Nothing has come yet."""
        self.info = info
        self._chunks: asyncio.Queue[Any] = asyncio.Queue()
        self._error: Exception | None = None
        self._is_over = self._is_closed = False

    def put(self, chunk: str | bytes) -> None:
        """Take a part that has come."""
        if not self._is_closed:
            self._chunks.put_nowait(chunk)

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; with an error, because it broke off."""
        self._error = error
        self._chunks.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Read it part by part."""
        return self

    async def __anext__(self) -> Any:
        """Return the next part. Raises what LiveKit's reader has raised, if the stream broke off."""
        chunk = None if self._is_over else await self._chunks.get()
        if chunk is not None:
            return chunk
        self._is_over = True
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def read_all(self) -> str:
        """All of a text."""
        return "".join([chunk async for chunk in self])

    def close(self) -> None:
        """Read no more of it."""
        self._is_closed = True
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._chunks.put_nowait(None)

    async def aclose(self) -> None:
        """See `close`."""
        self.close()


class StreamHandlers:
    """The handlers of one kind of streams, in a room: the application's, and one's own in front of them."""

    def __init__(
        self,
        register: Callable[[str, Handler], None],
        unregister: Callable[[str], None],
        *,
        wanted: Callable[[str], bool],
        on_stream: OnStream,
    ) -> None:
        """`register` and `unregister`: the room's. Topics that are not `wanted` are not touched."""
        self._register, self._unregister = register, unregister
        self._wanted, self._on_stream = wanted, on_stream
        self._applications: dict[str, Handler] = {}
        self._own: set[str] = set()
        self._alone: set[str] = set()

    def read(self, topic: str) -> bool:
        """Read a topic, whether the application does or not; False if it does already, and is not known."""
        try:
            self._read(topic)
        except ValueError:
            return False
        self._alone.add(topic)
        return True

    def register(self, topic: str, handler: Handler) -> None:
        """See `rtc.Room.register_text_stream_handler`, and its twin for bytes."""
        if not self._wanted(topic):
            self._register(topic, handler)
            return
        if topic in self._applications:
            message = f"stream handler for topic '{topic}' already set"
            raise ValueError(message)
        if topic not in self._own:
            self._read(topic)
        self._applications[topic] = handler

    def unregister(self, topic: str) -> None:
        """See `rtc.Room.unregister_text_stream_handler`, and its twin for bytes."""
        self._applications.pop(topic, None)
        if topic not in self._alone:
            self._own.discard(topic)
            self._unregister(topic)

    def let_go(self) -> None:
        """Read for the application alone; what it does not read is not read."""
        for topic in self._own - set(self._applications):
            self._unregister(topic)
        self._own &= set(self._applications)
        self._alone.clear()

    def _read(self, topic: str) -> None:
        self._register(topic, lambda reader, identity: self._on_stream(reader, identity, self._applications.get(topic)))
        self._own.add(topic)
