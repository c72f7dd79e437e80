"""What `conversation-actors show` prints about who said something."""

from datetime import datetime
from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from conversation_actors.cli.show import _grid, _line, _pairs, _tracks, _when
from conversation_actors.cli.where import told
from conversation_actors.items import Message, OtherItem, item_from_dict
from conversation_actors.runtime import Whereabouts


@pytest.mark.parametrize(
    ("participant", "shown"),
    [
        ({"identity": "anna", "device": "kitchen"}, "anna (kitchen): Hello"),
        ({"identity": "anna", "device": None}, "anna: Hello"),
        ({"identity": "anna"}, "anna: Hello"),
        ({"device": "kitchen"}, "Hello"),
        ("anna", "Hello"),
        (None, "Hello"),
    ],
)
def test_who_said_it(participant: object, shown: str) -> None:
    """Two microphones at one time can be told apart; what somebody else put there is passed over."""
    message = Message(role="user", content="Hello", extra={"participant": participant})
    role, text = _line(message)
    assert (role.plain, text.plain) == ("user", shown)
    stored = item_from_dict(message.to_dict())
    assert isinstance(stored, Message)
    assert (stored.participant is not None) == (shown != "Hello")


def test_what_people_say_moves_no_terminal() -> None:
    """Whoever writes into a call may send what clears a screen, or names a window; lines stay lines."""
    console = Console(width=100, file=StringIO(), force_terminal=False)
    console.print(_grid(None, [_line(Message(role="user", content="a\x1b[2Jb\u009bc\nd é→"))]))
    shown = cast("StringIO", console.file).getvalue()
    assert "a\\x1b[2Jb\\x9bc" in shown
    assert "d é→" in shown.splitlines()[1]
    line = {"time": "t", "level": "INFO", "logger": "l", "message": "m", "reason": "\x1b]0;x\x07", "node": "n"}
    assert "\\x1b]0;x\\x07" in told(Whereabouts("c", None, "", (line,), ()))


def test_a_message_of_a_newer_version() -> None:
    """One that cannot be read as a message is shown as far as it can be."""
    item = OtherItem.model_construct(type="message", id="x", role="user", content="Hello", created_at=1.0)
    assert _line(item)[1].plain == "Hello"


@pytest.mark.parametrize(
    ("metadata", "shown", "rest"),
    [
        (
            {"tracks": {"microphone": "open", "screen_share": "muted"}, "a": 1},
            "microphone open, screen share muted",
            {"a": 1},
        ),
        ({"a": 1}, "", {"a": 1}),
        ({"tracks": "anything"}, "", {"tracks": "anything"}),
        ({"tracks": {"microphone": 7}}, "", {"tracks": {"microphone": 7}}),
    ],
)
def test_what_somebody_has_open(metadata: dict[str, object], shown: str, rest: dict[str, object]) -> None:
    """In words; what is no such thing is metadata like any other."""
    assert _tracks(metadata) == (shown, rest)


def test_a_time_has_its_zone() -> None:
    """What is read on one machine may be of another one's day."""
    assert datetime.fromisoformat(_when(1_000.0)).timestamp() == 1_000


def test_a_heading_is_not_as_narrow_as_what_is_below_it() -> None:
    """It stays on its line, however short the words of the history are."""
    shown, title = StringIO(), "History: 200 items, the last 40 of them (--json prints all)"
    Console(file=shown, width=120).print(_pairs(title, [("user", "x")]))
    assert title in shown.getvalue().splitlines()
