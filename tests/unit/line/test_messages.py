"""Messages as bytes: each comes back as it was, and whatever else comes is refused."""

import inspect
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors import errors
from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.items import StoredItem
from conversation_actors.line.fields import MAX_PARTS, field_of
from conversation_actors.line.frames import MAX_FRAME, FrameError, FrameReader, FrameTooLargeError
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
    decode_to_client,
    decode_to_owner,
    encode,
)
from conversation_actors.line.records import COMMANDS, ERRORS
from conversation_actors.protocol import Done, Echo, Execute, Executed, Request, Seen, Turn, View
from conversation_actors.state import AppendItems, Command, Guard, Lease, Participant, ReleaseLease, SetAttributes
from tests.support import strategies
from tests.support.line_messages import TO_CLIENT, TO_OWNER, plain

_counts = st.integers(0, (1 << 64) - 1)
_texts = st.text(max_size=8)
"""Any text, with lone surrogates: an error's sentence may quote anything."""
_seen = st.builds(Seen, _texts, st.none() | _texts)
_objects = st.dictionaries(strategies.json_texts, strategies.json_values, max_size=3)
_commands: st.SearchStrategy[Command] = st.one_of(
    strategies.appends,
    st.builds(AppendItems, st.lists(st.builds(StoredItem, _texts, _texts, _texts, _texts, st.binary())).map(tuple)),
    strategies.participant_commands,
    strategies.lease_commands,
    strategies.other_commands,
    strategies.removals,
    strategies.ending_commands,
    st.builds(SetAttributes, _objects, st.none() | _counts),
)
_requests = st.builds(
    Request,
    _texts,
    _commands,
    st.none() | st.builds(Guard, _texts, st.integers(-(1 << 63), (1 << 64) - 1), _texts, _texts),
    st.booleans(),
    st.none() | _seen,
    st.none() | _texts,
)
_executes = st.builds(
    Execute,
    st.lists(_requests, max_size=3),
    _texts,
    _counts,
    st.none() | _seen,
    st.none() | st.builds(Turn, _texts, _counts, _counts),
)
to_owner: st.SearchStrategy[ToOwner] = st.one_of(
    st.builds(ExecuteCall, _counts, _executes),
    st.builds(ReadCall, _counts, st.booleans()),
    st.builds(Subscribe, _counts, _texts, _counts, _seen, _counts),
    st.builds(More, _counts, _counts),
    st.builds(LetGo, st.lists(_texts, max_size=3).map(tuple)),
    st.builds(Ping, _counts),
)

_numbers = st.floats() | st.integers(-(1 << 63), (1 << 64) - 1)
_attributes = {str: _texts, int: st.integers(-(1 << 63), (1 << 64) - 1), float: _numbers, bool: st.booleans()}


def _errors_of(kind: type[ConversationError]) -> st.SearchStrategy[ConversationError]:
    """Return errors as their own `__init__` makes them."""
    named = {
        one.name: _attributes[one.annotation]
        for one in inspect.signature(kind.__init__).parameters.values()
        if one.kind is one.KEYWORD_ONLY
    }
    return st.builds(kind, _texts, **named)


_errors = st.sampled_from(list(ERRORS.values())).flatmap(lambda one: _errors_of(one.kind))
_participants = st.builds(
    Participant,
    identity=_texts,
    name=_texts,
    metadata=_objects,
    connected=st.booleans(),
    joined_at=_numbers,
    last_seen=_numbers,
    reconnect_count=_counts,
    devices=st.lists(_texts, max_size=3).map(tuple),
    language=st.none() | _texts,
    context=_objects,
    unknown=_objects,
)
_leases = st.builds(Lease, _texts, _texts, _counts, _numbers, _texts)
_replies = st.builds(Done, _counts, _counts, st.none() | _participants | _leases) | _errors
_echoes = st.builds(Echo, _counts, _counts, _numbers, st.none() | _counts, st.lists(_texts, max_size=3).map(tuple))
_executed = st.builds(
    Executed,
    st.lists(_replies, max_size=3).map(tuple),
    st.lists(st.binary() | _echoes, max_size=3).map(tuple),
    _texts,
)
_views = st.builds(View, _counts, _counts, st.binary(), _texts, _texts)
to_client: st.SearchStrategy[ToClient] = st.one_of(
    st.builds(Answer, _counts, _executed | _views | _errors | st.none()),
    st.builds(Failed, _counts, _texts),
    st.builds(Push, _counts, _counts, st.lists(st.binary(), max_size=3).map(tuple), _texts),
    st.builds(Ended, _counts, _errors),
)
_anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=12,
)


