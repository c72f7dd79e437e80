"""Room → conversation: whose microphone, camera and screen is open.

A person's tracks are those of all its devices in the room together. They stand in the participant's metadata, as
``{"tracks": {"microphone": "open", "camera": "muted"}}``; what is not published is not there.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from livekit import rtc

from agent_worker.session.handlers import total
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import ConversationHandle, InvalidInputError, Lease

TRACKS = "tracks"
"""The key in a participant's metadata."""
OPEN, MUTED = "open", "muted"
_SOURCES = {
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_CAMERA: "camera",
    rtc.TrackSource.SOURCE_SCREENSHARE: "screen_share",
    rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO: "screen_share_audio",
}
_EVENTS: tuple[Any, ...] = ("track_published", "track_unpublished", "track_muted", "track_unmuted")

Devices = Callable[[str], Iterable[rtc.RemoteParticipant]]
"""Gives the LiveKit participants in the room that are this person."""


def tracks_of(devices: Iterable[rtc.RemoteParticipant]) -> dict[str, str]:
    """Return what somebody has published; of two tracks from one source one that is open is enough."""
    tracks: dict[str, str] = {}
    for publication in [one for device in devices for one in device.track_publications.values()]:
        source = _SOURCES.get(publication.source, "unknown")
        if tracks.get(source) != OPEN:
            tracks[source] = MUTED if publication.muted else OPEN
    return dict(sorted(tracks.items()))


class Tracks:
    """Follows what people have open into the conversation. Handlers never raise and never wait.

    Nothing is told of a change by itself: when the conversation's turn comes, it is told what is open then. So
    nothing is written if nothing is different, whoever wrote it, and what was missed needs only another look.
    """

    def __init__(self, room: rtc.Room, conversation: CallConversation, devices: Devices) -> None:
        """Nothing is followed before `start`."""
        self._room, self._conversation, self._devices = room, conversation, devices
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = self._is_stopped = False

    def start(self) -> None:
        """Follow from now on."""
        for name in _EVENTS:
            self._room.on(name, self._total(lambda *_told: self.change()))

    def stop(self) -> None:
        """Follow no more: while this process leaves the room, everything in it seems to end."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def change(self) -> None:
        """Something has changed: tell of it in a moment, with what changes until then."""
        if self._timer is None and not self._is_stopped:
            pause = self._conversation.timing.tracks_together
            self._timer = asyncio.get_running_loop().call_later(pause, self._total(self._tell))

    def look(self) -> None:
        """Tell what is open, whatever was told so far: some of it may have been missed."""
        self._is_due = False
        self._tell()

    def added(self, metadata: Mapping[str, Any], person: str) -> dict[str, Any]:
        """Return a participant's metadata, with what the person has open now."""
        tracks = tracks_of(self._devices(person))
        kept = {name: value for name, value in metadata.items() if name != TRACKS}
        return {**kept, TRACKS: tracks} if tracks else kept

    def _tell(self) -> None:
        self._timer = None
        if not (self._is_due or self._is_stopped):
            self._is_due = True
            self._conversation.later(self._write)

    async def _write(self, handle: ConversationHandle, lease: Lease) -> None:
        self._is_due = False
        # what was to be told before this process left is told by the next one, which looks at the room itself
        for person, known in [] if self._is_stopped else list(handle.participants.items()):
            metadata = self.added(known.metadata, person)
            if metadata != dict(known.metadata):
                try:
                    await handle.update_participant(person, metadata=metadata, lease=lease)
                except InvalidInputError as error:  # there is no room beside what else is known of this person
                    self._conversation.failures.count("tracks", error, "what somebody has open is not kept")

    def _total(self, handler: Callable[..., None]) -> Callable[..., None]:
        return total(handler, self._conversation.failures, "tracks", "a track was not followed")
