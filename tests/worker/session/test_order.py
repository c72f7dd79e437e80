"""LiveKit's order of a talk, in which a late transcript stands before the answer to it, is every successor's."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent, FunctionToolsExecutedEvent
from livekit.agents.llm import ChatContext, ChatItem, ChatMessage
from livekit.agents.voice.events import ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import restore
from agent_worker.session.serialise import to_fields
from conversation_actors.items import item_from_dict
from tests.support.sessions.fakes_room import FakeConversation
from tests.support.sessions.made_items import call, new_session, output, said
from tests.support.sessions.provider_rules import RULES


class Talk:
    """One job's session, to which things happen as they do with a realtime model."""

    def __init__(self, conversation: FakeConversation, *, now: float) -> None:
        """`now`: by the clock of its node."""
        self.session: AgentSession[None] = new_session()
        self.recorder = Recorder(self.session, conversation)
        self._conversation = conversation
        self.began = self.now = now

    async def begin(self) -> None:
        """Restore, and record from now on."""
        restored = await restore(self.session, Agent(instructions="x"), self._conversation, clock=lambda: self.now)
        self.recorder.start()
        self.recorder.record(restored.made_up)

    def add(self, item: ChatMessage) -> None:
        """A message comes into the history, by its time, and the event behind it."""
        self.session.history.insert(item)
        self.session.emit("conversation_item_added", ConversationItemAddedEvent(item=item))

    def use_tool(self, number: int) -> None:
        """A realtime model's call is in the history as soon as its tool runs."""
        tool, result = call(number), output(number)
        tool.created_at, result.created_at = self.now, self.now
        started = ToolExecutionUpdatedEvent(update=ToolCallStarted(function_call=tool))
        self.session.emit("tool_execution_updated", started)
        self.session.history.insert([tool, result])
        executed = FunctionToolsExecutedEvent(function_calls=[tool], function_call_outputs=[result])
        self.session.emit("function_tools_executed", executed)

    @property
    def ids(self) -> list[str]:
        """The history."""
        return ids(self.session.history.items)


def ids(items: Sequence[ChatItem]) -> list[str]:
    """What they are called."""
    return [item.id for item in items]


async def talk_at_random(seed: int) -> None:
    """Several jobs, whose clocks tell different times, with transcripts that come late by any number of items."""
    chance = random.Random(seed)  # guards nothing
    conversation, numbers = FakeConversation(), iter(range(1000))
    before: list[str] = []
    for _ in range(4):
        talk = Talk(conversation, now=1e6 + chance.uniform(-5000, 5000))
        await talk.begin()
        assert talk.ids == before
        talk.now += 0.5
        talk.began = talk.now
        talk.add(said("user", "First.", id=f"m{next(numbers)}").model_copy(update={"created_at": talk.now}))
        for _ in range(chance.randint(0, 8)):
            talk.now += chance.uniform(0, 3)
            number = next(numbers)
            if chance.random() < 0.3:
                talk.use_tool(number)
                continue
            at = chance.uniform(talk.began, talk.now) if chance.random() < 0.5 else talk.now
            message = said(chance.choice(["user", "assistant"]), f"{number}", id=f"m{number}")
            message.created_at = at
            talk.add(message)
        before = talk.ids
        assert talk.recorder.refused == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_every_successor_has_the_order_of_the_first(seed: int) -> None:
    """Also the third one, whatever the clocks of their nodes say."""
    asyncio.run(talk_at_random(seed))


async def test_a_question_whose_transcript_came_late_stands_before_its_answer() -> None:
    """The question stands before its answer, in the second job as in the third."""
    conversation = FakeConversation()
    first = Talk(conversation, now=100.0)
    await first.begin()
    first.add(said("assistant", "It is noon.", 105, id="answer"))
    first.add(said("user", "What time is it?", 103, id="question"))
    for now in (50.0, 1e9):
        following = Talk(conversation, now=now)
        await following.begin()
        assert following.ids == ["question", "answer"]
        assert [item.created_at for item in following.session.history.items] == sorted(
            item.created_at for item in following.session.history.items
        )


async def test_a_refused_item_is_restored_at_its_place() -> None:
    """The conversation keeps the order in which it takes items; a successor has the talk's."""
    conversation = FakeConversation()
    talk = Talk(conversation, now=100.0)
    await talk.begin()
    for number, text in enumerate("abcde"):
        conversation.full = text in "bc"
        talk.add(said("user", text, 100 + number, id=text))
    conversation.full = False
    talk.add(said("user", "late", 101, id="late"))
    talk.recorder.record_again(is_afresh=False)
    assert ids_stored(conversation) == ["a", "d", "e", "late", "b", "c"]
    talk.recorder.record_again(is_afresh=False)
    assert len(conversation.history) == 6, "what is there is not sent again"
    following = Talk(conversation, now=200.0)
    await following.begin()
    assert following.ids == talk.ids
    assert sorted(following.ids[:4]) == ["a", "b", "c", "late"]


async def test_a_conversation_that_lost_everything_is_told_in_order() -> None:
    """All that the session has is sent anew, and no item is said to stand before one that is sent behind it."""
    conversation = FakeConversation()
    talk = Talk(conversation, now=100.0)
    await talk.begin()
    for number, text in enumerate("cab"):
        talk.add(said("user", text, 100 - number, id=text))
    conversation._items.clear()
    talk.recorder.record_again(is_afresh=True)
    assert ids_stored(conversation) == talk.ids
    assert not [item for item in conversation.items if "stands_before" in item.to_dict()]


async def test_an_item_whose_successor_has_left_stands_where_it_came() -> None:
    """Then it stands where it came."""
    conversation = FakeConversation()
    for item in (said("assistant", "a", 1, id="a"), said("user", "b", 2, id="b"), said("user", "c", 3, id="c")):
        conversation.record(item_from_dict({**to_fields(item), "stands_before": "gone"}))
    talk = Talk(conversation, now=10.0)
    await talk.begin()
    assert talk.ids == ["a", "b", "c"]


@pytest.mark.parametrize("vendor", RULES)
async def test_no_model_is_told_where_an_item_stood(vendor: str) -> None:
    """The same request, to every vendor that LiveKit has a format for."""
    conversation = FakeConversation()
    item = said("user", "What time is it?", 1, id="question")
    conversation.record(item_from_dict({**to_fields(item), "stands_before": "answer"}))
    session, agent = new_session(), Agent(instructions="x")
    await restore(session, agent, conversation)
    plain = ChatContext([item]).to_provider_format(vendor)[0]
    assert agent.chat_ctx.to_provider_format(vendor)[0] == plain


def ids_stored(conversation: FakeConversation) -> list[str]:
    """What the conversation has, in its order."""
    return [item.id for item in conversation.items]
