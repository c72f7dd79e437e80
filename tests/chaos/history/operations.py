"""What clients asked for and were told, and where that is in the logs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.chaos.history.lives import Life
from tests.chaos.history.record import Line

_READ = "a fresh read of"


@dataclass(slots=True)
class Operation:
    """One invocation, and its completion. `end` is for ever where there is none."""

    process: str
    kind: str
    start: float
    request: str | None
    texts: Sequence[str]
    lease: list[Any] | None
    end: float = math.inf
    result: str = "unknown"
    receipt: list[int] | None = None
    error: str = ""

    def __str__(self) -> str:
        """Show who asked for what."""
        return f"{self.kind} {self.request or list(self.texts)} of {self.process}"


def operations_of(conversation: str, lines: Iterable[Line]) -> list[Operation]:
    """All operations on a conversation, as they began."""
    found: dict[tuple[str, int], Operation] = {}
    for line in lines:
        if line["what"] == "invoke" and line["conversation"] == conversation:
            found[line["process"], line["number"]] = Operation(
                line["process"], line["operation"], line["at"], line.get("request"), line.get("texts", ()),
                line.get("lease"),
            )  # fmt: skip
        operation = found.get((line["process"], line.get("number", 0))) if line["what"] == "complete" else None
        if operation is not None:
            operation.end, operation.result = line["at"], line["result"]
            operation.receipt, operation.error = line.get("receipt"), line.get("error", "")
    return list(found.values())


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in the one order of a conversation's whole history."""

    life: int
    branch: int
    seq: int


class Places:
    """Where requests and texts are."""

    def __init__(self, lives: Sequence[Life]) -> None:
        """Index all logs, and what was lost of them."""
        self._lives = lives
        self._entries: dict[str, list[tuple[Life, Line]]] = defaultdict(list)
        for life in lives:
            for entry in [*life.entries.values(), *life.lost]:
                for name in {entry["request"], *(entry.get("texts") or ())} - {None}:
                    self._entries[name].append((life, entry))

    def entries(self, name: str) -> list[tuple[Life, Line]]:
        """Return the entries of a request id, or with a text."""
        return self._entries.get(name, [])

    def may_be_lost(self, operation: Operation) -> bool:
        """Whether what happened by it, when nobody watched, may have been lost or may have ended with its life."""
        seq = operation.receipt[0] if operation.receipt else None
        for life, following in pairwise([*self._lives, None]):
            assert life is not None
            if life.begun > operation.end or (following and following.settled < operation.start):
                continue
            if any(at >= operation.start and (seq is None or after < seq) for at, after in life.losses):
                return True
            if following and (seq is None or seq not in life.entries):
                return True
        return False


def place_of(life: Life, entry: Line) -> Place:
    """Where an entry is."""
    return Place(life.index, entry["branch"], entry["seq"])


def _is_content(operation: Operation, entry: Line) -> bool:
    """Whether an entry that was found by an operation's request id has what it asked for."""
    return operation.request is None or list(operation.texts) == (entry.get("texts") or [])


