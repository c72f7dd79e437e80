"""What people type into a room (LiveKit's topic ``lk.chat``), while one agent leaves and the next one begins.

LiveKit gives it to every agent in the room. So the one that leaves takes nothing more when it goes, and the one that
begins keeps what comes before it has the call, for its session.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from livekit import rtc

from agent_worker.failures import Failures

logger = logging.getLogger(__name__)

TOPIC = "lk.chat"
_MOST_KEPT = 100
"""Texts that are kept; who types more while an agent is replaced is no person."""
_END_SECONDS = 0.25
"""How long a text that has begun may take to end, and keep its place before those that began later."""

Handler = Callable[[Any, str], None]


@dataclass(slots=True)
class _Typed:
    """A text that somebody typed, until it is a message."""

    identity: str
    text: str | None
    """None until it was read."""
    is_message: bool = False


_typed: ContextVar[_Typed | None] = ContextVar("what was typed", default=None)
# An agent that a typed text hands over to listens in the context of that text, so the context alone tells nothing.


def typist(text: str, *, is_heard: bool = False) -> str | None:
    """Who typed what becomes a message of this text now; None if it was not typed.

    A typed text becomes one message. If something else was heard, that is no typed text in other words.
    """
    typed = _typed.get()
    if typed is None or typed.is_message:
        return None
    words = (typed.text or "").strip()
    if is_heard and not (words and words in text):
        return None
    typed.is_message = True
    return typed.identity


@dataclass(frozen=True, slots=True)
class _Kept:
    """A text that has arrived: what a session reads of a stream."""

    info: rtc.TextStreamInfo
    identity: str
    text: str

    async def read_all(self) -> str:
        """All of it."""
        return self.text

    async def __aiter__(self) -> AsyncIterator[str]:
        yield self.text


class TypedWords:
    """Stands between a room and the session that is about to start in it. Handlers never raise and never wait."""

    def __init__(self, room: rtc.Room, failures: Failures) -> None:
        """Nothing is followed before `start`. What goes wrong is counted in `failures`."""
        self._room, self._failures = room, failures
        self._register = room.register_text_stream_handler
        self._handler: Handler | None = None
        self._kept: list[asyncio.Task[_Kept | None]] = []
        self._unfinished: set[asyncio.Task[_Kept | None]] = set()
        self._is_keeping = False

    def start(self) -> None:
        """Learn, from now on, who typed what the session gets."""
        # on this instance: the session brings its handler by it, and nothing else tells which
        self._room.register_text_stream_handler = self._registered  # type: ignore[method-assign]

    def keep(self) -> None:
        """Keep what is typed from now on, until `release`. If the application reads the topic by itself: nothing."""
        with suppress(ValueError):
            self._register(TOPIC, self._on_text)
            self._is_keeping = True

    async def release(self, answered: Iterable[str] = ()) -> None:
        """Give the session what was kept, without what was `answered` already; from now on it gets everything.

        A text that has begun and does not end holds up no other one; it follows when it ends.
        """
        if not self._is_keeping:
            return
        known = Counter(answered)
        if self._kept:
            await asyncio.wait(self._kept, timeout=_END_SECONDS)
        kept, self._kept = self._kept, []
        for one in kept:
            if one.done():
                self._give_kept(one, known)
            else:
                self._unfinished.add(one)
                one.add_done_callback(lambda ended: self._give_kept(ended, known))
        self._is_keeping = False
        self._room.unregister_text_stream_handler(TOPIC)
        if self._handler is not None:
            self._register(TOPIC, self._give)

    def _give_kept(self, ended: asyncio.Task[_Kept | None], known: Counter[str]) -> None:
        """Give the session a text, unless it is one of those `known`, which it is no more then."""
        self._unfinished.discard(ended)
        kept = None if ended.cancelled() else ended.result()
        if kept is None:
            return
        if known[kept.text]:
            known[kept.text] -= 1
        else:
            self._give(kept, kept.identity)

    @property
    def has_kept(self) -> bool:
        """Whether something was typed that the session has not got."""
        return bool(self._kept)

    def _registered(self, topic: str, handler: Handler) -> None:
        """See `rtc.Room.register_text_stream_handler`."""
        if topic != TOPIC:
            self._register(topic, handler)
        elif not self._is_keeping:
            self._register(topic, self._give)
            self._handler = handler
        elif self._handler is not None:
            message = f"text stream handler for topic '{topic}' already set"
            raise ValueError(message)
        else:
            self._handler = handler

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        if len(self._kept) >= _MOST_KEPT:
            logger.warning("typed words were not kept: there are too many")
            return
        self._kept.append(asyncio.create_task(self._read(reader, identity)))

    async def _read(self, reader: rtc.TextStreamReader, identity: str) -> _Kept | None:
        try:
            return _Kept(reader.info, identity, await reader.read_all())
        except Exception as error:  # noqa: BLE001  # its sender has gone in the middle of it, or worse: it is not there
            self._failures.count("typed", error, "typed words could not be read")
            return None

    def _give(self, reader: Any, identity: str) -> None:
        """Give the session a text, in a context that tells who typed it."""
        if self._handler is None:
            return
        typed = _Typed(identity, reader.text if isinstance(reader, _Kept) else None)
        if typed.text is None and hasattr(reader, "read_all"):
            _learn_text(reader, typed)
        token = _typed.set(typed)
        try:
            self._handler(reader, identity)
        finally:
            _typed.reset(token)


def _learn_text(reader: Any, typed: _Typed) -> None:
    """Note what was typed, as soon as the session has read it."""
    read_all: Callable[[], Awaitable[str]] = reader.read_all

    async def read() -> str:
        typed.text = text = await read_all()
        return text

    reader.read_all = read  # on this instance: it can be read once


def leave_typed_words(room: rtc.Room) -> None:
    """Take no more of what is typed: the agent that comes has it."""
    room.unregister_text_stream_handler(TOPIC)
