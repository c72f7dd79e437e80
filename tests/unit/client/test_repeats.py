"""Repeats through the handle: the first answer for the same content, a conflict for other content."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from conversation_actors.client import ConversationHandle
from conversation_actors.errors import ConflictError
from conversation_actors.items import Message
from conversation_actors.state import Lease, Participant
from conversation_actors.state.conversation import MAX_RESULTS
from tests.support.fakes import FakeCluster, FaultyStore, brief, stored

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A fake cluster that remembers few participants."""
    async with FakeCluster(FaultyStore(), brief(participants=2, requests=500)) as fake:
        yield fake


def say(text: str) -> Message:
    """A message as a process makes it that knows no id for it."""
    return Message(role="user", content=text)


def texts(conversation: ConversationHandle) -> list[str]:
    """What was said."""
    return [item.text for item in conversation.items if isinstance(item, Message)]


Ask = Callable[[ConversationHandle], Awaitable[object]]


def _lease(holder: str, **other: str) -> Ask:
    return lambda it: it.acquire_lease("agent", holder=holder, duration=MINUTE, request_id="r", **other)


OTHER_CONTENT: dict[str, tuple[Ask, Ask]] = {
    "append": (
        lambda it: it.append(say("one"), request_id="r"),
        lambda it: it.append(say("two"), request_id="r"),
    ),
    "append of more": (
        lambda it: it.append(say("one"), request_id="r"),
        lambda it: it.append(say("one"), say("two"), request_id="r"),
    ),
    "append in another order": (
        lambda it: it.append(say("one"), say("two"), request_id="r"),
        lambda it: it.append(say("two"), say("one"), request_id="r"),
    ),
    "join of another": (lambda it: it.join("al", request_id="r"), lambda it: it.join("bo", request_id="r")),
    "join with metadata": (
        lambda it: it.join("al", metadata={"a": 1}, request_id="r"),
        lambda it: it.join("al", metadata={"a": 1.0}, request_id="r"),
    ),
    "leave": (
        lambda it: it.leave("al", request_id="r"),
        lambda it: it.leave("al", device_id="web", request_id="r"),
    ),
    "attributes": (
        lambda it: it.set_attributes({"a": 1}, request_id="r"),
        lambda it: it.set_attributes({"a": None}, request_id="r"),
    ),
    "lease": (_lease("one"), _lease("two", replacing="one")),
    "summary": (
        lambda it: it.set_summary("one", through_seq=0, request_id="r"),
        lambda it: it.set_summary("two", through_seq=0, request_id="r"),
    ),
    "retention": (
        lambda it: it.set_retention(MINUTE, request_id="r"),
        lambda it: it.set_retention(None, request_id="r"),
    ),
    "closing": (
        lambda it: it.close_conversation("one", request_id="r"),
        lambda it: it.close_conversation("two", request_id="r"),
    ),
}


@pytest.mark.parametrize(("first", "second"), OTHER_CONTENT.values(), ids=OTHER_CONTENT)
async def test_other_content_is_a_conflict(cluster: FakeCluster, first: Ask, second: Ask) -> None:
    """Under a request id that stands for something else it is refused, changes nothing, and the first stays good."""
    conversation = await cluster.handle()
    answer = await first(conversation)
    before = conversation.seq
    with pytest.raises(ConflictError, match=r"'r' was used at \d+ for other content"):
        await second(conversation)
    assert await first(conversation) == answer
    assert conversation.seq == before


@pytest.mark.parametrize("how", ["alive", "killed", "passivated"])
async def test_other_content_is_found_after_recovery(cluster: FakeCluster, how: str) -> None:
    """By an heir who knows the first from the journal or from a snapshot; never stored, never acknowledged."""
    conversation = await cluster.handle()
    receipt = await conversation.append(say("one"), request_id="r")
    if how == "killed":
        await cluster.kill()
    if how == "passivated":
        await conversation.passivate()
    with pytest.raises(ConflictError):
        await conversation.append(say("two"), request_id="r")
    assert await conversation.append(say("one"), request_id="r") == receipt
    assert texts(conversation) == ["one"]


