"""What one participant of a room saw and heard, with the times, and how a test asks about it.

Times are seconds of the monotonic clock, which all processes of a machine share.
"""

import asyncio
import bisect
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

AUDIBLE = 300.0
"""RMS of a frame of 16 bits from which on it counts as sound: 41 dB below full scale.

Measured through Opus: a silent microphone stays below 1, the quietest frame inside of an utterance is above 6000.
"""
PATIENCE = 20.0
_Found = TypeVar("_Found")


class State(StrEnum):
    """How far a thing that takes time has come."""

    OPEN = "open"
    COMPLETE = "complete"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Sound:
    """One frame, 10 ms, of somebody's audio track, and how loud it was (RMS)."""

    at: float
    identity: str
    rms: float

    @property
    def is_audible(self) -> bool:
        """Whether a person would hear it."""
        return self.rms >= AUDIBLE


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something said in tones. Only a complete one has its checksum right; `text` is what was understood so far."""

    number: int
    identity: str
    text: str
    state: State
    started: float
    updated: float


@dataclass(frozen=True, slots=True)
class Caption:
    """One stream of `lk.transcription`. A segment has several where it is sent anew as it grows.

    `is_final` is what the sender said. A stream that was cut off is broken, with the `error`.
    """

    stream_id: str
    identity: str
    text: str
    state: State
    began: float
    updated: float
    segment_id: str = ""
    is_final: bool = False
    error: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chat:
    """A text of the topic `lk.chat`."""

    at: float
    identity: str
    text: str


@dataclass(frozen=True, slots=True)
class Presence:
    """One stay of somebody else in the room. `left` is None while it lasts; `reason` is LiveKit's number."""

    number: int
    identity: str
    is_agent: bool
    joined: float
    name: str = ""
    left: float | None = None
    reason: int = 0
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttributesChanged:
    """Somebody's attributes changed, the witness's own among them."""

    at: float
    identity: str
    changed: dict[str, str]


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The witness's own connection: connected, reconnecting, reconnected, disconnected (not by itself), left."""

    at: float
    state: str


Event = Sound | Utterance | Caption | Chat | Presence | AttributesChanged | ConnectionChanged
_KINDS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind
    for kind in (Sound, Utterance, Caption, Chat, Presence, AttributesChanged, ConnectionChanged)
}  # fmt: skip


def to_line(event: Event) -> str:
    """Write an event as a line of JSON."""
    return json.dumps({"kind": type(event).__name__, **dataclasses.asdict(event)})


def from_line(line: str | bytes) -> Event:
    """Read what `to_line` wrote."""
    fields: dict[str, Any] = json.loads(line)
    if "state" in fields and fields["kind"] != ConnectionChanged.__name__:
        fields["state"] = State(fields["state"])
    return _KINDS[fields.pop("kind")](**fields)


