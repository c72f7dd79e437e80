"""What came of a call: said by the application in its job, at any time until the job has ended."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from agent_worker.tenure.conversation import CallConversation
from conversation_actors import ConversationHandle
from conversation_actors.calls.names import OUTCOME
from conversation_actors.calls.outcome import outcome_of
from conversation_actors.errors import InvalidInputError, ItemTooLargeError, StoreUnavailableError
from tests.support.fakes import turns, until
from tests.support.sessions.fakes_call import World


class Booking(BaseModel):
    """The application's model."""

    order: str


async def opened(world: World, holder: str = "job-1") -> CallConversation:
    """A job that is the agent."""
    call = world.call(holder)
    assert await call.open()
    await call.flush()
    return call


async def outcome(world: World) -> Any:
    """What the conversation has, as another process reads it."""
    return outcome_of((await world.cluster.handle()).attributes.get(OUTCOME))


async def test_the_last_outcome_of_a_call_is_in_the_conversation(world: World) -> None:
    """When the job has released it, at the latest."""
    call = await opened(world)
    call.set_outcome({"order": "1"})
    call.set_outcome(Booking(order="2"))
    await call.release()
    assert await outcome(world) == {"order": "2"}


async def test_an_outcome_from_before_the_conversation_was_open_is_kept(world: World) -> None:
    """As whatever is noted meanwhile."""
    world.may_open.clear()
    call = world.call()
    call.set_outcome({"order": "1"})
    world.may_open.set()
    assert await call.open()
    await call.flush()
    assert await outcome(world) == {"order": "1"}


async def test_what_does_not_fit_the_applications_model_is_refused_at_once(world: World) -> None:
    """The one before stays."""
    call = await opened(world)
    call._outcome.kind = Booking
    call.set_outcome({"order": "1"})
    with pytest.raises(InvalidInputError):
        call.set_outcome({"order": None})
    with pytest.raises(ItemTooLargeError):
        call.set_outcome({"order": "x" * world.cluster.settings.history.attributes_bytes})
    await call.flush()
    assert await outcome(world) == {"order": "1"}


async def test_an_outcome_that_comes_after_the_release_is_kept(world: World) -> None:
    """LiveKit begins all callbacks at once: the application's may take longer than ours."""
    call = await opened(world)
    call.set_outcome({"order": "1"})
    await call.release()
    call.set_outcome({"order": "2"})
    await call.aclose()
    assert await outcome(world) == {"order": "2"}
    assert call.failures.counts.get("outcome") is None


async def test_a_job_stays_until_what_came_late_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections are closed after that."""
    call = await opened(world)
    await call.release()
    may_write, write = asyncio.Event(), ConversationHandle.set_attributes

    async def slow(handle: ConversationHandle, changes: Any) -> Any:
        await may_write.wait()
        return await write(handle, changes)

    with monkeypatch.context() as patch:
        patch.setattr(ConversationHandle, "set_attributes", slow)
        call.set_outcome({"order": "1"})
        closing = asyncio.create_task(call.aclose())
        await turns()
        assert world.clients == 1
        may_write.set()
        await closing
    assert world.clients == 0
    assert await outcome(world) == {"order": "1"}


async def test_an_outcome_that_comes_during_the_release_is_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was said before, and had to wait, does not come after it."""
    call = await opened(world)
    changes, keep = call._telling.changes, call._life.keep_record

    async def meanwhile() -> bool:
        changes._may_write.clear()
        call._telling.note(OUTCOME, {"value": {"order": "1"}, "at": 0.0})
        call.set_outcome({"order": "2"})
        await until(lambda: OUTCOME in call.attributes)
        changes._may_write.set()
        await changes.notes_taken()
        return await keep()

    monkeypatch.setattr(call._life, "keep_record", meanwhile)
    await call.release()
    await call.aclose()
    assert await outcome(world) == {"order": "2"}


async def test_the_next_call_does_not_get_the_outcome_of_the_last(world: World) -> None:
    """Whose agent has the conversation by now; that it was not kept is counted, and logged."""
    first = await opened(world)
    await first.release()
    second = await opened(world, "job-2")
    first.set_outcome({"order": "1"})
    await first.aclose()
    assert await outcome(world) is None
    assert first.failures.counts["outcome"] == 1
    assert second.is_open


@pytest.mark.parametrize("way", ["handed over", "ended"])
async def test_a_job_that_has_the_call_no_longer_is_not_heard(
    world: World, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says is counted, and its values are in no log."""
    call = await opened(world)
    if way == "handed over":
        call.left()
        await call.hand_over()
    else:
        await call.release()
        await call.aclose()
    call.set_outcome({"order": "private words"})
    assert call.failures.counts["outcome"] == 1
    assert await outcome(world) is None
    assert "an outcome was not kept" in caplog.text
    assert "private words" not in caplog.text


async def test_a_late_outcome_that_fails_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the job ends all the same."""
    call = await opened(world)
    await call.release()

    async def refused(*_given: Any, **_named: Any) -> None:
        message = "away"
        raise StoreUnavailableError(message)

    with monkeypatch.context() as patch:
        patch.setattr(ConversationHandle, "set_attributes", refused)
        call.set_outcome({"order": "1"})
        await until(lambda: call.failures.counts.get("outcome") == 1)
        await call.aclose()
