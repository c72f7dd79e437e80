"""What an application takes out of a context: gone for the successor and in the store, and nothing else is."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from livekit.agents import (
    Agent,
    AgentTask,
    ConversationItemAddedEvent,
    UserInputTranscribedEvent,
    function_tool,
)
from livekit.agents.llm import ChatContext, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.session.bounds import cut
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.taken_out import taken_out
from conversation_actors import Message
from conversation_actors.items import item_from_dict
from tests.support.fakes import turns
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, calls_when_asked, said
from tests.worker.session.test_active_agent import Front

CARD = "4111 1111 1111 1111"
MODEL = calls_when_asked(
    "forget", "shorten", "rewrite", "mutate", "forget_call", "to_billing", "note", "take", "finish", "forget_history"
)


class Teller(Agent):
    """Has tools that edit its own context, as an application's have."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are a teller.")

    @function_tool
    async def forget(self) -> str:
        """Take every message with a card number out."""
        await self._keep([item for item in self.chat_ctx.items if CARD not in text_of(item)])
        return "forgotten"

    @function_tool
    async def shorten(self) -> str:
        """Keep the last words only."""
        await self.update_chat_ctx(self.chat_ctx.copy(exclude_function_call=True).truncate(max_items=1))
        return "shortened"

    @function_tool
    async def rewrite(self) -> str:
        """Put another version of each message with a card number into its place."""
        await self._keep(
            [
                item.model_copy(update={"content": ["My card is [hidden]."]}) if CARD in text_of(item) else item
                for item in self.chat_ctx.items
            ]
        )
        return "rewritten"

    @function_tool
    async def mutate(self) -> str:
        """Change each message with a card number itself, and tell nobody."""
        for item in self.chat_ctx.items:
            if item.type == "message" and CARD in text_of(item):
                item.content[:] = ["My card is [hidden]."]
        return "changed"

    @function_tool
    async def note(self, words: str = CARD) -> str:
        """Give back what is secret."""
        return words

    @function_tool
    async def forget_call(self) -> str:
        """Take the outputs of `note` out, but the last."""
        outputs = [item for item in self.chat_ctx.items if item.type == "function_call_output" and item.name == "note"]
        gone = {item.id for item in outputs[:-1]}
        await self._keep([item for item in self.chat_ctx.items if item.id not in gone])
        return "forgotten"

    @function_tool
    async def forget_history(self) -> str:
        """Take every message with a card number out of the session's history."""
        items = self.session.history.items
        items[:] = [item for item in items if CARD not in text_of(item)]
        return "forgotten"

    @function_tool
    async def take(self) -> str:
        """Have a task do it."""
        return await Cleaning(chat_ctx=self.chat_ctx)

    @function_tool
    async def to_billing(self) -> Agent:
        """Hand over with all that was said."""
        return Front(chat_ctx=self.chat_ctx.copy(exclude_instructions=True))

    async def _keep(self, items: list[ChatItem]) -> None:
        await self.update_chat_ctx(ChatContext(items))


class Cleaning(AgentTask[str]):
    """A task that takes card numbers out of its own context."""

    def __init__(self, *, chat_ctx: ChatContext) -> None:
        """Know what was said."""
        super().__init__(instructions="Clean.", chat_ctx=chat_ctx)

    @function_tool
    async def finish(self) -> None:
        """Clean, and end."""
        await self.update_chat_ctx(ChatContext([item for item in self.chat_ctx.items if CARD not in text_of(item)]))
        self.complete("clean")


def text_of(item: ChatItem) -> str:
    """What a message says."""
    return (item.text_content or "") if item.type == "message" else ""


