"""Bad input: a typed error in the caller's process that names the field and the limit, and nothing is sent."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from conversation_actors.client import ConversationHandle, arguments
from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.items import FunctionCall, FunctionCallOutput, Message, item_from_dict
from conversation_actors.state import Guard, Lease, Limits, ReleaseLease
from tests.support.fakes import FakeCluster, FaultyStore, brief

DEEP: Any = [[]]
for _ in range(40):
    DEEP = [DEEP]

Call = Callable[[ConversationHandle], Awaitable[Any]]


class Colour(StrEnum):
    """Text of a type that another process may not know."""

    RED = "red"


def say(text: str = "hello") -> Message:
    """A message."""
    return Message(role="user", content=text)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A fake cluster with small limits."""
    settings = brief(item_bytes=1000, bytes=4096, participant_bytes=512, attributes_bytes=512)
    async with FakeCluster(FaultyStore(), settings) as fake:
        yield fake


SECOND = timedelta(seconds=1)
LEASE = Lease("agent", "me", 1, 2.0)

BAD: dict[str, tuple[Call, str, str]] = {
    "no items": (lambda c: c.append(), "items", "1 to 1000"),
    "too many items": (lambda c: c.append(*[say()] * 1001), "items", "1 to 1000"),
    "not an item": (lambda c: c.append({"role": "user"}), "items", "dict"),  # type: ignore[arg-type]
    "an item over the bound": (lambda c: c.append(say("x" * 2000)), "Message", "limit is 1000"),
    "items over the bound": (lambda c: c.append(*[say("x" * 800)] * 5), "items", "limit is 4096"),
    "a lone surrogate": (lambda c: c.append(say("\ud800")), "Message", "surrogate"),
    "not a number": (
        lambda c: c.append(Message(role="user", content="", extra={"a": [float("nan")]})),
        "Message.extra.a[0]",
        "nan",
    ),
    "an empty request id": (lambda c: c.append(say(), request_id=""), "request_id", "1 to 256"),
    "a long request id": (lambda c: c.append(say(), request_id="x" * 257), "request_id", "1 to 256"),
    "a request id of bytes": (lambda c: c.append(say(), request_id=b"r"), "request_id", "bytes"),  # type: ignore[arg-type]
    "an empty identity": (lambda c: c.join(""), "identity", "1 to 256"),
    "an unprintable identity": (lambda c: c.join("a\nb"), "identity", "control"),
    "a numeric identity": (lambda c: c.join(7), "identity", "int"),  # type: ignore[arg-type]
    "a surrogate identity": (lambda c: c.join("\udc80"), "identity", "surrogate"),
    "a name of a wrong type": (lambda c: c.join("al", name=7), "name", "int"),  # type: ignore[arg-type]
    "a long name": (lambda c: c.join("al", name="x" * 600), "name", "limit is 512"),
    "an empty device": (lambda c: c.join("al", device_id=""), "device_id", "1 to 256"),
    "metadata of a wrong type": (lambda c: c.join("al", metadata=[1]), "metadata", "list"),  # type: ignore[arg-type]
    "metadata with NaN": (lambda c: c.join("al", metadata={"a": {"b": float("nan")}}), "metadata.a.b", "nan"),
    "deep metadata": (lambda c: c.join("al", metadata={"a": DEEP}), "metadata.a[0]", "32 deep"),
    "large metadata": (lambda c: c.join("al", metadata={"a": "x" * 600}), "metadata", "limit is 512"),
    "metadata with bytes": (lambda c: c.join("al", metadata={"a": b"x"}), "metadata.a", "bytes"),
    "metadata with a wrong key": (lambda c: c.join("al", metadata={1: 1}), "metadata", "key 1"),  # type: ignore[dict-item]
    "a huge integer": (lambda c: c.join("al", metadata={"a": 1 << 70}), "metadata.a", "64 bits"),
    "a language of a wrong type": (lambda c: c.join("al", language=b"de"), "language", "bytes"),  # type: ignore[arg-type]
    "nobody leaves": (lambda c: c.leave(""), "identity", "1 to 256"),
    "leaves with a bad device": (lambda c: c.leave("al", device_id="\0"), "device_id", "control"),
    "context of a wrong type": (lambda c: c.update_participant("al", context="x"), "context", "str"),  # type: ignore[arg-type]
    "large context": (lambda c: c.update_participant("al", context={"a": "x" * 600}), "context", "limit is 512"),
    "attributes of a wrong type": (lambda c: c.set_attributes("x"), "attributes", "str"),  # type: ignore[arg-type]
    "a bad attribute name": (lambda c: c.set_attributes({"": 1}), "attributes", "1 to 256"),
    "a numeric attribute name": (lambda c: c.set_attributes({1: 1}), "attributes", "int"),  # type: ignore[dict-item]
    "an attribute with NaN": (lambda c: c.set_attributes({"a": float("inf")}), "attributes.a", "inf"),
    "large attributes": (lambda c: c.set_attributes({"a": "x" * 600}), "attributes", "limit is 512"),
    "a negative position": (lambda c: c.set_attributes({}, expected_seq=-1), "expected_seq", "-1"),
    "a position of a wrong type": (lambda c: c.set_attributes({}, expected_seq=True), "expected_seq", "True"),
    "a lease without end": (lambda c: c.acquire_lease("a", holder="h", duration=30), "duration", "int"),  # type: ignore[arg-type]
    "a negative lease": (lambda c: c.acquire_lease("a", holder="h", duration=-SECOND), "duration", "1 day"),
    "a lease of no time": (lambda c: c.acquire_lease("a", holder="h", duration=SECOND * 0), "duration", "1 day"),
    "a long lease": (lambda c: c.acquire_lease("a", holder="h", duration=timedelta(days=2)), "duration", "1 day"),
    "a lease without name": (lambda c: c.acquire_lease("", holder="h", duration=SECOND), "name", "1 to 256"),
    "a lease without holder": (lambda c: c.acquire_lease("a", holder="", duration=SECOND), "holder", "1 to 256"),
    "a lease that replaces nobody": (
        lambda c: c.acquire_lease("a", holder="h", duration=SECOND, replacing=""),
        "replacing",
        "1 to 256",
    ),
    "a write in the name of no lease": (lambda c: c.append(say(), lease="agent"), "lease", "str"),  # type: ignore[arg-type]
    "no lease at all": (lambda c: c.release_lease("agent"), "lease", "str"),  # type: ignore[arg-type]
    "a summary of a wrong type": (lambda c: c.set_summary(None, through_seq=1), "text", "NoneType"),  # type: ignore[arg-type]
    "a long summary": (lambda c: c.set_summary("x" * 1001, through_seq=1), "text", "limit is 1000"),
    "a summary of the future": (lambda c: c.set_summary("x", through_seq=1.5), "through_seq", "1.5"),  # type: ignore[arg-type]
    "a retention of no time": (lambda c: c.set_retention(SECOND * 0.9), "duration", "366 days"),
    "a retention for ever": (lambda c: c.set_retention(timedelta(days=367)), "duration", "366 days"),
    "a retention without unit": (lambda c: c.set_retention(60), "duration", "int"),  # type: ignore[arg-type]
    "a long reason": (lambda c: c.close_conversation("x" * 600), "reason", "limit is 512"),
    "a reason of a wrong type": (lambda c: c.close_conversation(7), "reason", "int"),  # type: ignore[arg-type]
    "a watch from before the start": (lambda c: anext(c.watch(after_seq=-1)), "after_seq", "-1"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input(cluster: FakeCluster, case: str) -> None:
    """A mistake is an error with the field and the limit; no owner hears of it, and the next call works."""
    call, field, told = BAD[case]
    conversation = await cluster.handle()
    with pytest.raises(InvalidInputError) as error:
        await call(conversation)
    assert error.value.field.startswith(field)
    assert told in str(error.value)
    assert isinstance(error.value, ItemTooLargeError) == ("limit is" in told)
    assert cluster.calls["execute"] == 0
    assert conversation.unacknowledged == 0
    assert (await conversation.append(say())).seq == 1


async def test_recording_is_checked_as_well(cluster: FakeCluster) -> None:
    """`record` raises on the spot, and leaves nothing for a flush to tell."""
    conversation = await cluster.handle()
    with pytest.raises(ItemTooLargeError) as error:
        conversation.record(say("x" * 2000))
    assert error.value.limit == 1000
    with pytest.raises(InvalidInputError):
        conversation.record()
    with pytest.raises(InvalidInputError) as wrong:
        conversation.record(say(), lease=("agent", 1))  # type: ignore[arg-type]
    assert wrong.value.field == "lease"
    await conversation.flush()
    assert cluster.calls["execute"] == 0


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Message(role="tutor", content=""), "role"),  # type: ignore[arg-type]
        (lambda: Message(role="user", content=7), "content"),  # type: ignore[arg-type]
        (lambda: Message(role="user", content="", tone="x"), "tone"),  # type: ignore[call-arg]
        (lambda: Message(role="user", content="", id=""), "id"),
        (lambda: Message(role="user", content="", created_at=float("nan")), "created_at"),
        (lambda: FunctionCall(call_id="", name="f", arguments=""), "call_id"),
        (lambda: FunctionCallOutput(call_id="c", output=None), "output"),  # type: ignore[arg-type]
        (lambda: item_from_dict({"content": ""}), "type"),
    ],
)
def test_an_item_cannot_be_made_wrong(make: Callable[[], object], field: str) -> None:
    """A wrong item is told where it is made."""
    with pytest.raises(InvalidInputError) as error:
        make()
    assert error.value.field == field
    assert field in str(error.value)


