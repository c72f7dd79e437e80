"""Going through the log of one life in its order: what must hold from each entry to the next, and in each view."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.chaos.history.lives import Life
from tests.chaos.history.operations import Operation
from tests.chaos.history.record import Line


class Walk:
    """The state at a position of a log; unknown (None) behind a gap that no full view bridges."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        """At the beginning of a life. `operations` are by request id."""
        self._operations = operations
        self._seq = self._epoch = 0
        self._requests: set[str] = set()
        self._said: set[str] = set()
        self._digest: Any = _sha1()
        self._counter: int | None = 0
        self._leases: dict[str, list[Any]] | None = {}
        self.states: dict[int, tuple[int, str | None, int | None]] = {}
        """Epoch, digest and counter behind each position."""

    def through(self, life: Life, bases: Mapping[int, Line]) -> Iterator[str]:
        """Go through a life's log; tell what is wrong."""
        for seq in sorted(life.entries):
            if seq != self._seq + 1:
                self._jump(bases.get(seq - 1))
            yield from self._step(life.entries[seq])
            if self._digest is None and seq in bases:
                self._jump(bases[seq])
            self._seq = seq
            digest = self._digest.hexdigest() if self._digest is not None else None
            self.states[seq] = (self._epoch, digest, self._counter)

    def _jump(self, base: Line | None) -> None:
        """Go on from a full view, or with as little as is known."""
        self._digest, self._counter, self._leases = None, None, None
        if base is not None:
            self._digest = _sha1(base["texts"])
            self._counter, self._leases = base["counter"], dict(base["leases"])

    def _step(self, entry: Line) -> Iterator[str]:
        where, request = f"at seq {entry['seq']}", entry["request"]
        if entry["epoch"] < self._epoch:
            yield f"{where} epoch {entry['epoch']} follows epoch {self._epoch}"
        self._epoch = max(self._epoch, entry["epoch"])
        if request in self._requests:
            yield f"{where} request {request} was executed again"
        if request is not None:
            self._requests.add(request)
        yield from self._guard(where, self._operations.get(request))
        for text in entry.get("texts") or ():
            if text in self._said:
                yield f"{where} {text} came again"
            self._said.add(text)
            if self._digest is not None:
                self._digest.update(f"{text}\n".encode())
        if entry.get("counter") is not None:
            if self._counter not in {None, entry["counter"] - 1}:
                yield f"{where} the counter went from {self._counter} to {entry['counter']}: an update is lost"
            self._counter = entry["counter"]
        yield from self._lease(where, entry)

    def _guard(self, where: str, operation: Operation | None) -> Iterator[str]:
        """Check that what came in a lease's name is there only while that lease is its holder's."""
        if operation is None or operation.lease is None or self._leases is None:
            return
        name, *claimed = operation.lease
        held = self._leases.get(name, [])[:2]
        if held != claimed:
            yield f"{where} {operation.request} was written in the name of lease {claimed}, which is {held}"

    def _lease(self, where: str, entry: Line) -> Iterator[str]:
        if self._leases is None or not entry.get("lease"):
            return
        name, *lease = entry["lease"]
        held = self._leases.get(name)
        if entry["kind"] == "LeaseReleased":
            if held is not None and held[:2] == lease:
                del self._leases[name]
            return
        if held is not None and held[0] != lease[0] and held[2] > entry["time"]:
            yield f"{where} {lease[0]} took the lease that was {held[0]}'s for {held[2] - entry['time']:.3f} s more"
        if held is not None and held[0] != lease[0] and held[1] >= lease[1]:
            yield f"{where} another holder has token {lease[1]}, no higher than {held[1]}"
        self._leases[name] = lease


def _sha1(said: Iterable[str] = ()) -> Any:
    return hashlib.sha1("".join(f"{text}\n" for text in said).encode(), usedforsecurity=False)


def compare(views: Iterable[Line], walk: Walk) -> Iterator[str]:
    """Each view shows what the log leads to at its position."""
    for view in views:
        known = walk.states.get(view["seq"])
        if known is None:
            continue
        epoch, digest, counter = known
        where = f"{view['process']} was shown, at seq {view['seq']},"
        if view["epoch"] < epoch:
            yield f"{where} epoch {view['epoch']} after an entry of epoch {epoch}"
        if digest is not None and view["digest"] != digest:
            yield f"{where} other items than the log has"
        if counter is not None and view["counter"] != counter:
            yield f"{where} counter {view['counter']} where the log has {counter}"
