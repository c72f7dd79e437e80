"""One line attaches a session to its job's conversation; the agent is the one that the session starts with."""

from datetime import timedelta

import pytest

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import InvalidInputError
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, Heard, settings, texts
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World, fake_job
from tests.worker.conftest import SessionFactory

METADATA = '{"conversation_id": "c"}'
_MINUTE = timedelta(minutes=1)


@pytest.mark.usefixtures("job_environment")
async def test_one_line_attaches_a_session_and_its_successor(
    world: World, server: OfflineServer, new_session: SessionFactory, transcript: Transcript
) -> None:
    """The agent is built where the session starts; what is said is recorded, and known to the next job's agent."""
    turn, alice = transcript.turns[0], FakeParticipant("alice")
    with fake_job(FakeRoom(alice), metadata=METADATA) as job:
        session = await new_session(server)
        conversation = await attach(session, job.context, call=settings(greeting=""))
        assert isinstance(conversation, CallConversation)
        assert not conversation.is_restart
        await session.start(agent=SupportAgent(), record=False)
        await session.run(user_input=turn.user)
        await until(lambda: texts(conversation.items) == [turn.user, turn.reply])
        await conversation.flush()
        await conversation.aclose()
    with fake_job(FakeRoom(alice), metadata=METADATA, job_id="job-2") as job:
        await world.agents.claim("c", "worker-2", hold=_MINUTE, holder="job-1")
        session = await new_session(server)
        heard = Heard()
        session.output.transcription = heard
        second = await attach(session, job.context, call=settings(greeting=""))
        assert second.is_restart
        await session.start(agent=SupportAgent(), record=False)
        await until(lambda: heard.lines == [BACK])
        assert [item.text_content for item in session.history.messages()] == [turn.user, turn.reply]
        await second.aclose()


async def test_a_start_with_another_agent_is_refused(answer: Answer, server: OfflineServer) -> None:
    """The one that was attached has the history; the other would know nothing."""
    async with answer(FakeRoom(), greeting="", waits=False) as running:
        await running.starting
        with pytest.raises(InvalidInputError, match="another agent"):
            await running.session.start(agent=SupportAgent(), record=False)
        assert running.job.ended == []


async def test_a_start_with_another_agent_than_attached_is_told(
    world: World, server: OfflineServer, new_session: SessionFactory
) -> None:
    """In the long form the agent is named; at once, before anything is said."""
    with fake_job(FakeRoom()):
        call = world.call()
        await call.open()
        session = await new_session(server)
        await attach(session, SupportAgent(), call)
        with pytest.raises(InvalidInputError, match="another agent"):
            await session.start(agent=SupportAgent(), record=False)
        assert session.agent_state == "initializing"


@pytest.mark.usefixtures("job_environment")
async def test_a_second_session_in_a_job_is_refused(
    world: World, server: OfflineServer, new_session: SessionFactory
) -> None:
    """Two sessions would be two agents of one conversation; so is a second attach() of the first one."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        session, other = await new_session(server), await new_session(server)
        conversation = await attach(session, job.context)
        for again in (session, other):
            with pytest.raises(InvalidInputError, match="second attach"):
                await attach(again, job.context)
            with pytest.raises(InvalidInputError, match="second attach"):
                await attach(again, SupportAgent(), conversation)
        await session.start(agent=SupportAgent(), record=False)
        await conversation.aclose()


async def test_attaching_a_running_session_is_refused(
    world: World, server: OfflineServer, new_session: SessionFactory
) -> None:
    """It has a history of its own."""
    session = await new_session(server)
    await session.start(agent=SupportAgent(), record=False)
    with fake_job(FakeRoom()) as job, pytest.raises(RuntimeError, match="attach a session before"):
        await attach(session, job.context)


async def test_a_start_that_is_repeated_is_livekits_business(answer: Answer) -> None:
    """With the same agent it does nothing, as ever."""
    agent = SupportAgent()
    async with answer(FakeRoom(), agent=agent, greeting="") as running:
        await running.session.start(agent, record=False)
        await running.session_is_calm()