async def test_same_content_of_another_process(cluster: FakeCluster) -> None:
    """It builds the message anew, with another automatic id and time, and gets the first receipt."""
    one, two = await cluster.handle(), await cluster.handle()
    receipt = await one.append(say("hello"), request_id="r")
    assert await two.append(say("hello"), request_id="r") == receipt
    assert len(one.items) == 1


async def test_id_that_was_given_is_content(cluster: FakeCluster) -> None:
    """Two messages that an application named differently are two."""
    conversation = await cluster.handle()
    await conversation.append(Message(id="m1", role="user", content="hello"), request_id="r")
    with pytest.raises(ConflictError):
        await conversation.append(Message(id="m2", role="user", content="hello"), request_id="r")


async def test_preconditions_are_no_content(cluster: FakeCluster) -> None:
    """A repeat that expects another position, or comes in the name of a lease, is the same request."""
    conversation = await cluster.handle()
    lease = await conversation.acquire_lease("agent", holder="me", duration=MINUTE)
    receipt = await conversation.set_attributes({"a": 1}, expected_seq=0, request_id="r")
    again = await conversation.set_attributes({"a": 1}, expected_seq=1, request_id="r", lease=lease)
    assert again == receipt


# Results that are not remembered any more


async def _forget(conversation: ConversationHandle, *identities: str) -> None:
    """They leave, two others take their places, and too many joins are remembered since."""
    for identity in identities:
        await conversation.leave(identity)
    for number in range(MAX_RESULTS + 1):
        await conversation.join(f"other{number % 2}", device_id=f"d{number % 3}")
    assert not set(identities) & set(conversation.participants)


async def test_repeated_join_of_a_forgotten_participant(cluster: FakeCluster) -> None:
    """Answers with the participant as it was described, gone since; nothing is changed."""
    conversation = await cluster.handle()
    joined = await conversation.join("al", name="Al", metadata={"vip": True}, language="de", request_id="r")
    await _forget(conversation, "al")
    before = conversation.seq
    again = await conversation.join("al", name="Al", metadata={"vip": True}, language="de", request_id="r")
    assert again == Participant(
        identity="al",
        name="Al",
        metadata={"vip": True},
        language="de",
        joined_at=joined.joined_at,
        last_seen=joined.joined_at,
    )
    assert (conversation.seq, "al" in conversation.participants) == (before, False)


async def test_repeated_update_of_a_forgotten_participant(cluster: FakeCluster) -> None:
    """The same; what the update said nothing of is empty."""
    conversation = await cluster.handle()
    await conversation.join("al", name="Al")
    updated = await conversation.update_participant("al", context={"order": 7}, request_id="r")
    await _forget(conversation, "al")
    again = await conversation.update_participant("al", context={"order": 7}, request_id="r")
    assert again == Participant(
        identity="al", context={"order": 7}, joined_at=updated.last_seen, last_seen=updated.last_seen
    )


async def test_repeated_leave_of_a_forgotten_participant(cluster: FakeCluster) -> None:
    """As of one who was never known: None."""
    conversation = await cluster.handle()
    await conversation.join("al")
    await conversation.leave("al", request_id="r")
    await _forget(conversation, "al")
    assert await conversation.leave("al", request_id="r") is None


async def test_lease_under_a_request_id_that_was_forgotten(cluster: FakeCluster) -> None:
    """Its result stays, although the id had once stood for a join, whose result would be dropped by now."""
    conversation = await cluster.handle()
    await conversation.join("al", request_id="r")
    for number in range(500):
        await conversation.set_attributes({"n": number})
    lease = await conversation.acquire_lease("agent", holder="me", duration=MINUTE, request_id="r")
    for number in range(MAX_RESULTS):
        await conversation.join("al", device_id=f"d{number % 3}")
    again = await conversation.acquire_lease("agent", holder="me", duration=MINUTE, request_id="r")
    assert isinstance(again, Lease)
    assert again == lease


async def test_recovered_memory_names_commands_as_the_journal_does(cluster: FakeCluster) -> None:
    """One table of names: what stands in a snapshot is what `redis-cli` shows of the journal."""
    conversation = await cluster.handle()
    await conversation.append(say("one"), request_id="r1")
    await conversation.set_attributes({}, request_id="r2")
    await conversation.passivate()
    state, _ = await stored(cluster.store)
    assert [kept.kind for kept in state.requests.values()] == ["items_appended", "attributes_changed"]
