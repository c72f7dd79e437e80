"""The messages of a line, and their bytes. A message is a msgpack array: its kind, and what belongs to it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack

from conversation_actors.errors import ConversationError
from conversation_actors.line.executing import (
    pack_executed,
    pack_requests,
    read_executed,
    read_requests,
    read_seen,
    read_turn,
)
from conversation_actors.line.fields import (
    MAX_PARTS,
    bounded,
    list_of,
    read_bytes,
    read_count,
    read_flag,
    read_text,
    read_texts,
    refuse,
)
from conversation_actors.line.frames import FrameError, FrameTooLargeError, framed
from conversation_actors.line.records import pack_error, read_error
from conversation_actors.protocol import Execute, Executed, Seen, View


class ExecuteCall(NamedTuple):
    """The call to decide requests. `call` is the number by which its answer is told from others."""

    call: int
    execute: Execute


class ReadCall(NamedTuple):
    """The call to show the durable state; if `fresh`, after the store has confirmed the owner."""

    call: int
    fresh: bool


class Subscribe(NamedTuple):
    """The wish to be sent the entries after a position of the history `seen`, in `credit` pushes at most.

    It takes the place of an earlier subscription of the same number.
    """

    subscription: int
    watcher: str
    after_seq: int
    seen: Seen
    credit: int


class More(NamedTuple):
    """The news that so many pushes have been taken, and as many more may come."""

    subscription: int
    credit: int


class LetGo(NamedTuple):
    """The news that these watchers read no longer."""

    watchers: tuple[str, ...]


class Ping(NamedTuple):
    """The question whether anybody is there."""

    call: int


class Answer(NamedTuple):
    """The answer to a call; without a value it answers a ping."""

    call: int
    value: Executed | View | ConversationError | None


class Failed(NamedTuple):
    """The news that the owner raised what it does not answer, with a reason for people."""

    call: int
    reason: str


class Push(NamedTuple):
    """Entries that follow `after_seq`, encoded and in order. `owner` is as in `Seen`."""

    subscription: int
    after_seq: int
    entries: tuple[bytes, ...]
    owner: str


class Ended(NamedTuple):
    """The end of a subscription, and why."""

    subscription: int
    error: ConversationError


ToOwner = ExecuteCall | ReadCall | Subscribe | More | LetGo | Ping
ToClient = Answer | Failed | Push | Ended

Parts = tuple[Any, ...]

MOST_SUBSCRIPTIONS = 64
"""Subscriptions of one line. Who needs more of them polls by Ray's call."""

_EXECUTE, _READ, _SUBSCRIBE, _MORE, _LET_GO, _PING = range(1, 7)
_EXECUTED, _VIEW, _ERROR, _PONG, _FAILED, _PUSH, _ENDED = range(16, 23)


def encode(message: ToOwner | ToClient) -> bytes:
    """Return the message as a whole frame.

    Raises `FrameTooLargeError` if it is too large, or holds a value that no message on a line may hold, such as an
    integer of more than 64 bits.
    """
    try:
        return framed(_pack(_ENCODERS[type(message)](message)))
    except (OverflowError, TypeError, ValueError) as error:
        if isinstance(error, FrameTooLargeError):
            raise
        reason = f"no line can carry this {type(message).__name__}: {error}"
        raise FrameTooLargeError(reason) from error


def decode_to_owner(body: bytes) -> ToOwner:
    """Return the message of a client. Raises `FrameError` for anything else, and nothing else."""
    message: ToOwner = _read(body, _FROM_CLIENTS)
    return message


def decode_to_client(body: bytes) -> ToClient:
    """Return the message of an owner. Raises `FrameError` for anything else, and nothing else."""
    message: ToClient = _read(body, _FROM_OWNERS)
    return message


def _pack(parts: tuple[Any, ...]) -> bytes:
    try:
        packed: bytes = msgpack.packb(parts)
    except UnicodeEncodeError:  # text with a lone surrogate, which Python has and UTF-8 has not
        packed = msgpack.packb(parts, unicode_errors="surrogatepass")
    return packed