class Witness:
    """The record, and the questions. One event loop owns it."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.sounds: list[Sound] = []
        self._audible: list[Sound] = []
        self.chats: list[Chat] = []
        self.attribute_changes: list[AttributesChanged] = []
        self.connection: list[ConnectionChanged] = []
        self._utterances: dict[int, Utterance] = {}
        self._captions: dict[str, Caption] = {}
        self._presences: dict[int, Presence] = {}
        self._news = asyncio.Event()

    def note(self, event: Event) -> None:
        """Take an event; one about a thing already known replaces what was known of it."""
        match event:
            case Sound():
                self.sounds.append(event)
                if event.is_audible:
                    self._audible.append(event)
            case Chat():
                self.chats.append(event)
            case AttributesChanged():
                self.attribute_changes.append(event)
            case ConnectionChanged():
                self.connection.append(event)
            case Utterance():
                self._utterances[event.number] = event
            case Caption():
                self._captions[event.stream_id] = event
            case Presence():
                self._presences[event.number] = event
        self._news.set()
        self._news = asyncio.Event()

    @property
    def utterances(self) -> list[Utterance]:
        """All that was said in tones, understood or not, in the order it began."""
        return list(self._utterances.values())

    @property
    def heard(self) -> list[Utterance]:
        """All that was understood as it was said."""
        return [utterance for utterance in self._utterances.values() if utterance.state is State.COMPLETE]

    @property
    def heard_texts(self) -> dict[str, list[str]]:
        """The texts of `heard`, by identity."""
        texts: dict[str, list[str]] = defaultdict(list)
        for utterance in self.heard:
            texts[utterance.identity].append(utterance.text)
        return dict(texts)

    @property
    def captions(self) -> list[Caption]:
        """All streams of `lk.transcription`, in the order they began."""
        return list(self._captions.values())

    @property
    def presences(self) -> list[Presence]:
        """All stays of others, in the order they began."""
        return list(self._presences.values())

    @property
    def present(self) -> dict[str, Presence]:
        """Who is there now, ghosts too."""
        return {presence.identity: presence for presence in self._presences.values() if presence.left is None}

    @property
    def agents(self) -> list[Presence]:
        """The agents that are there now, ghosts too."""
        return [presence for presence in self.present.values() if presence.is_agent]

    def first_audible_after(self, moment: float, *, identity: str | None = None) -> float | None:
        """When the first frame that a person hears came; of somebody, or of anybody. None while none has.

        Name the successor after a kill: the dead one's last words go on for 0.1 to 0.4 s out of jitter buffers.
        """
        since = self._audible[bisect.bisect_left(self._audible, moment, key=lambda sound: sound.at) :]
        return next((sound.at for sound in since if identity in (None, sound.identity)), None)

    async def wait(self, probe: Callable[[], _Found | None], what: str, timeout: float = PATIENCE) -> _Found:  # noqa: ASYNC109 -- the message is the point
        """Wait until the probe finds something; fail by naming it, with all that was witnessed instead."""
        try:
            async with asyncio.timeout(timeout):
                while not (found := probe()):
                    await self._news.wait()
                return found
        except TimeoutError:
            message = f"still waiting after {timeout} s: {what}\n{self.summary()}"
            raise TimeoutError(message) from None

    async def wait_heard(
        self,
        wanted: str | Callable[[Utterance], bool],
        timeout: float = PATIENCE,  # noqa: ASYNC109 -- see `wait`
        *,
        identity: str | None = None,
        after: float = 0.0,
    ) -> Utterance:
        """Wait for an utterance, begun after a moment, that was understood and has (or satisfies) what is wanted."""

        def probe() -> Utterance | None:
            mine = (one for one in self.heard if one.started >= after and identity in (None, one.identity))
            return _first(mine, wanted)

        return await self.wait(probe, f"to hear {wanted!r} from {identity or 'anybody'}", timeout)

    async def wait_caption(
        self,
        wanted: str | Callable[[Caption], bool],
        timeout: float = PATIENCE,  # noqa: ASYNC109 -- see `wait`
        *,
        identity: str | None = None,
        after: float = 0.0,
    ) -> Caption:
        """Wait for a caption. A text is looked for in final ones only; a predicate is asked about any."""

        def probe() -> Caption | None:
            mine = (one for one in self.captions if one.began >= after and identity in (None, one.identity))
            if isinstance(wanted, str):
                mine = (one for one in mine if one.is_final and one.state is State.COMPLETE)
            return _first(mine, wanted)

        return await self.wait(probe, f"a caption {wanted!r} from {identity or 'anybody'}", timeout)

    async def wait_chat(self, wanted: str | Callable[[Chat], bool], timeout: float = PATIENCE) -> Chat:  # noqa: ASYNC109 -- see `wait`
        """Wait for a chat message of somebody else."""
        return await self.wait(lambda: _first(self.chats, wanted), f"a chat message {wanted!r}", timeout)

    async def wait_agent(self, timeout: float = PATIENCE, *, other_than: Iterable[str] = ()) -> Presence:  # noqa: ASYNC109 -- see `wait`
        """Wait until an agent is in the room, that is not one of those."""
        known = set(other_than)

        def probe() -> Presence | None:
            return next((agent for agent in self.agents if agent.identity not in known), None)

        return await self.wait(probe, f"an agent other than {sorted(known)}", timeout)

    async def wait_left(self, identity: str, timeout: float = PATIENCE) -> Presence:  # noqa: ASYNC109 -- see `wait`
        """Wait until somebody who was there is gone."""

        def probe() -> Presence | None:
            stays = [presence for presence in self.presences if presence.identity == identity]
            return stays[-1] if stays and stays[-1].left is not None else None

        return await self.wait(probe, f"{identity} to leave", timeout)

    async def wait_audible(
        self,
        after: float,
        timeout: float = PATIENCE,  # noqa: ASYNC109 -- see `wait`
        *,
        identity: str | None = None,
    ) -> float:
        """Wait for the first audible frame after a moment, and return when it came."""
        probe = lambda: self.first_audible_after(after, identity=identity)  # noqa: E731 -- a def says no more
        return await self.wait(probe, f"to hear anything from {identity or 'anybody'}", timeout)

    def summary(self) -> str:
        """Return all that was witnessed but single frames of sound, a line each."""
        frames: dict[str, list[Sound]] = defaultdict(list)
        for sound in self.sounds:
            frames[sound.identity].append(sound)
        lines: list[object] = [*self.connection, *self.presences, *self.utterances, *self.captions, *self.chats]
        for identity, sounds in frames.items():
            audible = [sound.at for sound in sounds if sound.is_audible]
            span = f", audible {audible[0]:.2f} to {audible[-1]:.2f}" if audible else ""
            lines.append(
                f"{identity}: {len(sounds)} frames, {sounds[0].at:.2f} to {sounds[-1].at:.2f}, {len(audible)}{span}"
            )
        return "\n".join(f"  {line}" for line in lines) or "  nothing was witnessed"


_Text = TypeVar("_Text", Utterance, Caption, Chat)


def _first(candidates: Iterable[_Text], wanted: str | Callable[[_Text], bool]) -> _Text | None:
    satisfies = (lambda one: wanted in one.text) if isinstance(wanted, str) else wanted
    return next((one for one in candidates if satisfies(one)), None)
