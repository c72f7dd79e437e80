"""The lives of one conversation, and what each of them brought: from everybody's watches, one log for each life."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.chaos.history.record import Line

_COMPARED = ("epoch", "request", "kind", "texts", "counter", "lease")


@dataclass(slots=True)
class Life:
    """One life: its log by position, and what it lost with permission."""

    name: str
    index: int
    begun: float
    settled: float
    """When, at the earliest and at the latest."""
    entries: dict[int, Line] = field(default_factory=dict)
    lost: list[Line] = field(default_factory=list)
    losses: list[tuple[float, int]] = field(default_factory=list)
    """When, and behind which position."""

    def take(self, entry: Line) -> str:
        """Add an entry that somebody was shown; return what is wrong with it."""
        seq = entry["seq"]
        known = self.entries.setdefault(seq, entry)
        if known is entry:
            entry["branch"] = max(
                (number for number, (_, after) in enumerate(self.losses, 1) if after < seq), default=0
            )
        if _content(known) == _content(entry):
            return ""
        return f"two entries at seq {seq} of life {self.name}: {_content(known)} and {_content(entry)}"

    def lose(self, at: float, after: int) -> None:
        """Note that what comes after a position is gone."""
        self.losses.append((at, after))
        self.lost += [self.entries.pop(seq) for seq in sorted(self.entries) if seq > after]

    @property
    def has_gap(self) -> bool:
        """Whether nobody was shown some of its entries."""
        return bool(self.entries) and len(self.entries) < max(self.entries)

    def branch_at(self, at: float) -> int:
        """How often this life had lost something by then."""
        return sum(lost_at <= at for lost_at, _ in self.losses)

    def holds(self, view: Line) -> bool:
        """Whether what a view showed has not been lost since."""
        return not any(at > view["at"] and after < view["seq"] for at, after in self.losses)


def _content(entry: Line) -> list[object]:
    return [entry.get(name) for name in _COMPARED]


def lives_of(conversation: str, lines: Iterable[Line]) -> tuple[list[Life], list[str]]:
    """Return the lives in their order, and what is wrong with that order.

    A life ends only where a fault said so; one that has ended does not come back.
    """
    lives: list[Life] = []
    wrong: list[str] = []
    may_end: float | None = None
    for line in lines:
        if line["what"] == "fault" and conversation in line["ends"]:
            may_end = line["at"]
        if line["what"] != "settled" or line["conversation"] != conversation:
            continue
        name = line["life"]
        if not lives or name != lives[-1].name:
            if name in {life.name for life in lives}:
                wrong.append(f"life {name} came back after it had ended")
            elif lives and may_end is None:
                wrong.append(f"life {lives[-1].name} ended though nothing had happened that could end it")
            lives.append(Life(name, len(lives), may_end or 0.0, line["at"]))
        may_end = None
    return lives, wrong


@dataclass(slots=True)
class _Run:
    """One watch: where it is, and whether what it brought has been lost since."""

    life: str
    seq: int
    has_brought: bool = False
    is_lost: bool = False


class Logs:
    """Gives each life its entries, in the order of time."""

    def __init__(self, conversation: str, lives: Iterable[Life]) -> None:
        """`lives` are the conversation's, and get their logs."""
        self._conversation = conversation
        self._lives = {life.name: life for life in lives}
        self._runs: dict[tuple[str, int], _Run] = {}

    def fill(self, lines: Iterable[Line]) -> Iterator[str]:
        """Take all lines; tell what contradicts itself."""
        for line in lines:
            if line["what"] == "fault":
                self._lose(line)
            elif line.get("conversation") == self._conversation and line["what"] == "run":
                self._runs[line["process"], line["run"]] = _Run(line["life"], line["after"])
            elif line.get("conversation") == self._conversation and line["what"] == "entry":
                yield from self._take(line, self._runs[line["process"], line["run"]])
        yield from self._shared()

    def _lose(self, fault: Line) -> None:
        for conversation, life, after in fault["losses"]:
            if conversation != self._conversation or life not in self._lives:
                continue
            self._lives[life].lose(fault["at"], after)
            for run in self._runs.values():
                run.is_lost |= run.life == life and run.has_brought and run.seq > after

    def _take(self, entry: Line, run: _Run) -> Iterator[str]:
        who = f"a watch of {entry['process']}"
        if entry["seq"] != run.seq + 1:
            yield f"{who} went from seq {run.seq} to {entry['seq']}"
        if run.is_lost:
            yield f"{who} went on to seq {entry['seq']} in a history that has replaced what it had brought"
        run.seq, run.has_brought, run.is_lost = entry["seq"], True, False
        if entry["life"] not in self._lives:
            yield f"{who} was in life {entry['life']}, which the conversation never was in"
        elif trouble := self._lives[entry["life"]].take(entry):
            yield trouble

    def _shared(self) -> Iterator[str]:
        """Find entries of one life that were shown as ones of another."""
        known: dict[tuple[object, ...], Life] = {}
        for life in self._lives.values():
            for entry in [*life.entries.values(), *life.lost]:
                name = (entry["seq"], entry["epoch"], entry["time"], entry["kind"])
                other = known.setdefault(name, life)
                if other is not life:
                    yield f"the entry at seq {entry['seq']} was shown in life {other.name} and in life {life.name}"
