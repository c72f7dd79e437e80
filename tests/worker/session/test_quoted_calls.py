"""What a tool gave before the caller's first turn is told a successor in words: an edit of either is one of both."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import pytest
from livekit.agents import Agent, function_tool
from livekit.agents.llm import ChatContext, ChatItem

from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from tests.support.fakes import turns, until
from tests.support.sessions.jobs import Job, Jobs, NotedConversation, last_text
from tests.worker.session.test_context_edits import CARD, all_of, text_of

_numbers = count(1)


def model(request: ChatRequest) -> Reply:
    """Look the caller up before the caller has said anything, then use what is asked for."""
    last, words = request.messages[-1], last_text(request)
    if last["role"] == "tool" or (last["role"] == "system" and words):
        return Reply("Here you are.")
    name = "look_up" if not words else words.removeprefix("use ")
    if name in request.tools:
        return Reply("", (RequestedCall(f"call_{next(_numbers)}", name, "{}"),))
    return Reply("Yes.")


class Bank(Agent):
    """Greets, looks a card number up by a tool as it enters, and edits what it knows."""

    def __init__(self) -> None:
        """Without words."""
        super().__init__(instructions="You are a bank.")

    async def on_enter(self) -> None:
        """Greet, then look the caller up."""
        await self.session.say("Welcome.")
        await self.session.generate_reply(instructions="Look the caller up.")

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return CARD

    @function_tool
    async def look(self) -> str:
        """Look something else up."""
        return "fine"

    @function_tool
    async def forget(self) -> str:
        """Take out of the context whatever has the number."""
        await self.update_chat_ctx(ChatContext([item for item in self.chat_ctx.items if not has_card(item)]))
        return "forgotten"

    @function_tool
    async def rewrite(self) -> str:
        """Put another version of each message with the number into its place."""
        await self.update_chat_ctx(ChatContext([_hidden(item) for item in self.chat_ctx.items]))
        return "rewritten"

    @function_tool
    async def mutate(self) -> str:
        """Change each message with the number itself, and tell nobody."""
        for item in self.chat_ctx.items:
            if item.type == "message" and has_card(item):
                item.content[:] = ["A card."]
        return "changed"


def has_card(item: ChatItem) -> bool:
    """Whether an item says the number."""
    return CARD in (text_of(item) or getattr(item, "output", ""))


def _hidden(item: ChatItem) -> ChatItem:
    is_told = item.type == "message" and has_card(item)
    return item.model_copy(update={"content": ["A card."]}) if is_told else item


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Jobs on a model that looks its caller up first."""
    async with Jobs(model) as entered:
        yield entered


async def followed(jobs: Jobs) -> Job:
    """A second job, whose agent is told in words what the first one's tool gave; the caller has talked to both."""
    job = await jobs.start(Bank(), NotedConversation())
    await until(lambda: sum(item.type == "message" for item in job.conversation.items) == 2)
    await job.say("Hello")
    job = await jobs.follow(job, Bank())
    await job.say("Hello again")
    assert [item.id[:5] for item in job.session.current_agent.chat_ctx.items if has_card(item)] == ["told_"]
    assert CARD in all_of(job.conversation)
    return job


async def is_gone(jobs: Jobs, job: Job) -> None:
    """Neither the conversation, nor what is noted, nor a successor's request has the number."""
    await turns()
    assert CARD not in all_of(job.conversation)
    assert job.conversation.removals
    following = await jobs.follow(job, Bank())
    await following.say("And now?")
    assert CARD not in repr(jobs.requests[-1])
    assert "Hello again" in repr(jobs.requests[-1])
    assert job.failures.counts == following.failures.counts == {}


@pytest.mark.parametrize("tool", ["forget", "rewrite", "mutate"])
async def test_taking_out_the_words_of_a_call_takes_out_the_call(jobs: Jobs, tool: str) -> None:
    """The call that they tell of leaves the conversation, and with it the output that has the number."""
    job = await followed(jobs)
    await job.say(f"use {tool}")
    await is_gone(jobs, job)


async def test_they_are_stored_no_more_before_the_past_is_forgotten(jobs: Jobs) -> None:
    """What is noted of the agent's context has the words: it is noted anew first."""
    job = await followed(jobs)
    seen: list[str] = []
    remove: Callable[..., None] = job.conversation.remove

    def removed(*item_ids: str) -> None:
        seen.append(repr(job.conversation.attributes))
        remove(*item_ids)

    job.conversation.remove = removed  # type: ignore[method-assign]
    await job.say("use forget")
    await turns()
    assert seen
    assert not any(CARD in noted for noted in seen)


async def test_a_shorter_memory_is_no_edit(jobs: Jobs) -> None:
    """Who forgets the beginning of the talk forgets the words, and the conversation keeps the call."""
    job = await followed(jobs)
    agent = job.session.current_agent
    await agent.update_chat_ctx(agent.chat_ctx.copy().truncate(max_items=2))
    await job.say("Yes?")
    assert job.conversation.removals == []
    assert CARD in repr([item.to_dict() for item in job.conversation.items])


async def test_taking_out_a_call_takes_out_the_words_that_tell_of_it(jobs: Jobs) -> None:
    """Of one agent's context, or the history, while another has the words: a task that began later, for instance."""
    job = await jobs.start(Bank(), NotedConversation())
    await until(lambda: sum(item.type == "message" for item in job.conversation.items) == 2)
    await job.say("Hello")
    await job.say("use look_up")
    words: dict[str, Any] = {}
    call = next(item for item in job.session.history.items if item.type == "function_call")
    agent = job.session.current_agent
    longer = agent.chat_ctx.copy()
    longer.add_message(role="assistant", content=f"[Before this … {CARD}]", **words)
    longer.items[-1].id = "told_" + call.id.replace("/", "_")
    await agent.update_chat_ctx(longer)
    gone = {
        item.id
        for item in job.session.history.items
        if item.type in {"function_call", "function_call_output"} and item.call_id == call.call_id
    }
    job.session.history.items[:] = [item for item in job.session.history.items if item.id not in gone]
    await job.say("Hello again")
    await turns()
    there = [item for item in job.session.current_agent.chat_ctx.items if item.id.startswith("told_")]
    assert there == []
    assert "[Before this" not in all_of(job.conversation)