def all_of(conversation: NotedConversation) -> str:
    """All that is kept of a conversation."""
    return repr([item.to_dict() for item in conversation.items]) + repr(conversation.attributes)


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Jobs on a model that calls the tool that it is asked for."""
    async with Jobs(MODEL) as entered:
        yield entered


async def told(jobs: Jobs) -> Job:
    """A job in which a card number was said, not as the first words."""
    job = await jobs.start(Teller(), NotedConversation())
    for words in ("Good morning", f"My card is {CARD}.", "Is that fine?"):
        await job.say(words)
    assert CARD in all_of(job.conversation)
    return job


async def goes_on_without(jobs: Jobs, job: Job, first: Agent | None = None) -> Job:
    """The successor, which knows all of the talk but the number, as this one does."""
    assert CARD not in all_of(job.conversation)
    assert CARD not in repr(job.session.history.items)
    number = len(jobs.requests)
    await job.say("A turn.")
    last = job.session.history.messages()[-1]
    before = jobs.requests[number]
    assert CARD not in repr(before)
    number = len(jobs.requests)
    following = await jobs.follow(job, first or Teller())
    await following.say("And now?")
    assert said(jobs.requests[number]) == [*said(before), ("assistant", last.text_content), ("user", "And now?")]
    assert CARD not in all_of(following.conversation)
    assert job.failures.counts == following.failures.counts == {}
    return following


@pytest.mark.parametrize("tool", ["forget", "rewrite", "mutate"])
async def test_a_card_number_is_gone_for_the_successor_too(jobs: Jobs, tool: str) -> None:
    """Taken out, replaced by another version, or changed in place: nobody reads it, and the past is forgotten."""
    job = await told(jobs)
    talk = len(job.session.history.messages())
    await job.say(f"use {tool}")
    await turns()
    assert job.conversation.removals
    assert "Is that fine?" in all_of(job.conversation)
    assert ("[hidden]" in all_of(job.conversation)) is (tool != "forget")
    assert len(job.session.history.messages()) == talk + 2 - (tool == "forget")
    await goes_on_without(jobs, job)


async def test_what_a_task_takes_out_does_not_come_back(jobs: Jobs) -> None:
    """The agent that waited for the task has the number in its own context: it is taken out of that as well."""
    job = await told(jobs)
    await job.say("use take")
    await job.say("use finish")
    await turns()
    assert CARD not in repr(job.session.current_agent.chat_ctx.items)
    await goes_on_without(jobs, job)


async def test_an_output_is_taken_out_with_its_call(jobs: Jobs) -> None:
    """Else the successor would be told that the tool was interrupted; the other call of the tool stays."""
    job = await jobs.start(Teller(), NotedConversation())
    await job.say("use note")
    await job.say("use note")
    calls = [item.id for item in job.conversation.items if item.type == "function_call"]
    await job.say("use forget_call")
    await turns()
    there = [item.id for item in job.conversation.items if item.type == "function_call"]
    assert calls[0] not in there
    assert calls[1] in there
    following = await jobs.follow(job, Teller())
    assert following.restored.interrupted_calls == ()


async def test_what_was_taken_out_is_not_brought_by_another_agent(jobs: Jobs) -> None:
    """An agent that was made with the talk so far hands it nowhere: it gets the word without the number."""
    job = await told(jobs)
    kept = job.session.current_agent.chat_ctx.copy(exclude_instructions=True)
    await job.say("use forget")
    job.session.update_agent(Front(chat_ctx=kept))
    await turns()
    await job.say("Hello")
    assert CARD not in repr(jobs.requests[-1])
    assert CARD not in repr(job.conversation.attributes[ACTIVE_AGENT])
    await goes_on_without(jobs, job, Front())


@pytest.mark.parametrize("way", ["taken out", "changed"])
async def test_a_message_that_was_restored_under_another_id(jobs: Jobs, way: str) -> None:
    """LiveKit takes two messages of one reply for a fault, so the second has another id there: it is the same one."""
    conversation = NotedConversation()
    for number, (role, text) in enumerate(
        [("user", "Hello"), ("assistant", "Hi."), ("assistant", f"Your card is {CARD}."), ("user", "Yes.")]
    ):
        identity = f"reply/{number}" if role == "assistant" else f"u{number}"
        conversation.record(Message(id=identity, role=role, content=[text]))  # type: ignore[arg-type]
    job = await jobs.start(Teller(), conversation)
    agent = job.session.current_agent
    [secret] = [item for item in agent.chat_ctx.items if CARD in text_of(item)]
    assert secret.id == "reply_2"
    new = [secret.model_copy(update={"content": ["[hidden]"]})] if way == "changed" else []
    items = agent.chat_ctx.items
    place = items.index(secret)
    await agent.update_chat_ctx(ChatContext([*items[:place], *new, *items[place + 1 :]]))
    await turns()
    assert CARD not in all_of(conversation)
    left = [item.id for item in conversation.items if item.id.startswith("reply")]
    assert left == (["reply/1", "reply/2"] if way == "changed" else ["reply/1"])


async def test_an_item_taken_out_of_the_history_leaves_context_and_conversation(jobs: Jobs) -> None:
    """An item that is taken out of `session.history` is taken out of the agent's context, and of the conversation."""
    job = await told(jobs)
    job.session.history.items[:] = [item for item in job.session.history.items if CARD not in text_of(item)]
    await job.say("Hello")
    await turns()
    await job.say("Hello")
    assert CARD not in repr(jobs.requests[-1])
    await goes_on_without(jobs, job)


