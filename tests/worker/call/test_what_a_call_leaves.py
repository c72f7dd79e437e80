"""What a job's end leaves in the conversation: why the call ended, what came of it, and what its models have used."""

import asyncio
import inspect
import time
from dataclasses import replace
from typing import Any

import pytest
from livekit import rtc
from livekit.agents.ipc import job_proc_lazy_main
from livekit.agents.llm import ChatMessage
from livekit.agents.metrics import AgentSessionUsage, LLMModelUsage
from livekit.agents.voice.events import SessionUsageUpdatedEvent
from pydantic import BaseModel

from agent_worker.call.attach import attach
from agent_worker.call.end_callbacks import CALLBACK_TASK
from agent_worker.call.opening import JOB_CRASHED, NOT_FINISHED, ROOM_LOST, WORKER_GONE, open_conversation
from agent_worker.offline import OfflineServer
from agent_worker.tenure.assignment import Assignment
from agent_worker.timing import TIMING
from conversation_actors.calls import CallFold, Happening, SessionRecord
from conversation_actors.calls.happenings import SESSION_RECORDED
from conversation_actors.calls.names import CALL, COMPLETED, LEFT, OUTCOME, USAGE
from conversation_actors.calls.outcome import outcome_of
from conversation_actors.calls.record import HANDED_OVER, RELEASED
from conversation_actors.errors import InvalidInputError
from tests.support.fakes import turns, until
from tests.support.sessions.answering import GREETING, LATE, Answer, Running
from tests.support.sessions.fake_livekit import FakeJob, fake_job
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
from tests.worker.conftest import SessionFactory

METADATA = '{"conversation_id": "c"}'


class Booking(BaseModel):
    """The application's model."""

    order: str


async def noted(world: World, name: str = CALL) -> Any:
    """What the conversation has under this name, as another process reads it."""
    return (await world.cluster.handle()).attributes.get(name)


# Why it ended


async def test_a_room_that_everybody_has_left(answer: Answer, world: World) -> None:
    """Nobody came back in time; our own words for that are nobody's reason."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=0.02) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        await running.ended()
        await running.call.release()
    end = await noted(world)
    assert end["ended"] == LEFT
    assert "reason" not in end


async def test_an_application_that_ends_its_job_says_why(answer: Answer, world: World) -> None:
    """While the caller is there."""
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.hears(GREETING)
        running.job.context.shutdown("the order is placed")
        await running.call.release()
    end = await noted(world)
    assert (end["ended"], end["reason"]) == (COMPLETED, "the order is placed")


@pytest.mark.usefixtures("job_environment")
@pytest.mark.parametrize(
    ("reason", "told"),
    [("nobody answers the telephone", "nobody answers the telephone"), ("user requested", None), ("", None)],
)
async def test_an_application_that_ends_its_job_before_it_has_a_session(
    world: World, reason: str, told: str | None
) -> None:
    """A call that nobody took."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        await open_conversation(job.context)
        await job.shut_down(reason)
    end = await noted(world)
    assert (end["ended"], end.get("reason")) == (COMPLETED, told)


@pytest.mark.usefixtures("job_environment")
async def test_a_room_that_was_deleted_is_no_word_of_the_application(world: World) -> None:
    """LiveKit calls it lost."""
    room = FakeRoom()
    with fake_job(room, metadata=METADATA) as job:
        await open_conversation(job.context)
        room.emit("disconnected", rtc.DisconnectReason.ROOM_DELETED)
        await job.shut_down(ROOM_LOST)
    end = await noted(world)
    assert (end["ended"], "reason" in end) == (COMPLETED, False)


@pytest.mark.usefixtures("job_environment")
@pytest.mark.parametrize("reason", [NOT_FINISHED, JOB_CRASHED, ROOM_LOST, WORKER_GONE])
async def test_a_job_that_leaves_a_call_which_goes_on_notes_no_end(world: World, reason: str) -> None:
    """The next agent is called."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        await open_conversation(job.context)
        await job.shut_down(reason)
    assert await noted(world) is None


# What came of it


@pytest.mark.usefixtures("job_environment")
async def test_attach_takes_the_applications_model(
    world: World, server: OfflineServer, new_session: SessionFactory
) -> None:
    """And refuses what does not fit, before anything is noted."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        conversation = await attach(await new_session(server), job.context, outcome=Booking)
        with pytest.raises(InvalidInputError):
            conversation.set_outcome({"order": 1042})
        assert await noted(world, OUTCOME) is None
        conversation.set_outcome({"order": "1042"})
        await job.shut_down("done")
    assert outcome_of(await noted(world, OUTCOME)) == {"order": "1042"}


async def test_a_fake_job_checks_an_outcome_too(server: OfflineServer, new_session: SessionFactory) -> None:
    """In a test of the application; nothing is kept."""
    with fake_job(FakeRoom()) as job:
        job.context.is_fake_job = lambda: True  # type: ignore[method-assign]
        conversation = await attach(await new_session(server), job.context, outcome=Booking)
        conversation.set_outcome(Booking(order="1042"))
        with pytest.raises(InvalidInputError):
            conversation.set_outcome({})
        await job.shut_down("")


async def shutting_down(job: FakeJob) -> "asyncio.Task[None]":
    """A job that has begun to end, whose other callbacks go on."""
    ending = asyncio.create_task(job.shut_down("done"))
    await turns()
    return ending


