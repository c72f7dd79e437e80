"""Whatever an application does with its agents and their contexts: each successor's first request is the one due."""

import random

import pytest
from livekit.agents.llm import ChatContext

from tests.support.sessions.jobs import Job, Jobs, NotedConversation, said, tools_of
from tests.worker.session.test_active_agent import MODEL, Front

_STEPS = 25
_SPOKEN = ("use to_billing", "use to_same", "use to_copy", "use back", "use charge", "Hello", "How are you?", "Bye")


async def put(job: Job, chance: random.Random, number: int) -> None:
    """Put something into the context of whoever has the word."""
    agent = job.session.current_agent
    context = agent.chat_ctx.copy()
    context.add_message(role=chance.choice(["system", "assistant"]), content=f"put {number}")
    await agent.update_chat_ctx(context, exclude_invalid_function_calls=False)


async def shorten(job: Job, chance: random.Random, _number: int) -> None:
    """Have the agent forget all but the last words."""
    agent = job.session.current_agent
    shorter = agent.chat_ctx.copy().truncate(max_items=chance.randint(1, 10))
    await agent.update_chat_ctx(shorter, exclude_invalid_function_calls=False)


async def forget(job: Job, chance: random.Random, _number: int) -> None:
    """Have the agent forget this and that, and all calls of tools."""
    agent = job.session.current_agent
    context = agent.chat_ctx.copy(exclude_function_call=True)
    kept = [item for item in context.items if item.id.startswith("lk.") or chance.random() < 0.7]
    await agent.update_chat_ctx(ChatContext(kept))


async def speak(job: Job, chance: random.Random, _number: int) -> None:
    """Say something, by which the word may go to another agent."""
    await job.say(chance.choice(_SPOKEN))


async def crash(jobs: Jobs, job: Job, first: Front) -> Job:
    """Have another job follow, and compare."""
    await job.say("A turn.")
    before, number = jobs.requests[-1], len(jobs.requests)
    kind, last = type(job.session.current_agent), job.session.history.messages()[-1]
    following = await jobs.follow(job, first)
    assert type(following.agent) is kind
    await following.say("And now?")
    request = jobs.requests[number]
    assert said(request) == [*said(before), ("assistant", last.text_content), ("user", "And now?")]
    assert tools_of(request) == tools_of(before)
    assert following.failures.counts == {}
    return following


@pytest.mark.parametrize("items", [16, 200])
@pytest.mark.parametrize("seed", range(3))
async def test_a_successor_has_the_context_after_any_order_of_events(seed: int, items: int) -> None:
    """Handoffs with and without a context, contexts that are changed and shortened, sessions that are cut, crashes."""
    chance = random.Random(f"{seed} {items}")  # guards nothing
    context = ChatContext.empty()
    context.add_message(role="system", content="Pinned.")

    def first() -> Front:
        return Front(chat_ctx=context.copy())

    async with Jobs(MODEL, items=items) as jobs:
        job = await jobs.start(first(), NotedConversation())
        for number in range(_STEPS):
            step = chance.choice([speak, speak, speak, speak, put, shorten, forget, None])
            job = job if step is not None else await crash(jobs, job, first())
            if step is not None:
                await step(job, chance, number)
        await crash(jobs, job, first())
