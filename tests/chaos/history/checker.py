"""Judges a history: what everybody was told must be one story. Pure, and linear in the number of lines but for sorting.

For each conversation: its lives in order; one log for each life, from everybody's watches; going through it, what
must hold from entry to entry and in every view; then every operation's answer against the logs, and in real time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.history.lives import Life, Logs, lives_of
from tests.chaos.history.operations import Answers, Operation, operations_of
from tests.chaos.history.record import Line
from tests.chaos.history.walk import Walk, compare


@dataclass
class Findings:
    """Figures of a history, and what is wrong with it: nothing, if all guarantees hold."""

    figures: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def check(lines: Sequence[Line]) -> Findings:
    """Judge the lines of all processes, in the order of time."""
    findings = Findings()
    findings.violations += [f"{line['process']}: {line['error']}" for line in lines if line["what"] == "error"]
    conversations = {line["conversation"] for line in lines if line["what"] == "settled"}
    for conversation in sorted(conversations):
        for violation in _check_conversation(conversation, lines, findings.figures):
            findings.violations.append(f"{conversation}: {violation}")
    return findings


def _check_conversation(conversation: str, lines: Sequence[Line], figures: Counter[str]) -> Iterator[str]:
    lives, wrong = lives_of(conversation, lines)
    yield from wrong
    yield from Logs(conversation, lives).fill(lines)
    operations = operations_of(conversation, lines)
    views = [line for line in lines if line["what"] == "view" and line["conversation"] == conversation]
    by_request = {operation.request: operation for operation in operations if operation.request}
    for life in lives:
        yield from _walk(life, views, by_request)
    final = next((view for view in reversed(views) if "texts" in view), None)
    if final is None:
        yield "nobody has seen it in full at the end"
    elif len(set(final["texts"])) != len(final["texts"]):
        yield "something is in the last view twice"
    answers = Answers(lives, final)
    for operation in operations:
        yield from answers.check(operation)
    yield from answers.missing()
    yield from answers.returned(operations)
    yield from answers.in_real_time(operations, views)
    yield from _handles_keep_order(lives)
    figures["unplaced"] += answers.unplaced
    _count(figures, lives, operations, views)
    figures.update(
        f"by {line['way']}" for line in lines if line["what"] == "way" and line["conversation"] == conversation
    )


def _walk(life: Life, views: Iterable[Line], operations: dict[str, Operation]) -> Iterator[str]:
    there = [view for view in views if view["life"] == life.name and life.holds(view)]
    bases = {view["seq"]: view for view in there if "texts" in view}
    walk = Walk(operations)
    yield from walk.through(life, bases)
    yield from compare(there, walk)


def _handles_keep_order(lives: Iterable[Life]) -> Iterator[str]:
    """Find what one handle recorded (`n:<handle>:<number>`) and is not in its order, in a life."""
    for life in lives:
        last: dict[str, str] = defaultdict(str)
        for seq in sorted(life.entries):
            for text in life.entries[seq].get("texts") or ():
                kind, _, rest = text.partition(":")
                handle = rest.rpartition(":")[0]
                if kind == "n" and text < last[handle]:
                    yield f"{text} came behind {last[handle]}"
                if kind == "n":
                    last[handle] = text


def _count(
    figures: Counter[str], lives: Sequence[Life], operations: Sequence[Operation], views: Sequence[Line]
) -> None:
    figures["lives"] += len(lives)
    figures["entries"] += sum(len(life.entries) for life in lives)
    figures["lost with permission"] += sum(len(life.lost) for life in lives)
    figures["operations"] += len(operations)
    figures["reads"] += len(views)
    for operation in operations:
        figures[operation.result] += 1
        figures["items acknowledged"] += len(operation.texts) if operation.result == "ok" else 0