async def test_what_was_checked_is_what_is_sent(cluster: FakeCluster) -> None:
    """Values are taken as they are at the call: changing them afterwards, before they are sent, changes nothing."""
    conversation = await cluster.handle()
    nested: dict[str, Any] = {"list": [1]}
    setting = asyncio.create_task(conversation.set_attributes({"a": nested}))
    joining = asyncio.create_task(conversation.join("al", metadata=nested))
    await asyncio.sleep(0)
    nested["list"].append(float("nan"))
    await asyncio.gather(setting, joining)
    assert conversation.attributes == {"a": {"list": [1]}}
    assert conversation.participants["al"].metadata == {"list": [1]}


@pytest.mark.parametrize("given", [OrderedDict(a=Colour.RED), MappingProxyType({"a": Colour.RED})])
def test_values_are_plain(given: Mapping[str, Any]) -> None:
    """Mappings and texts of any type are sent as plain ones, which every process can read."""
    limits = Limits()
    joined = arguments.join("al", None, limits, name=None, metadata=given, language=None)
    changes = arguments.set_attributes(given, None, limits).changes
    for made in (joined.metadata, changes):
        assert made is not None
        assert (type(made), type(made["a"]), made) == (dict, str, {"a": "red"})


def test_good_input() -> None:
    """What is within its limits becomes the command it looks like; None leaves out what it stands for."""
    limits = Limits()
    joined = arguments.join("al", None, limits, name=None, metadata=None, language=None)
    assert (joined.identity, joined.device_id, joined.name, joined.metadata) == ("al", "default", None, None)
    assert arguments.leave("al", None).device_id is None
    assert arguments.set_attributes({"a": None}, 3, limits).changes == {"a": None}
    assert arguments.acquire_lease("agent", "me", timedelta(days=1)).duration == 86_400.0
    assert arguments.acquire_lease("agent", "me", timedelta(days=1), "you").replacing == "you"
    assert arguments.release_lease(Lease("agent", "me", 0, 1.0, "b")) == ReleaseLease("agent", "me", 0, "b")
    assert arguments.guard(Lease("agent", "me", 7, 1.0, "b")) == Guard("agent", 7, "me", "b")
    assert arguments.guard(None) is None
    assert (arguments.set_retention(SECOND).seconds, arguments.set_retention(None).seconds) == (1.0, None)
    assert arguments.set_summary("", 0, limits).through_seq == 0
    assert len(arguments.append_items([say()] * 1000, Limits(bytes=1 << 20)).items) == 1000
