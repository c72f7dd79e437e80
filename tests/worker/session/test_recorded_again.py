"""What a recorder records of handoffs, and once more when the conversation lacks something."""

import pytest
from livekit.agents import Agent
from livekit.agents.llm import (
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
)
from livekit.agents.voice.events import ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from agent_worker.session.recorder import Recorder
from conversation_actors import DataMessage, Message
from tests.support.sessions.fake_conversation import FakeConversation
from tests.worker.conftest import Say, SessionFactory, Starter

# Who has the word


async def test_a_handoff_to_the_agent_that_has_the_word_is_not_recorded(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """A session that begins with the agent that has the word is no news, also for a conversation that lost all."""
    conversation = FakeConversation()
    for turn in transcript.turns[:2]:
        async with started(server, SupportAgent(), conversation) as (session, _):
            await say(session, turn.user)
    async with started(server, SupportAgent(), conversation) as (session, attached):
        await say(session, transcript.turns[2].user)
    assert kinds(conversation).count("agent_handoff") == 1
    conversation.lose_everything()
    attached.recorder.record_again(is_afresh=True)
    assert kinds(conversation).count("agent_handoff") == 1


async def test_a_handoff_to_another_agent_is_recorded(server: OfflineServer, started: Starter) -> None:
    """A session that begins with another agent than the last one tells so."""
    conversation = FakeConversation()
    for agent in (SupportAgent(), Agent(instructions=""), SupportAgent()):
        async with started(server, agent, conversation):
            pass
    handed = [item.to_dict()["new_agent_id"] for item in conversation.items]
    assert handed == ["support_agent", "default_agent", "support_agent"]


# Again


def words(conversation: FakeConversation) -> list[str]:
    """What is in the conversation, in its order."""
    return [str(item.to_dict()["content"][0]) for item in conversation.items if item.type == "message"]


async def test_what_was_refused_is_recorded_again(server: OfflineServer, new_session: SessionFactory) -> None:
    """Once, when the conversation takes items again; what it has is not sent once more."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    said: list[ChatItem] = [ChatMessage(role="user", content=[text]) for text in ("a", "b", "c")]
    session.history.merge(ChatContext(said))
    recorder.record(said[:1])
    conversation.full = True
    recorder.record(said[1:])
    recorder.record_again(is_afresh=False)
    assert recorder.refused == 4
    conversation.full = False
    recorder.record_again(is_afresh=False)
    assert words(conversation) == ["a", "b", "c"]
    recorder.record_again(is_afresh=False)
    assert len(conversation.history) == 3


async def test_what_the_conversation_has_left_behind_is_not_recorded_again(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """It keeps less than the session; nor is what was restored into the session, and renamed there."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    restored = ChatMessage(id="item_1_b", role="assistant", content=["restored"])
    said: list[ChatItem] = [ChatMessage(role="user", content=[text]) for text in ("a", "b", "c")]
    session.history.merge(ChatContext([restored, *said]))
    recorder.record(said[:2])
    del conversation._items[said[0].id]
    recorder.record_again(is_afresh=False, is_full=True)
    assert words(conversation) == ["b"]


async def test_a_conversation_that_lost_everything_gets_everything(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """Also what this session was given by another one; not the agent's instructions. One bad item costs only itself."""
    conversation = FakeConversation(item_bytes=4096)
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    secret = ChatMessage(role="system", content=["secret prompt"])
    said: list[ChatItem] = [ChatMessage(role="user", content=[text]) for text in ("a", "b" * 10_000, "c")]
    session.history.merge(ChatContext([secret, *said]))
    recorder.record_again(is_afresh=True)
    assert [text[0] for text in words(conversation)] == ["a", "b", "c"]
    assert recorder.refused == 0


def kinds(conversation: FakeConversation) -> list[str]:
    """Which items are in the conversation, in its order."""
    return [item.type for item in conversation.items]


def lose(conversation: FakeConversation, *items: ChatItem) -> None:
    """What was taken is refused after all."""
    for item in items:
        del conversation._items[item.id]


async def test_the_first_items_are_recorded_again_too(server: OfflineServer, new_session: SessionFactory) -> None:
    """While nothing has left the conversation, whatever is not in it was refused; what is there keeps its place."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    said: list[ChatItem] = [ChatMessage(role="user", content=[text]) for text in ("a", "b", "c", "d")]
    session.history.merge(ChatContext(said))
    recorder.record(said)
    lose(conversation, said[0], said[2])
    recorder.record_again(is_afresh=False)
    assert words(conversation) == ["b", "d", "a", "c"]


async def test_the_first_items_of_an_agent_are_recorded_again_into_a_full_conversation(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """What an earlier agent left is there still, so that nothing of this one's can have been left behind."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    earlier: list[ChatItem] = [ChatMessage(role="user", content=["earlier"])]
    recorder.record(earlier)
    recorder = Recorder(session, conversation)
    said: list[ChatItem] = [ChatMessage(role="user", content=[text]) for text in ("a", "b")]
    session.history.merge(ChatContext([*earlier, *said]))
    recorder.record(said)
    lose(conversation, said[0])
    recorder.record_again(is_afresh=False, is_full=True)
    assert words(conversation) == ["earlier", "b", "a"]


@pytest.mark.parametrize(
    ("place", "again"), [(0, ["a", "b", "c"]), (1, ["b", "c"]), (2, ["c"])], ids=["in front", "behind a", "behind b"]
)
async def test_a_data_message_tells_by_its_time_what_has_left(
    server: OfflineServer, new_session: SessionFactory, place: int, again: list[str]
) -> None:
    """It is in no session: what is younger than the oldest one cannot have left the conversation, the rest has."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    said: list[ChatItem] = [ChatMessage(role="user", content=[text], created_at=n) for n, text in enumerate("abc")]
    session.history.merge(ChatContext(said))
    conversation.record(DataMessage(topic="t", kind="packet", size=0, created_at=place - 0.5))
    recorder.record(said)
    lose(conversation, *said)
    recorder.record_again(is_afresh=False, is_full=True)
    assert words(conversation) == again


async def test_a_call_that_stays_behind_hides_nothing_of_what_left(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """A running tool's call, and a system message, are older than the oldest message that is left."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation)
    call = FunctionCall(call_id="c1", name="t", arguments="{}")
    said: list[ChatItem] = [call, *(ChatMessage(role="user", content=[text]) for text in ("a", "b", "c"))]
    conversation.record(Message(id="s", role="system", content="of the operator"))
    session.history.merge(ChatContext(said))
    recorder.record(said)
    lose(conversation, said[1], said[3])
    recorder.record_again(is_afresh=False, is_full=True)
    assert [item.id for item in conversation.items] == ["s", call.id, said[2].id, said[3].id]


def _starts(call: FunctionCall) -> ToolExecutionUpdatedEvent:
    return ToolExecutionUpdatedEvent(update=ToolCallStarted(function_call=call))


@pytest.mark.parametrize("is_afresh", [True, False])
async def test_an_announced_call_that_was_refused_is_recorded_before_its_output(
    server: OfflineServer, new_session: SessionFactory, *, is_afresh: bool
) -> None:
    """Although the session's history has it only when its tool has ended; an output without its call is unreadable."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation).start()
    calls = [FunctionCall(call_id=f"c{number}", name="t", arguments="{}") for number in range(2)]
    output = FunctionCallOutput(call_id="c0", name="t", output="partly", is_error=False)
    for call in calls:
        session.emit("tool_execution_updated", _starts(call))
    lose(conversation, *calls)
    session.history.merge(ChatContext([output]))
    recorder.record([output])
    lose(conversation, output)
    recorder.record_again(is_afresh=is_afresh)
    assert [item.id for item in conversation.items] == [calls[0].id, output.id, calls[1].id]


@pytest.mark.parametrize("is_heard", [True, False])
async def test_a_call_whose_announcement_was_refused_is_recorded_at_its_end(
    server: OfflineServer, new_session: SessionFactory, *, is_heard: bool
) -> None:
    """Whether it was refused at once or later, and nobody told it again: its output does not come alone."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation).start()
    call = FunctionCall(call_id="c1", name="t", arguments="{}")
    conversation.full = is_heard
    session.emit("tool_execution_updated", _starts(call))
    if not is_heard:
        lose(conversation, call)
    conversation.full = False
    recorder.record([call, FunctionCallOutput(call_id="c1", name="t", output="done", is_error=False)])
    assert kinds(conversation) == ["function_call", "function_call_output"]


async def test_a_call_whose_announcement_did_not_fit_is_recorded_again(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """While its tool runs: a crash now can be told to the next agent."""
    conversation = FakeConversation()
    session = await new_session(server)
    recorder = Recorder(session, conversation).start()
    conversation.full = True
    missing = [recorder.has_unrecorded_calls]
    session.emit("tool_execution_updated", _starts(FunctionCall(call_id="c1", name="t", arguments="{}")))
    missing.append(recorder.has_unrecorded_calls)
    conversation.full = False
    recorder.record_again(is_afresh=False)
    assert kinds(conversation) == ["function_call"]
    assert [*missing, recorder.has_unrecorded_calls] == [False, True, False]
