"""The count at the end. Pure: it gets what was acknowledged, written and present, and says what is wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conversation_actors.cli.demo.script import DemoScript, call_key


@dataclass(frozen=True, slots=True)
class Written:
    """One item in one journal entry, as seen by somebody who has watched from the first entry on."""

    seq: int
    item_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Return:
    """What is known when Redis was wiped after the call, and the caller has called again."""

    history: Sequence[Mapping[str, Any]] = ()
    """All items of the conversation, from the archive on, in their order."""
    seqs: Sequence[int] = ()
    """Positions of the entries that the witness, which watched all the time, has got since."""
    welcome: str = ""
    """What the arrival called for, as the agent decided: ``back`` for a caller who was known."""
    acknowledged: Sequence[str] = ()
    """Ids of what the agent of the second call was told to be durable."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known at the end of the call."""

    acknowledged: Mapping[str, Sequence[str]]
    """Ids by process, in the order in which the process was told that they are durable."""
    seqs: Sequence[int]
    """Positions of all journal entries, as they came."""
    written: Sequence[Written]
    final: Sequence[Mapping[str, Any]]
    """The items of the last snapshot, which the owner gave after it had checked in Redis that it is the owner."""
    watched: frozenset[str]
    """Ids that the watching process has shown."""
    after_wipe: Return


@dataclass(frozen=True, slots=True)
class Verdict:
    """The facts that the table shows."""

    acknowledged: int
    present: int
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    order_kept: bool
    words_as_written: bool
    unseen_by_watcher: tuple[str, ...]
    forgotten: tuple[str, ...]
    """What was there before Redis was wiped, and is not in the history after it as it was."""
    went_on_after_wipe: bool
    """Whether the positions went on where they were: the same conversation, and not a new one under its name."""
    welcomed_back: bool

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        whole = not (self.lost or self.duplicated or self.unseen_by_watcher or self.forgotten)
        is_known = self.went_on_after_wipe and self.welcomed_back
        return whole and is_known and self.order_kept and self.words_as_written and self.acknowledged > 0

    def document(self) -> dict[str, Any]:
        """Return the verdict as JSON's types: counts for people, and what was lost or duplicated."""
        listed = asdict(self)
        return {
            **listed,
            "lost": len(self.lost),
            "duplicated": len(self.duplicated),
            "unseen_by_watcher": len(self.unseen_by_watcher),
            "forgotten": len(self.forgotten),
            "lost_ids": list(self.lost),
            "duplicates": list(self.duplicated),
        }


def judge(evidence: Evidence, script: DemoScript) -> Verdict:
    """Compare the evidence with itself and with the script."""
    acknowledged = {identity for ids in evidence.acknowledged.values() for identity in ids}
    present = [str(item["id"]) for item in evidence.final]
    in_journal = {one.item_id for one in evidence.written}
    lost = sorted(acknowledged - (set(present) & in_journal))
    return Verdict(
        acknowledged=len(acknowledged),
        present=len(present),
        lost=tuple(lost),
        duplicated=tuple(_duplicates(evidence, script)),
        order_kept=_is_in_order(evidence, present),
        words_as_written=tuple(_spoken(evidence.final)) == script.lines,
        unseen_by_watcher=tuple(sorted(set(present) - evidence.watched)),
        forgotten=tuple(_forgotten(evidence)),
        went_on_after_wipe=_follows(evidence.seqs, evidence.after_wipe.seqs),
        welcomed_back=evidence.after_wipe.welcome == "back",
    )


def _forgotten(evidence: Evidence) -> Iterable[str]:
    """Yield the ids of items that the history after the wipe does not have where, and as, they were before it.

    Then those that were acknowledged in the second call, and are not in it.
    """
    after = evidence.after_wipe.history
    for place, item in enumerate(evidence.final):
        if place >= len(after) or dict(after[place]) != dict(item):
            yield str(item["id"])
    present = {str(item["id"]) for item in after}
    yield from (identity for identity in evidence.after_wipe.acknowledged if identity not in present)


def _follows(before: Sequence[int], after: Sequence[int]) -> bool:
    """Tell whether there is something after the wipe, and its positions follow on those before it."""
    begun = before[-1] if before else 0
    return bool(after) and list(after) == list(range(begun + 1, begun + 1 + len(after)))


def _duplicates(evidence: Evidence, script: DemoScript) -> Iterable[str]:
    """Yield each id that is there twice, each repeated write, and what occurs more often than in the script.

    The script tells how often a sentence is said and a tool used; sentences and tools that are not in it are ignored.
    """
    ids = Counter(str(item["id"]) for item in evidence.final)
    yield from (f"id {identity}" for identity, count in ids.items() if count > 1)
    writes = Counter((one.item_id, one.data) for one in evidence.written)
    yield from (f"write of {identity}" for (identity, _), count in writes.items() if count > 1)
    said, wanted = Counter(_spoken(evidence.final)), Counter(script.lines)
    yield from (f"{role}: {text}" for (role, text), count in said.items() if count > wanted[role, text] > 0)
    calls = Counter(
        call_key(item["name"], item["arguments"]) for item in evidence.final if item["type"] == "function_call"
    )
    yield from (f"tool {key}" for key, count in calls.items() if count > script.calls[key] > 0)


def _spoken(items: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    for item in items:
        if item["type"] == "message" and item["role"] in {"user", "assistant"}:
            content = item["content"]
            yield item["role"], content if isinstance(content, str) else "\n".join(map(str, content))


def _is_in_order(evidence: Evidence, present: Sequence[str]) -> bool:
    """Tell whether everything is in order.

    That is so if the journal has no gap, the history is in the journal's order, and each process's items are in the
    order in which the process sent them.
    """
    first_written = list(dict.fromkeys(one.item_id for one in evidence.written))
    place = {identity: number for number, identity in enumerate(first_written)}
    orders = [[place[identity] for identity in ids if identity in place] for ids in evidence.acknowledged.values()]
    without_gap = list(evidence.seqs) == list(range(1, len(evidence.seqs) + 1))
    as_written = list(present) == [identity for identity in first_written if identity in set(present)]
    return without_gap and as_written and all(order == sorted(order) for order in orders)
