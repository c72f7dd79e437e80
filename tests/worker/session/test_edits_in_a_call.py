"""Edits of a context in an attached session, with a real owner behind it: followed, or not, as the operator says."""

from datetime import timedelta

import pytest
from livekit.agents.llm import ChatContext

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, settings, texts
from tests.support.sessions.fake_livekit import fake_job
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
from tests.worker.conftest import SessionFactory

METADATA = '{"conversation_id": "c"}'


@pytest.fixture(params=["follow", "keep"])
def edits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the operator has chosen."""
    monkeypatch.setenv("AGENT_TAKEOVER_HEARTBEAT", "0.01")
    monkeypatch.setenv("AGENT_CONTEXT_EDITS", request.param)
    return str(request.param)


async def test_a_setting_decides_whether_an_edit_leaves_the_store(
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


async def test_what_was_removed_does_not_come_back_from_the_session(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """By the application, or by somebody else's process: though Redis loses all, and is told again what was said."""
    turns = transcript.turns[:3]
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        for turn in turns:
            await running.session.run(user_input=turn.user)
            await running.is_known(turn.reply)
        call, other = running.call, await world.cluster.handle()
        ids = {item.to_dict()["content"][0]: item.id for item in call.items if item.type == "message"}
        call.remove(ids[turns[0].user])
        await call.flush()
        await other.remove(ids[turns[1].user])
        await until(lambda: turns[1].user not in texts(call.items))
        left = texts(call.items)
        world.store.lose_everything()
        await world.cluster.kill()
        call.note("x", 1)
        await until(lambda: call.attributes.get("x") == 1)
        await running.is_known(turns[2].reply)
        await call.flush()
        assert texts(call.items) == left
        for turn in turns[:2]:
            assert turn.user.encode() not in world.store.content