class Answers:
    """Compares what was acknowledged with where it is."""

    def __init__(self, lives: Sequence[Life], final: Line | None) -> None:
        """Judge by `final`, the last full view."""
        self._places = Places(lives)
        self._lives = lives
        self._last_texts = set(final["texts"]) if final else set()
        self.unplaced = 0
        """Acknowledged, and in no log because nobody's watch was there; found in the last view."""

    def check(self, operation: Operation) -> Iterator[str]:
        """Tell what is wrong with one operation."""
        if operation.result == "refused" and operation.kind != "repeat":
            yield from self._refused(operation)
        if operation.result == "ok":
            for name in [operation.request] if operation.request else operation.texts:
                yield from self._acknowledged(operation, name)

    def _refused(self, operation: Operation) -> Iterator[str]:
        names = operation.texts or [operation.request or ""]
        if any(self._places.entries(name) for name in names) and not self._places.may_be_lost(operation):
            yield f"{operation} was refused ({operation.error}), and is there"

    def _acknowledged(self, operation: Operation, name: str) -> Iterator[str]:
        found = self._places.entries(name)
        told = operation.receipt
        if told is not None:
            found = [(life, entry) for life, entry in found if [entry["seq"], entry["epoch"]] == told]
        if found and not any(_is_content(operation, entry) for _, entry in found):
            yield f"{operation} was acknowledged, and something else is there"
        elif found:
            if not any(self._still_there(operation, life, entry) for life, entry in found):
                yield f"{operation} was acknowledged, and was lost before"
        elif self._may_be_in_a_gap(operation):
            self.unplaced += 1
        elif not self._places.may_be_lost(operation):
            yield f"{operation} was acknowledged at {told}, where it is not"

    def _may_be_in_a_gap(self, operation: Operation) -> bool:
        """Whether it is where nobody's watch was; texts show in the last view, unless their life has ended since."""
        if not any(life.has_gap for life in self._lives):
            return False
        return self._last_texts.issuperset(operation.texts) or self._places.may_be_lost(operation)

    def _still_there(self, operation: Operation, life: Life, entry: Line) -> bool:
        """Whether it was there when that was said."""
        return life.entries.get(entry["seq"]) is entry or any(
            at >= operation.start and after < entry["seq"] for at, after in life.losses
        )

    def missing(self) -> Iterator[str]:
        """Return what the last life's log brought and is not in the last view."""
        for entry in self._lives[-1].entries.values():
            for text in entry.get("texts") or ():
                if text not in self._last_texts:
                    yield f"{text}, at seq {entry['seq']}, is not in the last view"

    def returned(self, operations: Iterable[Operation]) -> Iterator[str]:
        """Nothing that was settled in a life is in a later one."""
        settled: dict[str, float] = {}
        for operation in operations:
            for name in operation.texts:
                settled[name] = max(settled.get(name, 0.0), operation.end)
        for life in self._lives[1:]:
            for entry in life.entries.values():
                for text in entry.get("texts") or ():
                    if settled.get(text, math.inf) < life.begun:
                        yield f"{text} was settled before life {life.name} began, and is in it at seq {entry['seq']}"
        for text in self._last_texts:
            if settled.get(text, math.inf) < self._lives[-1].begun:
                yield f"{text} of an earlier life is in the last view"

    def in_real_time(self, operations: Iterable[Operation], views: Iterable[Line]) -> Iterator[str]:
        """Find writes and fresh reads that began after something was acknowledged, and do not come after it."""
        seen: list[tuple[float, float, Place, str]] = []
        for operation in operations:
            if operation.result == "ok" and operation.kind != "repeat":
                places = [
                    place_of(life, entry)
                    for name in ([operation.request] if operation.request else operation.texts)
                    for life, entry in self._places.entries(name)
                    if operation.receipt in (None, [entry["seq"], entry["epoch"]])
                ]
                if places:
                    seen.append((operation.start, operation.end, max(places), str(operation)))
        indices = {life.name: life for life in self._lives}
        for view in views:
            life = indices.get(view["life"])
            if view["fresh"] and life and life.branch_at(view["started"]) == life.branch_at(view["at"]):
                place = Place(life.index, life.branch_at(view["at"]), view["seq"])
                seen.append((view["started"], view["at"], place, f"{_READ} {view['process']}"))
        yield from _in_order(seen)


def _in_order(seen: list[tuple[float, float, Place, str]]) -> Iterator[str]:
    by_end = sorted(seen, key=lambda one: one[1])
    latest: tuple[Place, str] | None = None
    ended = 0
    for start, _, place, who in sorted(seen, key=lambda one: one[0]):
        while ended < len(by_end) and by_end[ended][1] < start:
            candidate = by_end[ended][2], by_end[ended][3]
            latest = candidate if latest is None or candidate[0] > latest[0] else latest
            ended += 1
        if latest is not None and (place < latest[0] or (place == latest[0] and not who.startswith(_READ))):
            yield f"{who} is at {place}, and began after {latest[1]} had ended at {latest[0]}"
