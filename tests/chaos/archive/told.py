"""What clients were told: the side of a history that the archive is compared with."""

from dataclasses import dataclass, field

from conversation_actors import Entry
from conversation_actors.state import EVENT_NAMES


@dataclass(slots=True)
class Said:
    """One message that a client sent; its text is its id. `seq` is that of its receipt, if it had one."""

    sender: str
    is_acknowledged: bool = False
    seq: int | None = None


@dataclass(slots=True)
class Told:
    """All that the clients of one conversation sent and were told, and what a watch brought them."""

    conversation_id: str
    said: dict[str, Said] = field(default_factory=dict)
    """By text, in the order of sending."""
    watched: dict[int, tuple[int, str]] = field(default_factory=dict)
    """By position: the epoch and the name of the event."""
    contradictions: list[str] = field(default_factory=list)

    def watch(self, entry: Entry) -> None:
        """Take an entry that a watch brought; two at one position have to be the same."""
        seen = (entry.epoch, EVENT_NAMES[type(entry.event)])
        if self.watched.setdefault(entry.seq, seen) != seen:
            self.contradictions.append(f"a watch brought {seen} at {entry.seq} after {self.watched[entry.seq]}")

    def acknowledge(self, text: str, seq: int | None = None) -> None:
        """Note that a message is durable. A receipt that names another position than an earlier one is a fault."""
        said = self.said[text]
        if seq is not None and said.seq not in (None, seq):
            self.contradictions.append(f"{text} was acknowledged at {said.seq} and at {seq}")
        said.is_acknowledged = True
        said.seq = said.seq if seq is None else seq

    @property
    def acknowledged(self) -> int:
        """How many messages are durable, as far as their senders know."""
        return sum(said.is_acknowledged for said in self.said.values())
