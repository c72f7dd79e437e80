"""What came of a call, as any process tells the conversation: checked first, bounded, and told apart from the last."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from conversation_actors.calls.names import OUTCOME
from conversation_actors.calls.outcome import outcome_of
from conversation_actors.errors import ConflictError, InvalidInputError, ItemTooLargeError, LeaseLostError
from conversation_actors.state import AttributesChanged
from tests.support.fakes import FakeCluster, FaultyStore, brief


class Booking(BaseModel):
    """An application's own outcome."""

    order: str
    resolved: bool = True


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A fake cluster."""
    async with FakeCluster(FaultyStore(), brief()) as fake:
        yield fake


@pytest.mark.parametrize("outcome", [Booking(order="1042"), {"order": "1042", "resolved": True}])
async def test_an_outcome_is_in_the_conversation(cluster: FakeCluster, outcome: Any) -> None:
    """A model as well as a mapping; another process reads it."""
    conversation = await cluster.handle()
    await conversation.set_outcome(outcome)
    other = await cluster.handle()
    assert outcome_of(other.attributes[OUTCOME]) == {"order": "1042", "resolved": True}


async def test_the_same_outcome_of_the_next_call_is_a_change(cluster: FakeCluster) -> None:
    """Of a change of nothing no entry would tell, and the next call would have no outcome."""
    conversation = await cluster.handle()
    await conversation.set_outcome({"resolved": True})
    await conversation.set_outcome({"resolved": True})
    events: list[Any] = []
    async for entry in conversation.watch(after_seq=0):
        events.append(entry.event)
        if entry.seq >= conversation.seq:
            break
    assert [type(event) for event in events] == [AttributesChanged, AttributesChanged]


@pytest.mark.parametrize("outcome", [None, "done", ["done"], {"at": object()}, {"n": float("nan")}, {1: "x"}])
async def test_what_is_no_outcome_is_refused_before_anything_is_sent(cluster: FakeCluster, outcome: Any) -> None:
    """The error names the field."""
    conversation = await cluster.handle()
    with pytest.raises(InvalidInputError):
        await conversation.set_outcome(outcome)
    assert (conversation.seq, conversation.unacknowledged) == (0, 0)


async def test_an_outcome_is_bounded_as_attributes_are(cluster: FakeCluster) -> None:
    """One too large is refused before anything is sent."""
    conversation = await cluster.handle()
    limit = cluster.settings.history.attributes_bytes
    with pytest.raises(ItemTooLargeError):
        await conversation.set_outcome({"text": "x" * limit})
    assert conversation.seq == 0


async def test_a_repeat_of_a_request_is_the_same_whenever_it_comes(cluster: FakeCluster) -> None:
    """The time is no part of what was asked."""
    conversation = await cluster.handle()
    first = await conversation.set_outcome({"resolved": True}, request_id="r1")
    assert await conversation.set_outcome({"resolved": True}, request_id="r1") == first
    with pytest.raises(ConflictError):
        await conversation.set_outcome({"resolved": False}, request_id="r1")


async def test_who_was_deposed_says_nothing_of_the_call(cluster: FakeCluster) -> None:
    """In the name of a lease that another one has."""
    conversation = await cluster.handle()
    lease = await conversation.acquire_lease("agent", holder="job-1", duration=timedelta(minutes=1))
    await conversation.acquire_lease("agent", holder="job-2", duration=timedelta(minutes=1), replacing="job-1")
    with pytest.raises(LeaseLostError):
        await conversation.set_outcome({"resolved": True}, lease=lease)
    assert OUTCOME not in conversation.attributes