async def test_a_tool_that_edits_the_history_keeps_its_own_call(jobs: Jobs) -> None:
    """LiveKit puts the tool's call into the context behind the edit: it stays there, and in the conversation."""
    job = await jobs.start(Teller(), NotedConversation())
    await job.say("use forget_history")
    for words in (f"My card is {CARD}.", "use forget_history"):
        await job.say(words)
    await turns()
    kept = [item for item in job.session.current_agent.chat_ctx.items if item.type == "function_call_output"]
    assert len(kept) == 2
    assert len([item for item in job.conversation.items if item.type == "function_call_output"]) == 2
    await goes_on_without(jobs, job)


@pytest.mark.parametrize("tool", ["forget", "rewrite", "mutate"])
async def test_one_that_the_session_knows_by_another_id(jobs: Jobs, tool: str) -> None:
    """Two messages of one reply: the second has a new id in the session, and the conversation has it by its own."""
    conversation = NotedConversation()
    for identity, role, text in (
        ("u1", "user", "Good morning"),
        ("r/1", "assistant", "Is that fine?"),
        ("r/2", "assistant", f"Your card is {CARD}."),
    ):
        conversation.record(item_from_dict({"type": "message", "id": identity, "role": role, "content": [text]}))
    job = await jobs.start(Teller(), conversation, is_restart=True)
    assert "r_2" in [item.id for item in job.session.history.items]
    await job.say(f"use {tool}")
    await turns()
    await goes_on_without(jobs, job)


async def test_a_shorter_memory_is_no_edit(jobs: Jobs) -> None:
    """The conversation keeps what the agent was only to know no more."""
    job = await told(jobs)
    before = {item.id for item in job.conversation.items}
    await job.say("use note")
    await job.say("use shorten")
    await turns()
    assert job.conversation.removals == []
    assert before <= {item.id for item in job.conversation.items}


async def test_a_summary_of_later_talk_is_no_edit(jobs: Jobs) -> None:
    """LiveKit's summaries, as of a `TaskGroup`, keep the earlier ones: what stands between was not taken out."""
    job = await told(jobs)
    agent = job.session.current_agent
    for number in range(3):
        earlier = [item for item in agent.chat_ctx.items if item.type == "message" and item.extra.get("is_summary")]
        summary = ChatMessage(role="assistant", content=[f"Summary {number}"], extra={"is_summary": True})
        await agent.update_chat_ctx(ChatContext([*earlier, summary]))
        await job.say("And then?")
    await turns()
    assert job.conversation.removals == []
    assert CARD in all_of(job.conversation)


async def test_a_shorter_talk_behind_what_an_agent_was_made_with_is_no_edit(jobs: Jobs) -> None:
    """A context that was filled from a database, as LiveKit's documentation has it, stays in front of what is left."""
    known = ChatContext.empty()
    known.add_message(role="assistant", content="The user's name is Alice.")
    job = await jobs.start(Front(chat_ctx=known), NotedConversation())
    for words in ("Good morning", "It rains.", "Does it?"):
        await job.say(words)
    agent = job.session.current_agent
    first = known.items[0].id
    kept = [item for item in agent.chat_ctx.items if item.id == first] + list(agent.chat_ctx.items[-2:])
    await agent.update_chat_ctx(ChatContext(kept))
    await turns()
    assert job.conversation.removals == []


@pytest.mark.parametrize("role", ["assistant", "system"])
async def test_what_is_said_while_a_summary_is_written_stays(jobs: Jobs, role: Any) -> None:
    """A context that was copied, summarised for seconds and put back never saw it: nobody has wanted it gone."""
    job = await told(jobs)
    agent = job.session.current_agent
    kept = [item for item in agent.chat_ctx.copy().items[-2:] if item.type == "message"]
    await job.say(f"My other card is {CARD}.")
    await agent.update_chat_ctx(ChatContext([ChatMessage(role=role, content=["In short."]), *kept]))
    await turns()
    assert job.conversation.removals == []
    # what is taken out now, was seen
    await agent.update_chat_ctx(ChatContext([kept[0]]))
    assert job.conversation.removals == [(kept[1].id,)]