@pytest.mark.usefixtures("job_environment")
async def test_a_callback_at_the_jobs_end_may_take_its_time_for_the_outcome(world: World) -> None:
    """LiveKit begins them all at once; the lease goes back meanwhile, so that the caller may call again."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        conversation, is_known = await open_conversation(job.context), asyncio.Event()

        async def tell() -> None:
            await is_known.wait()
            conversation.set_outcome({"order": "1042"})

        job.context.add_shutdown_callback(tell)
        ending = await shutting_down(job)
        await until(lambda: conversation._standing.is_released)
        is_known.set()
        await asyncio.wait_for(ending, LATE)
    assert outcome_of(await noted(world, OUTCOME)) == {"order": "1042"}


@pytest.mark.usefixtures("job_environment")
async def test_a_callback_that_hangs_keeps_no_conversation_open(world: World) -> None:
    """Nor do two conversations of one job wait for each other."""
    timing = replace(TIMING, end_callbacks=0.02)
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        conversation, is_let_go = await open_conversation(job.context, timing=timing), asyncio.Event()

        async def hang() -> None:
            await is_let_go.wait()

        job.context.add_shutdown_callback(hang)
        ending = await shutting_down(job)
        await until(lambda: world.clients == 0)
        assert conversation.is_over
        assert not ending.done()
        is_let_go.set()
        await asyncio.wait_for(ending, LATE)


def test_livekit_still_names_its_callbacks_as_we_know_it() -> None:
    """A new version that names them otherwise would have nobody waited for."""
    assert f'name="{CALLBACK_TASK}"' in inspect.getsource(job_proc_lazy_main)


# What its models have used


def use(running: Running, tokens: int) -> None:
    """The model has used so much by now, all in all."""
    model = LLMModelUsage(provider="p", model="m", input_tokens=tokens)
    running.session.emit("session_usage_updated", SessionUsageUpdatedEvent(usage=AgentSessionUsage([model])))


def used(attribute: Any) -> tuple[str, int]:
    """Who has used how much."""
    return ("", 0) if attribute is None else (attribute["holder"], attribute["models"][0]["input_tokens"])


async def test_what_was_used_up_to_the_sessions_end_is_noted(answer: Answer, world: World) -> None:
    """Recognisers and voices tell the rest when they are closed, later than the call is over."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=0.02, greeting="") as running:
        await running.session_is_calm()
        use(running, 7)
        running.room.exit(alice)
        await running.ended()
        await until(lambda: used(running.call.attributes.get(USAGE)) == ("job-1", 7))
        use(running, 9)
        await running.session.aclose()
        await running.call.release()
    assert used(await noted(world, USAGE)) == ("job-1", 9)


async def test_what_was_used_before_a_handover_is_noted(answer: Answer, world: World) -> None:
    """By the job that has used it; the successor counts from nothing."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session_is_calm()
        use(running, 7)
        running.call.handover_asked.set()
        assert await running.ended() == "handed over"
    assert used(await noted(world, USAGE)) == ("job-1", 7)


# What the record of the call is made of


async def test_the_record_of_a_call_has_what_its_jobs_have_noted(answer: Answer, world: World) -> None:
    """Through a handover: both jobs' usage, the outcome of the first, and the words of the second for the end."""
    alice = FakeParticipant("alice")
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    async with answer(FakeRoom(alice), greeting="") as first:
        await first.session_is_calm()
        await first.session.generate_reply(user_input="Where is my order?")
        first.call.set_outcome({"order": "1042"})
        use(first, 7)
        async with answer(FakeRoom(alice), "job-2", assignment=planned, greeting="", waits=False) as second:
            await second.starting
            await second.session_is_calm()
            use(second, 5)
            second.job.context.shutdown("the order is placed")
            await second.session.aclose()
            await second.call.release()
    (record,) = await records(world)
    assert (record.end_reason, record.end_text) == (COMPLETED, "the order is placed")
    assert record.outcome == {"order": "1042"}
    assert (record.take_overs, record.crashes, record.turns) == (1, 0, 1)
    assert [(agent.holder, agent.end) for agent in record.agents] == [("job-1", HANDED_OVER), ("job-2", RELEASED)]
    assert [model["input_tokens"] for model in record.usage if model["provider"] == "p"] == [12]
    assert record.latency["llm_node_ttft"].turns == 1


async def records(world: World) -> list[SessionRecord]:
    """The records of all calls, as long after them as it takes."""
    handle = await world.cluster.handle()
    fold, last = CallFold("c", "life", idle=600.0), handle.seq
    happenings: list[Happening] = []
    async for entry in handle.watch(after_seq=0):
        happenings += fold.take(entry)
        if entry.seq >= last:
            break
    happenings += fold.pass_time(time.time() + 3600)
    return [SessionRecord.from_dict(one.data) for one in happenings if one.type == SESSION_RECORDED]


# What is measured of each message


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_what_was_measured_of_a_message_is_stored_with_it(answer: Answer, role: Any) -> None:
    """And whether it was interrupted: the call's record is made of that."""
    measured: Any = {"started_speaking_at": 1.0, "stopped_speaking_at": 2.5, "e2e_latency": 0.25, "llm_node_ttft": 0.1}
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session_is_calm()
        message = ChatMessage(role=role, content=["Hello"], interrupted=True, metrics=measured)
        running.session._conversation_item_added(message)
        await running.is_known("Hello")
        stored = running.call.items[-1].to_dict()
        assert stored["metrics"] == measured
        assert stored["interrupted"] is True


async def test_a_turn_is_stored_with_what_livekit_has_measured(answer: Answer) -> None:
    """As LiveKit itself gives it, in a session without a voice."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session_is_calm()
        speech = running.session.generate_reply(user_input="Where is my order?")
        await speech
        await running.call.flush()
        last = running.call.items[-1].to_dict()
        assert last["role"] == "assistant"
        assert last["metrics"]["llm_node_ttft"] > 0
        assert last["interrupted"] is False