def _unpack(body: bytes) -> Any:
    """Return the value of a body: nothing in it but numbers, text, bytes, None, true, false, and tuples of these."""
    try:
        return msgpack.unpackb(
            body,
            use_list=False,
            unicode_errors="surrogatepass",
            max_array_len=min(len(body), MAX_PARTS),
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        message = f"no msgpack that a line carries: {error or type(error).__name__}"
        raise FrameError(message) from error


def _read(body: bytes, readers: Mapping[int, tuple[int, Callable[[Parts], Any]]]) -> Any:
    parts = _unpack(body)
    if type(parts) is not tuple or not parts or type(parts[0]) is not int:
        refuse("a message", parts)
    known = readers.get(parts[0])
    if known is None or len(parts) != known[0]:
        message = f"no message of kind {parts[0]} with {len(parts)} parts comes this way"
        raise FrameError(message)
    return known[1](parts)


def _pack_execute(message: ExecuteCall) -> tuple[Any, ...]:
    call, execute = message
    rows = pack_requests(execute.requests)
    return _EXECUTE, call, rows, execute.watcher, execute.after_seq, execute.seen, execute.turn


def _read_execute(parts: Parts) -> ExecuteCall:
    _, call, rows, watcher, after_seq, seen, turn = parts
    execute = Execute(
        read_requests(rows),
        read_text(watcher),
        read_count(after_seq),
        None if seen is None else read_seen(seen),
        None if turn is None else read_turn(turn),
    )
    return ExecuteCall(read_count(call), execute)


def _read_subscribe(parts: Parts) -> Subscribe:
    _, subscription, watcher, after_seq, seen, credit = parts
    return Subscribe(
        read_count(subscription), read_text(watcher), read_count(after_seq), read_seen(seen), read_count(credit)
    )


def _pack_answer(message: Answer) -> tuple[Any, ...]:
    call, value = message
    match value:
        case Executed():
            return _EXECUTED, call, *pack_executed(value)
        case View(seq, epoch, snapshot, life, owner):
            return _VIEW, call, seq, epoch, snapshot, life, owner
        case None:
            return _PONG, call
        case _:
            return _ERROR, call, pack_error(value)


def _read_executed(parts: Parts) -> Answer:
    _, call, replies, entries, owner = parts
    return Answer(read_count(call), read_executed(replies, entries, owner))


def _read_view(parts: Parts) -> Answer:
    _, call, seq, epoch, snapshot, life, owner = parts
    view = View(read_count(seq), read_count(epoch), read_bytes(snapshot), read_text(life), read_text(owner))
    return Answer(read_count(call), view)


def _pack_push(message: Push) -> tuple[Any, ...]:
    subscription, after_seq, entries, owner = message
    return _PUSH, subscription, after_seq, bounded(entries), owner


def _read_push(parts: Parts) -> Push:
    _, subscription, after_seq, entries, owner = parts
    for entry in list_of(entries):
        read_bytes(entry)
    return Push(read_count(subscription), read_count(after_seq), entries, read_text(owner))


_ENCODERS: Mapping[type, Callable[[Any], tuple[Any, ...]]] = {
    ExecuteCall: _pack_execute,
    ReadCall: lambda message: (_READ, *message),
    Subscribe: lambda message: (_SUBSCRIBE, *message),
    More: lambda message: (_MORE, *message),
    LetGo: lambda message: (_LET_GO, bounded(message.watchers)),
    Ping: lambda message: (_PING, *message),
    Answer: _pack_answer,
    Failed: lambda message: (_FAILED, *message),
    Push: _pack_push,
    Ended: lambda message: (_ENDED, message.subscription, pack_error(message.error)),
}
_FROM_CLIENTS: Mapping[int, tuple[int, Callable[[Parts], ToOwner]]] = {
    _EXECUTE: (7, _read_execute),
    _READ: (3, lambda parts: ReadCall(read_count(parts[1]), read_flag(parts[2]))),
    _SUBSCRIBE: (6, _read_subscribe),
    _MORE: (3, lambda parts: More(read_count(parts[1]), read_count(parts[2]))),
    _LET_GO: (2, lambda parts: LetGo(read_texts(parts[1]))),
    _PING: (2, lambda parts: Ping(read_count(parts[1]))),
}
"""The parts of each kind of message to an owner, and who reads them."""
_FROM_OWNERS: Mapping[int, tuple[int, Callable[[Parts], ToClient]]] = {
    _EXECUTED: (5, _read_executed),
    _VIEW: (7, _read_view),
    _ERROR: (3, lambda parts: Answer(read_count(parts[1]), read_error(parts[2]))),
    _PONG: (2, lambda parts: Answer(read_count(parts[1]), None)),
    _FAILED: (3, lambda parts: Failed(read_count(parts[1]), read_text(parts[2]))),
    _PUSH: (5, _read_push),
    _ENDED: (3, lambda parts: Ended(read_count(parts[1]), read_error(parts[2]))),
}
"""The parts of each kind of message to a client, and who reads them."""