async def test_what_is_said_while_an_edit_is_followed_stays(jobs: Jobs) -> None:
    """An agent is given what is left at that moment, and not what was left when the edit was seen."""
    job = await told(jobs)
    session, agent = job.session, job.session.current_agent
    session.history.items[:] = [item for item in session.history.items if CARD not in text_of(item)]
    late = ChatMessage(role="user", content=["One more thing."])
    hello = ChatMessage(role="user", content=["Hello"])
    for message in (hello, late):  # two that come before anything else runs
        agent._chat_ctx.items.append(message)
        session.history.items.append(message)
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=message))
    await turns()
    assert CARD not in all_of(job.conversation)
    assert "One more thing." in all_of(job.conversation)
    assert "One more thing." in repr(agent.chat_ctx.items)


async def test_what_the_session_has_forgotten_is_taken_out_too(jobs: Jobs) -> None:
    """An agent that gets the word back remembers more than the session's history, and the conversation does so too."""
    job = await told(jobs)
    agent = job.session.current_agent
    assert isinstance(agent, Teller)
    job.session.update_agent(Front())
    await turns()
    items = job.session.history.items
    items[:] = items[-1:]
    await job.say("Hello")
    assert CARD in all_of(job.conversation)
    job.session.update_agent(agent)
    await turns()
    await job.say("use forget")
    await turns()
    assert CARD not in all_of(job.conversation)
    assert "Good morning" in all_of(job.conversation)


async def test_examples_in_front_of_a_shorter_talk_are_no_edit(jobs: Jobs) -> None:
    """An agent keeps what it was made with, and of the talk the end: that is a shorter memory, too."""
    context = ChatContext.empty()
    context.add_message(role="user", content="For example.")
    context.add_message(role="assistant", content="Like this.")
    agent = Agent(instructions="x", chat_ctx=context)
    job = await jobs.start(agent, NotedConversation())
    for words in ("Good morning", "Hello", "Is that fine?"):
        await job.say(words)
    items = agent.chat_ctx.items
    await agent.update_chat_ctx(ChatContext([*items[:3], *items[-2:]]))
    await job.say("And now?")
    await turns()
    assert "For example." in repr(jobs.requests[-1])
    assert "Hello" not in repr(jobs.requests[-1])
    assert "Hello" in all_of(job.conversation)
    assert job.conversation.removals == []


async def test_listeners_are_told_of_an_edit_before_the_past_is_forgotten(jobs: Jobs) -> None:
    """Before the past is forgotten, so that what is quoted anew is stored before; one that fails costs nothing else."""
    job = await told(jobs)
    seen: list[tuple[Collection[str], int]] = []

    def listen(texts: Collection[str]) -> None:
        seen.append((texts, len(job.conversation.removals)))
        message = "broken"
        raise ValueError(message)

    job.edits.tell(listen)
    await job.say("use forget")
    assert seen == [({f"My card is {CARD}."}, 0)]
    assert len(job.conversation.removals) == 1
    assert job.failures.counts == {"context_edits": 1}


async def test_an_agent_that_is_told_otherwise_is_no_edit(jobs: Jobs) -> None:
    """It was made with a talk in other words, under the same ids, and goes on to change its context: nobody said so."""
    job = await told(jobs)
    context = job.session.current_agent.chat_ctx.copy(exclude_instructions=True)
    items = [
        item.model_copy(update={"content": ["A card."]}) if CARD in text_of(item) else item for item in context.items
    ]
    job.session.update_agent(Front(chat_ctx=ChatContext(items[1:])))
    await turns()
    agent = job.session.current_agent
    longer = agent.chat_ctx.copy()
    longer.add_message(role="system", content="Be brief.")
    await agent.update_chat_ctx(longer)
    await job.say("Hello")
    assert "A card." in repr(jobs.requests[-1])
    assert CARD in all_of(job.conversation)
    assert job.conversation.removals == []


async def test_what_is_taken_out_is_not_recorded_again(jobs: Jobs) -> None:
    """Neither when a conversation that lost everything is told all of it, nor when something was missed."""
    job = await told(jobs)
    gone = [item for item in job.session.history.items if CARD in text_of(item)]
    await job.say("use forget")
    await turns()
    job.recorder.record_again(is_afresh=False)
    job.recorder.record_again(is_afresh=True)
    # a realtime model may tell of an item twice
    job.recorder.record(gone)
    assert CARD not in all_of(job.conversation)


async def test_what_is_edited_behind_the_end_of_a_call_is_another_agents(jobs: Jobs) -> None:
    """This job records no more, and takes nothing out."""
    job = await told(jobs)
    job.edits.stop()
    agent = job.session.current_agent
    assert isinstance(agent, Teller)
    await agent.update_chat_ctx(ChatContext([item for item in agent.chat_ctx.items if CARD not in text_of(item)]))
    assert CARD in all_of(job.conversation)
    assert job.conversation.removals == []


