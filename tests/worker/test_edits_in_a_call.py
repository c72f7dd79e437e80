"""Edits of a context in an attached session, with a real owner behind it: followed, or not, as the operator says."""

from datetime import timedelta

import pytest
from livekit.agents.llm import ChatContext

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from tests.unit.fakes import until
from tests.worker.answering import settings, texts
from tests.worker.conftest import SessionFactory
from tests.worker.fakes_call import FakeParticipant, FakeRoom, World, fake_job

METADATA = '{"conversation_id": "c"}'


@pytest.fixture(params=["follow", "keep"])
def edits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the operator has chosen."""
    monkeypatch.setenv("AGENT_TAKEOVER_HEARTBEAT", "0.01")
    monkeypatch.setenv("AGENT_CONTEXT_EDITS", request.param)
    return str(request.param)


async def test_an_operator_decides(
    world: World, server: OfflineServer, new_session: SessionFactory, transcript: Transcript, edits: str
) -> None:
    """Words that are taken out of the agent's context leave the store; or only the agent forgets them."""
    first, second = transcript.turns[:2]
    with fake_job(FakeRoom(FakeParticipant("alice")), metadata=METADATA) as job:
        session = await new_session(server)
        conversation = await attach(session, job.context, call=settings(greeting=""))
        await session.start(agent=SupportAgent(), record=False)
        for turn in (first, second):
            await session.run(user_input=turn.user)
        await until(lambda: second.reply in texts(conversation.items))
        talk = texts(conversation.items)
        agent = session.current_agent
        kept = [item for item in agent.chat_ctx.items if getattr(item, "text_content", None) != second.user]
        await agent.update_chat_ctx(ChatContext(kept), exclude_invalid_function_calls=False)
        await conversation.flush()
        left = [words for words in talk if edits == "keep" or words != second.user]
        assert texts(conversation.items) == left
        assert (second.user.encode() in world.store.content) is (edits == "keep")
        assert conversation.failures.counts == {}
        await conversation.aclose()
    with fake_job(FakeRoom(FakeParticipant("alice")), metadata=METADATA, job_id="job-2") as job:
        await world.agents.claim("c", "worker-2", hold=timedelta(minutes=1), holder="job-1")
        session = await new_session(server)
        following = await attach(session, job.context, call=settings(greeting="", back_line=""))
        await session.start(agent=SupportAgent(), record=False)
        assert [item.text_content for item in session.history.messages()] == left
        await following.aclose()
