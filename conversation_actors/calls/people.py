"""The people of one call: who came, when, and who is here."""

from dataclasses import dataclass, field

from conversation_actors.calls.happenings import PARTICIPANT_JOINED, PARTICIPANT_LEFT, PARTICIPANT_RETURNED
from conversation_actors.calls.record import SessionParticipant
from conversation_actors.calls.told import Told
from conversation_actors.state import Participant

MOST_PEOPLE = 128
"""People who are listed. Of more, those who left first are not."""
_NAME_CHARACTERS = 128


@dataclass(slots=True)
class Person:
    """One person's visits so far."""

    name: str
    joined_at: float
    here_since: float | None
    """None if the person has left."""
    reconnects: int
    """What `Participant.reconnect_count` was at the latest join."""
    left_at: float | None = None
    seconds: float = 0.0
    """Those of visits that are over."""
    visits: int = 1
    returned: bool = False


@dataclass(slots=True)
class People:
    """Who is, or was, in a call."""

    listed: dict[str, Person] = field(default_factory=dict)
    left_out: int = 0

    def is_anybody_here(self) -> bool:
        """Tell whether somebody came and has not left."""
        return any(one.here_since is not None for one in self.listed.values())

    def is_here(self, joined: Participant) -> bool:
        """Tell whether whoever joins came before and has not left, also with no entry that is missing."""
        known = self.listed.get(joined.identity)
        return known is not None and known.here_since is not None and joined.reconnect_count <= known.reconnects

    def join(self, joined: Participant, at: float) -> list[Told]:
        """Take a join. One more device of somebody who is here leads to nothing."""
        known, count = self.listed.get(joined.identity), joined.reconnect_count
        if self.is_here(joined):
            self.update(joined)
            return []
        is_return = known is not None or count > 0
        if known is None:
            known = Person(_cut(joined.name), at, at, count, returned=is_return)
            self.listed[joined.identity] = known
            self._drop_who_left()
        else:
            self._close_visit(known, at)  # the entry that told of the leaving may be missing
            known.name, known.here_since, known.left_at = _cut(joined.name), at, None
            known.visits, known.reconnects, known.returned = known.visits + 1, count, True
        data = {"identity": joined.identity, "name": known.name, "visits": known.visits}
        return [Told(PARTICIPANT_RETURNED if is_return else PARTICIPANT_JOINED, data)]

    def leave(self, left: Participant, at: float, *, call_ended_at: float | None) -> list[Told]:
        """Take a leaving. With one of several devices, or of somebody who is not here, it leads to nothing."""
        known = self.listed.get(left.identity)
        if left.connected or known is None or known.here_since is None:
            return []
        seconds = _between(known.here_since, at)
        self._close_visit(known, at if call_ended_at is None else min(at, call_ended_at))
        known.left_at = at
        return [Told(PARTICIPANT_LEFT, {"identity": left.identity, "name": known.name, "seconds": seconds})]

    def update(self, updated: Participant) -> None:
        """Take what is known of a person now."""
        known = self.listed.get(updated.identity)
        if known is not None:
            known.name = _cut(updated.name)

    def record(self, ended_at: float) -> tuple[SessionParticipant, ...]:
        """Return everybody's part in a call that ended then."""
        return tuple(
            SessionParticipant(
                identity=identity,
                name=one.name,
                joined_at=one.joined_at,
                left_at=one.left_at,
                seconds=one.seconds + (0.0 if one.here_since is None else _between(one.here_since, ended_at)),
                visits=one.visits,
                returned=one.returned,
            )
            for identity, one in self.listed.items()
        )

    @staticmethod
    def _close_visit(person: Person, at: float) -> None:
        if person.here_since is not None:
            person.seconds += _between(person.here_since, at)
            person.here_since = None

    def _drop_who_left(self) -> None:
        gone = [identity for identity, one in self.listed.items() if one.here_since is None]
        gone.sort(key=lambda identity: self.listed[identity].left_at or 0.0)
        for identity in gone[: max(0, len(self.listed) - MOST_PEOPLE)]:
            del self.listed[identity]
            self.left_out += 1


def _between(since: float, until: float) -> float:
    return max(0.0, until - since)


def _cut(name: str) -> str:
    return name[:_NAME_CHARACTERS]