async def test_a_grown_transcript_forgets_nothing(jobs: Jobs) -> None:
    """What is said still was not taken out: the longer text is recorded, and that is all."""
    job = await told(jobs)
    message = job.session.history.messages()[-1]
    message.content[:] = [f"{message.text_content} And more."]
    await job.say("Hello")
    assert "And more." in all_of(job.conversation)
    assert job.conversation.removals == []


async def test_a_turn_that_was_changed_before_it_was_a_message(jobs: Jobs) -> None:
    """Its words were noted as they were heard: they are forgotten. A turn that nobody changes costs nothing."""
    job = await jobs.start(Teller(), NotedConversation())

    def hear(*words: str) -> None:
        for one in words:
            job.session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript=one, is_final=True))

    def becomes(text: str) -> None:
        message = ChatMessage(role="user", content=[text])
        job.session.history.items.append(message)
        job.session.emit("conversation_item_added", ConversationItemAddedEvent(item=message))

    hear("Good", "morning.")
    becomes("Good morning.")
    assert job.conversation.removals == []
    hear("My card is", CARD)
    becomes("My card is [hidden].")
    assert job.conversation.removals == [()]
    hear("Bye.")
    becomes("Bye.")
    hear("Bye.")  # a realtime model tells it late
    becomes("Good night.")
    assert job.conversation.removals == [()]


# What is no edit


def _history(kinds: Sequence[str]) -> list[ChatItem]:
    items: list[ChatItem] = []
    for number, kind in enumerate(kinds):
        at: dict[str, Any] = {"id": f"{kind}{number}", "created_at": float(number)}
        match kind:
            case "u" | "a" | "s":
                role: Any = {"u": "user", "a": "assistant", "s": "system"}[kind]
                items.append(ChatMessage(role=role, content=["words"] if number % 7 else [], **at))
            case "c" | "d":
                items.append(FunctionCall(call_id=str(number), name=kind, arguments="{}", **at))
            case _:
                open_calls = [one for one in items if one.type == "function_call"]
                if open_calls:
                    call = open_calls[number % len(open_calls)]
                    output = FunctionCallOutput(
                        call_id=call.call_id, name=call.name if number % 2 else "", output="x", is_error=False, **at
                    )
                    items.append(output)
    return items


histories = st.lists(st.sampled_from("uuaasccddooo"), max_size=25).map(_history)
shortenings = st.lists(
    st.one_of(
        st.builds(lambda most: ("truncate", most), st.integers(0, 12)),
        st.builds(lambda most: ("cut", most), st.integers(1, 12)),
        st.just(("exclude_function_call", 0)),
        st.just(("exclude_empty_message", 0)),
        st.just(("exclude_instructions", 0)),
        st.builds(lambda which: ("tools", which), st.integers(0, 2)),
        st.just(("summary", 0)),
    ),
    min_size=1,
    max_size=3,
)


def _shortened(items: list[ChatItem], ways: Sequence[tuple[str, int]]) -> list[ChatItem]:
    context = ChatContext(list(items))
    for way, number in ways:
        match way:
            case "truncate":
                context.truncate(max_items=number)
            case "cut":
                context = ChatContext(cut(context.items, number))
            case "tools":
                context = context.copy(tools=["c", "d"][number : number + 1] or ["another"])
            case "summary":
                tail = context.items[len(context.items) // 2 :]
                context = ChatContext([ChatMessage(role="assistant", content=["All of it, in short."]), *tail])
            case _:
                excluded: dict[str, Any] = {way: True}
                context = context.copy(**excluded)
    return context.items


@hypothesis_settings(max_examples=400)
@given(history=histories, ways=shortenings)
def test_no_way_of_shortening_takes_anything_out(history: list[ChatItem], ways: list[tuple[str, int]]) -> None:
    """Whatever LiveKit offers, and what our bounds do, one after the other: nothing leaves the store for it."""
    assert taken_out(history, {item.id for item in _shortened(history, ways)}) == []


@hypothesis_settings(max_examples=200)
@given(history=histories, data=st.data())
def test_a_message_in_the_middle_is_taken_out(history: list[ChatItem], data: st.DataObject) -> None:
    """One behind the first that stays, whoever said it; and only that one."""
    talk = [item for item in history if item.type == "message" and item.role != "system" and item.content]
    if len(talk) > 1:
        gone = data.draw(st.sampled_from(talk[1:]))
        assert taken_out(history, {item.id for item in history if item is not gone}) == [gone]
