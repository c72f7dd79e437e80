"""Messages of a line: one of each kind, and more where a kind has several forms.

`python -m tests.support.line_messages` prints them with their bytes, as `tests/data/line` has them.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    FencedError,
    ItemTooLargeError,
    LeaseHeldError,
    PositionLostError,
)
from conversation_actors.items import Message
from conversation_actors.line.messages import (
    Answer,
    Ended,
    ExecuteCall,
    Failed,
    LetGo,
    More,
    Ping,
    Push,
    ReadCall,
    Subscribe,
    ToClient,
    ToOwner,
    encode,
)
from conversation_actors.protocol import Done, Echo, Execute, Executed, Request, Seen, Turn, View
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    ClearHistory,
    CloseConversation,
    Command,
    Guard,
    JoinParticipant,
    Lease,
    LeaveParticipant,
    Participant,
    ReleaseLease,
    RemoveItems,
    ReopenConversation,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)

_SEEN = Seen("life-1", "owner-1")
_ITEMS = tuple(
    Message(id=f"item-{number}", role="user", content="Grüße, 電話", created_at=1.5).to_stored() for number in range(2)
)
_METADATA = {"a": [1, True, None, 2.5, {"ü": "\u2028"}], "large": (1 << 64) - 1}
_EVERY_OTHER_COMMAND: tuple[Command, ...] = (
    RemoveItems(("item-0", "item-1")),
    ClearHistory(),
    SetSummary("said so far", 7),
    JoinParticipant(identity="alice", device_id="phone", name="Alice", metadata=_METADATA),
    LeaveParticipant("alice", None),
    UpdateParticipant(identity="alice", language="de", context={"step": 2}),
    SetAttributes({"topic": None, "n": 1}, 6),
    AcquireLease("agent", "worker-1", 20.0, "worker-0"),
    ReleaseLease("agent", "worker-1", 5, "life-1"),
    SetRetention(None),
    CloseConversation("done"),
    ReopenConversation(),
)
_PARTICIPANT = Participant(
    identity="alice", name="Alice", metadata=_METADATA, connected=True, joined_at=1.0, last_seen=2.5, reconnect_count=1,
    devices=("phone", "web"), language="de", context={"step": 2}, unknown={"later": [1]},
)  # fmt: skip

TO_OWNER: Mapping[str, ToOwner] = {
    "execute append": ExecuteCall(
        1,
        Execute(
            [Request("request-1", AppendItems(_ITEMS), Guard("agent", 5, "worker-1", "life-1"))],
            "watcher-1",
            300,
            _SEEN,
            Turn("sender-1", 2, 1),
        ),
    ),
    "execute every command": ExecuteCall(
        1 << 40,
        Execute(
            [Request(f"request-{number}", command) for number, command in enumerate(_EVERY_OTHER_COMMAND)],
            "watcher-1",
            0,
        ),
    ),
    "execute group": ExecuteCall(
        2,
        Execute(
            [Request("request-2", AppendItems(()), None, is_group=True, seen=Seen("life-1", None), digest="d")], "", 0
        ),
    ),
    "read": ReadCall(3, fresh=True),
    "subscribe": Subscribe(4, "watcher-1", 300, _SEEN, 8),
    "more": More(4, 4),
    "let go": LetGo(("watcher-1", "watcher-2")),
    "ping": Ping(5),
}
TO_CLIENT: Mapping[str, ToClient] = {
    "executed": Answer(1, Executed((Done(301, 7),), (Echo(301, 7, 1.5, 0, ()),), "owner-1")),
    "executed every reply": Answer(
        2,
        Executed(
            (
                Done(302, 7, _PARTICIPANT),
                Done(303, 7, Lease("agent", "worker-1", 303, 1000.5, "life-1")),
                LeaseHeldError("somebody else is here", holder="worker-2", expires_at=1000.5),
                ItemTooLargeError("too large", field="items[0]", size=200_000, limit=131_072),
            ),
            (b'{"seq":302}\n', Echo(303, 7, 2.5, None, ("item-0",))),
            "owner-1",
        ),
    ),
    "view": Answer(3, View(300, 7, b'{"snapshot":1}\n', "life-1", "owner-1")),
    "error": Answer(1, FencedError("a newer activation owns the conversation")),
    "error with attributes": Answer(1, CorruptStateError("unreadable", key="{a}:journal", position=12)),
    "pong": Answer(5, None),
    "failed": Failed(6, "KeyError('a')"),
    "push": Push(4, 300, (b'{"seq":301}\n', b'{"seq":302}\n'), "owner-1"),
    "ended": Ended(4, PositionLostError("too late", first_available=250)),
}


def lines() -> list[str]:
    """Return the name and the bytes of each message, as a golden file has them."""
    return [f"{name}: {encode(message).hex()}" for name, message in {**TO_OWNER, **TO_CLIENT}.items()]


def plain(value: object) -> object:
    """Return what a message says, such that two are equal only if they say the same, with the same types in them."""
    if isinstance(value, ConversationError):
        return type(value), value.args, plain(vars(value))
    if is_dataclass(value):
        return type(value), [plain(getattr(value, one.name)) for one in fields(value)]
    if isinstance(value, Mapping):
        return type(value), sorted((name, repr(plain(part))) for name, part in value.items())
    if isinstance(value, tuple | list):
        return type(value), [plain(part) for part in value]
    return repr(value)  # tells True from 1, and takes one NaN for another


if __name__ == "__main__":
    for line in lines():
        print(line)  # noqa: T201  # a program's output