def body_of(frame: bytes) -> bytes:
    """Return the body of one frame."""
    (body,) = FrameReader().feed(frame)
    return body


def calling(command: Any) -> bytes:
    """Return a call with one request, whose command is packed as given."""
    packed: bytes = msgpack.packb([1, 1, [["r", command, None, False, None, None]], "w", 1, None, None])
    return packed


@given(to_owner)
def test_message_to_an_owner_comes_back(message: ToOwner) -> None:
    """Whatever a client says, the owner reads; the types are the same too."""
    assert plain(decode_to_owner(body_of(encode(message)))) == plain(message)


@given(to_client)
def test_message_to_a_client_comes_back(message: ToClient) -> None:
    """Whatever an owner says, the client reads; errors keep their attributes."""
    assert plain(decode_to_client(body_of(encode(message)))) == plain(message)


@given(st.binary(max_size=40) | _anything.map(lambda value: msgpack.packb(value, unicode_errors="surrogatepass")))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    """No other error leaves a decoder."""
    for decode in (decode_to_owner, decode_to_client):
        try:
            message = decode(body)
        except FrameError:
            continue
        assert plain(decode(body_of(encode(message)))) == plain(message)


@given(st.sampled_from([*range(1, 7), *range(16, 23)]), st.lists(_anything, min_size=1, max_size=6))
def test_any_parts_of_a_kind_are_a_message_or_refused(kind: int, parts: list[Any]) -> None:
    """The right kind, and anything in it."""
    body = msgpack.packb([kind, *parts], unicode_errors="surrogatepass")
    for decode in (decode_to_owner, decode_to_client):
        try:
            message = decode(body)
        except FrameError:
            continue
        assert plain(decode(body_of(encode(message)))) == plain(message)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="a byte that means nothing"),
        pytest.param(b"\x92\x06", id="cut off"),
        pytest.param(msgpack.packb([6, 1]) + b"\x01", id="something behind"),
        pytest.param(b"\x91" * 100_000, id="nested deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four thousand millions"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="a text of four thousand million bytes"),
        pytest.param(msgpack.packb({1: 2}), id="a map"),
        pytest.param(msgpack.packb([6, {}]), id="an empty map"),
        pytest.param(msgpack.packb([6, msgpack.ExtType(5, b"")]), id="a type of somebody else's"),
        pytest.param(msgpack.packb([6, msgpack.Timestamp(1)]), id="a time"),
        pytest.param(msgpack.packb([6]), id="too few parts"),
        pytest.param(msgpack.packb([6, 1, 1]), id="too many parts"),
        pytest.param(msgpack.packb([6, True]), id="a truth for a number"),
        pytest.param(msgpack.packb([6, -1]), id="a negative number"),
        pytest.param(msgpack.packb([6.0, 1]), id="a kind with a point"),
        pytest.param(msgpack.packb([True, 1]), id="a truth for a kind"),
        pytest.param(msgpack.packb([3, 1, "w", 1, "ab", 1]), id="text for a pair"),
        pytest.param(msgpack.packb([5, "ab"]), id="text for a list"),
        pytest.param(calling(["Exec", []]), id="an unknown command"),
        pytest.param(calling(["AppendItems", []]), id="an append by name"),
        pytest.param(calling(["SetAttributes", [b"[1]", None]]), id="a list for an object"),
        pytest.param(calling(["SetAttributes", [b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", None]]), id="deep JSON"),
        pytest.param(calling(["SetAttributes", [b'{"a":1e999}', None]]), id="an infinite number"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """With the one error that says so, in both directions."""
    for decode in (decode_to_owner, decode_to_client):
        with pytest.raises(FrameError):
            decode(body)


def test_a_message_of_the_other_direction_is_refused() -> None:
    """A client does not answer, and an owner does not ask."""
    for to_client_message in TO_CLIENT.values():
        with pytest.raises(FrameError, match="comes this way"):
            decode_to_owner(body_of(encode(to_client_message)))
    for to_owner_message in TO_OWNER.values():
        with pytest.raises(FrameError, match="comes this way"):
            decode_to_client(body_of(encode(to_owner_message)))


def test_a_refusal_tells_nothing_of_what_came() -> None:
    """It goes to a log, and what came may be somebody's words."""
    body = msgpack.packb([1, 1, "my secret", "w", 1, None, None])
    with pytest.raises(FrameError) as refused:
        decode_to_owner(body)
    assert "my secret" not in str(refused.value)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Answer(1, View(1, 1, bytes(MAX_FRAME))), id="a large one"),
        pytest.param(LetGo(("w",) * (MAX_PARTS + 1)), id="many watchers"),
        pytest.param(Push(1, 1, (b"",) * (MAX_PARTS + 1), "o"), id="many entries"),
        pytest.param(Answer(1, Executed((), (Echo(1, 1, 1.0, None, ("i",) * (MAX_PARTS + 1)),))), id="many that left"),
        pytest.param(Answer(1, Executed((Done(1, 1),) * (MAX_PARTS + 1), ())), id="many replies"),
        pytest.param(
            ExecuteCall(1, Execute([Request("r", ReleaseLease("agent", "w", 1 << 64))], "w", 1)),
            id="an integer of 65 bits",
        ),
        pytest.param(
            ExecuteCall(1, Execute([Request("r", SetAttributes({"a": object()}))], "w", 1)), id="what is no JSON"
        ),
        pytest.param(ExecuteCall(1, Execute([Request("r", SetAttributes({"a": "\ud800"}))], "w", 1)), id="no UTF-8"),
    ],
)
def test_what_no_reader_would_take_is_not_sent(message: ToOwner | ToClient) -> None:
    """It goes by Ray's call, and the line stays."""
    with pytest.raises(FrameTooLargeError):
        encode(message)


def test_as_many_parts_as_are_sent_are_read() -> None:
    """The limit is the same on both sides."""
    message = LetGo(("",) * MAX_PARTS)
    assert decode_to_owner(body_of(encode(message))) == message


def test_an_error_of_another_program_travels_as_the_nearest_that_is_known() -> None:
    """As a class that the other side has."""

    class OwnError(InvalidInputError):
        pass

    answer = decode_to_client(body_of(encode(Answer(1, OwnError("no", field="a")))))
    assert plain(answer) == plain(Answer(1, InvalidInputError("no", field="a")))


def test_every_command_and_every_error_can_travel() -> None:
    """One that could not would go by Ray's call for ever, and nobody would see why."""
    defined = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ConversationError)
    }
    assert set(ERRORS) == defined
    assert {*COMMANDS, "AppendItems"} == {kind.__name__ for kind in get_args(Command)}


def test_a_field_of_a_new_type_is_noticed() -> None:
    """When the module is imported, and not when somebody sends it."""
    with pytest.raises(TypeError, match="travels as"):
        field_of(set[str])


def test_rows_are_read_in_the_order_in_which_records_have_their_fields() -> None:
    """These are read by hand, for speed: a new field of theirs must not be forgotten."""
    assert [len(kind._fields) for kind in (StoredItem, Guard, Seen, Turn, Echo)] == [5, 4, 2, 3, 5]
    assert Request.__slots__ == ("request_id", "command", "lease", "is_group", "seen", "digest")
    assert Execute.__slots__ == ("requests", "watcher", "after_seq", "seen", "turn")
    assert Executed.__slots__ == ("replies", "entries", "owner")
    assert View.__slots__ == ("seq", "epoch", "snapshot", "life", "owner")
    assert Done.__slots__ == ("seq", "epoch", "result")
