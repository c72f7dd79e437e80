"""What happened, one JSON line each, in a file of the process that saw it.

Times are CLOCK_MONOTONIC, which all processes of one machine share. Lines by `what`:

    invoke, complete     an operation (`process`, `number`) begins, and ends: ok, refused or unknown
    run, entry           a watch begins behind a position of a life; an entry that it brought
    view                 the state that a read showed; its texts are counted and hashed, or all there (`texts`)
    way                  how a client's handle reached its owner at that moment
    tick                 the process is awake
    fault                what was done to the system, what of it may end a life, what may be lost
    settled              the life that a conversation is in after a fault
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conversation_actors import AttributesChanged, Entry, ItemsAppended, LeaseAcquired, LeaseReleased
from conversation_actors.codec import decode_snapshot
from conversation_actors.protocol import View
from tests.support.observation import appended, texts

Line = dict[str, Any]


class Recorder:
    """Writes what one process sees. A line that was written survives the process."""

    def __init__(self, directory: Path, process: str) -> None:
        """Begin a file of its own."""
        self.process = process
        self._file = (directory / f"{process}.jsonl").open("w")
        self._numbers = itertools.count(1)
        self.reached: dict[tuple[str, str], int] = {}
        """How far this process has followed each life of a conversation."""

    def write(self, what: str, **facts: Any) -> None:
        """Write one line, as of now unless it says `at`."""
        line = {"what": what, "process": self.process, "at": time.monotonic(), **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def invoke(self, operation: str, conversation: str, **facts: Any) -> int:
        """Note that an operation begins; return the number under which it ends."""
        number = next(self._numbers)
        self.write("invoke", number=number, operation=operation, conversation=conversation, **facts)
        return number

    def complete(self, number: int, result: str, **facts: Any) -> None:
        """Operation `number` has ended."""
        self.write("complete", number=number, result=result, **facts)

    def run(self, conversation: str, life: str, after: int) -> int:
        """Note that a watch begins; return its number."""
        number = next(self._numbers)
        self.write("run", run=number, conversation=conversation, life=life, after=after)
        return number

    def entry(self, run: int, conversation: str, life: str, entry: Entry) -> None:
        """Note that a watch brought an entry."""
        self.reached[conversation, life] = entry.seq
        self.write("entry", run=run, conversation=conversation, life=life, **described(entry))

    def view(self, conversation: str, view: View, *, started: float, fresh: bool, is_full: bool = False) -> None:
        """Note what state a read showed that began at `started`."""
        if is_full:
            self.reached[conversation, view.life] = view.seq
        state = decode_snapshot(view.snapshot)
        said = texts(stored.to_item() for stored in state.window)
        self.write(
            "view", conversation=conversation, life=view.life, epoch=view.epoch, seq=view.seq, started=started,
            fresh=fresh, digest=digest(said), counter=state.attributes.get("counter", 0),
            leases={name: [lease.holder, lease.token, lease.expires_at] for name, lease in state.leases.items()},
            **({"texts": said} if is_full else {}),
        )  # fmt: skip

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def described(entry: Entry) -> Line:
    """Return what the checker looks at in an entry."""
    line: Line = {"seq": entry.seq, "epoch": entry.epoch, "request": entry.request_id, "time": entry.at}
    event = entry.event
    line["kind"] = type(event).__name__
    match event:
        case ItemsAppended():
            line["texts"] = appended([entry])
        case AttributesChanged(changes):
            line["counter"] = changes.get("counter")
        case LeaseAcquired(lease):
            line["lease"] = [lease.name, lease.holder, lease.token, lease.expires_at]
        case LeaseReleased(name, holder, token):
            line["lease"] = [name, holder, token]
    return line


def digest(said: Iterable[str]) -> str:
    """Return a hash of texts in their order."""
    return hashlib.sha1("".join(f"{text}\n" for text in said).encode(), usedforsecurity=False).hexdigest()


def read(directory: Path) -> list[Line]:
    """All lines of all processes in the order of time; a line that a dying process left unfinished is none."""
    lines: list[Line] = []
    for path in sorted(directory.glob("*.jsonl")):
        text = path.read_text()
        lines += map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    return sorted(lines, key=lambda line: float(line["at"]))
