"""Whom the agent listens to: LiveKit hears one participant at a time."""

import functools
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, ConversationItemAddedEvent

from agent_worker.call.arrivals import is_human
from agent_worker.failures import Failures
from agent_worker.session.handlers import total

is_starting: ContextVar[bool] = ContextVar("a session is being started", default=False)
"""Set around a session's start: what LiveKit does by itself then is told from what the application does."""


class Linking:
    """Has a session listen to whoever speaks, or is there; unless the application says whom it listens to."""

    def __init__(self, session: AgentSession[Any], room: rtc.Room, failures: Failures) -> None:
        """Nothing is followed before `start`. What goes wrong in a handler is counted in `failures`."""
        self._session, self._room, self._failures = session, room, failures
        self.is_pinned = False
        """Whether the application has said whom the agent listens to."""
        self._kinds: frozenset[int] | None = None
        self._link: Callable[[str | None], None] | None = None
        self._has_linked = False

    def heed(self, options: object) -> None:
        """Take what the application says in LiveKit's `RoomOptions`: a participant, or kinds of them."""
        identity, kinds = (getattr(options, name, None) for name in ("participant_identity", "participant_kinds"))
        self.is_pinned = self.is_pinned or bool(identity)
        if kinds:
            self._kinds = frozenset(kinds)

    def start(self) -> None:
        """Follow who speaks; before the session starts."""
        told = "the speaker was not followed"
        self._room.on("active_speakers_changed", total(self._on_active_speakers, self._failures, "speakers", told))
        self._session.on("conversation_item_added", total(self._on_item, self._failures, "speakers", told))

    def to_somebody(self, here: Iterable[str]) -> None:
        """Listen to anybody who is here, if the one who was listened to is not."""
        linked, people = self.linked, sorted(one for one in here if self._may_be_heard(one))
        if people and (linked is None or linked.identity not in people):
            self._to(people[0])

    @property
    def linked(self) -> rtc.RemoteParticipant | None:
        """Who is listened to now."""
        return None if self._link is None else self._session.room_io.linked_participant

    def _to(self, identity: str) -> None:
        linked = self.linked
        if self._link is not None and not self.is_pinned and (linked is None or linked.identity != identity):
            self._link(identity)

    def _may_be_heard(self, identity: str) -> bool:
        """Whether somebody is of a kind that the application listens to."""
        participant = self._room.remote_participants.get(identity)
        return self._kinds is None or (participant is not None and participant.kind in self._kinds)

    def _on_active_speakers(self, speakers: list[rtc.Participant]) -> None:
        """Listen to whoever speaks, while nobody else does."""
        people = [one.identity for one in speakers if is_human(one) and self._may_be_heard(one.identity)]
        linked = self.linked
        if people and linked is not None and linked.identity not in people and self._session.user_state != "speaking":
            self._to(people[0])

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        """Begin at the session's first handoff: its room is there then, and its agent has not done anything."""
        if event.item.type == "agent_handoff":
            self.follow()

    def follow(self) -> None:
        """Learn, once, what the application says about whom the agent listens to; nothing if there is no room."""
        try:
            room_io = self._session.room_io
        except RuntimeError:
            return
        if self._link is not None:
            return
        link = self._link = room_io.set_participant

        @functools.wraps(link)
        def linked(participant_identity: str | None) -> None:
            if not self._is_livekits_own(participant_identity):
                self.is_pinned = participant_identity is not None
            link(participant_identity)

        room_io.set_participant = linked  # type: ignore[method-assign]  # on this instance: there is no event

    def has_started(self) -> None:
        """Note that the session has started: whoever is listened to by now was linked by LiveKit itself."""
        self.follow()
        self._has_linked = self._has_linked or self.linked is not None

    def _is_livekits_own(self, identity: str | None) -> bool:
        """Whether this is the one time that LiveKit itself links whom it found in the room."""
        linked = self.linked
        is_own = not self._has_linked and is_starting.get() and linked is not None and linked.identity == identity
        self._has_linked = self._has_linked or is_own
        return is_own
