"""What links a session to the participant that it hears, as LiveKit has it."""

from typing import Any

from tests.support.sessions.fakes_call import FakeParticipant


class FakeRoomIO:
    """LiveKit's `RoomIO`, as far as it links a session to one participant."""

    def __init__(self, here: dict[str, FakeParticipant]) -> None:
        """Nobody is listened to."""
        self._here = here
        self.linked_participant: Any = None
        self.linked: list[str | None] = []

    def set_participant(self, participant_identity: str | None) -> None:
        """Listen to somebody."""
        self.linked_participant = self._here.get(participant_identity or "")
        self.linked.append(participant_identity)

    def find(self, identity: str) -> None:
        """Find somebody in the room, and link whom it found, as LiveKit does in a task of the session's start."""
        self.linked_participant = self._here[identity]
        self.set_participant(identity)

    async def aclose(self) -> None:
        """Nothing to close."""
