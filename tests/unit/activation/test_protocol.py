"""The number of the protocol: it stands for what client and owner say to each other, and rises when that changes."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from conversation_actors.protocol import (
    PROTOCOL,
    ActivationInfo,
    Done,
    Echo,
    Execute,
    Executed,
    LineAddress,
    Opened,
    Polled,
    Request,
    Seen,
    Turn,
    View,
)
from conversation_actors.state import EVENT_NAMES, Command, Guard, Lease, Participant

_DATA = Path(__file__).parents[2] / "data" / "protocol"
_MESSAGES = (
    ActivationInfo,
    Done,
    Echo,
    Execute,
    Executed,
    Guard,
    Lease,
    LineAddress,
    Opened,
    Participant,
    Polled,
    Request,
    Seen,
    Turn,
    View,
)


def _parts(kind: Any) -> str:
    """Return a kind of message with what it is made of."""
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else kind._fields
    return " ".join([kind.__name__, *names])


def said() -> set[str]:
    """Return what is said now: commands, messages and the facts in them by their fields, and events by name.

    Where a kind is defined is said too: the pickle of a message names the module.
    """
    kinds = {_parts(kind) for kind in (*get_args(Command), *_MESSAGES)}
    kinds |= {f"module {kind.__module__}" for kind in (*get_args(Command), *_MESSAGES)}
    return kinds | {f"event {name}" for name in EVENT_NAMES.values()}


def known() -> dict[int, set[str]]:
    """Return what each number has stood for; a file each, and none is changed once somebody may run it."""
    return {int(path.stem): set(path.read_text().splitlines()) for path in _DATA.glob("*.txt")}


def test_a_number_stands_for_one_way_of_speaking() -> None:
    """An owner that lacks a command cannot even read the call that it comes in, nor what else is in that call."""
    assert known()[PROTOCOL] == said()
    assert [number for number, told in known().items() if told == said()] == [PROTOCOL]
    assert max(known()) == PROTOCOL
