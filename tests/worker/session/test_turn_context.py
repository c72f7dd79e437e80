"""What an agent is to know for one answer comes in time or not at all, and nobody keeps it behind the answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession
from livekit.agents.llm import ChatContext, ChatMessage

from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.session.context import brought_into
from agent_worker.session.notes import SessionNotes
from agent_worker.session.turn_context import MARK, MOST_CHARACTERS, EndedTurn, TurnContexts, is_turn_context
from agent_worker.session.turns import Turns
from tests.support.fakes import turns, until
from tests.support.sessions.answering import user
from tests.worker.conftest import SessionFactory

SOON, PATIENT = 0.01, 20.0
"""Budgets in seconds: for answers that never come, and for those that do."""


class Known:
    """A source that knows something at once."""

    def __init__(self, *texts: str) -> None:
        """`texts`: what it knows."""
        self.texts: Sequence[str] = texts
        self.error: Exception | None = None
        """What it raises instead."""
        self.asked: list[EndedTurn] = []

    async def context(self, turn: EndedTurn) -> Sequence[str]:
        """Answer."""
        self.asked.append(turn)
        if self.error is not None:
            raise self.error
        return self.texts


class Slow:
    """A source that never answers."""

    def __init__(self, *, is_deaf: bool = False) -> None:
        """`is_deaf`: it does not heed that it is to give up, until it `may_end`."""
        self._is_deaf = is_deaf
        self.asked = self.cancelled = 0
        self.is_asked, self.may_end = asyncio.Event(), asyncio.Event()

    async def context(self, turn: EndedTurn) -> Sequence[str]:
        """Answer nothing."""
        assert turn.text
        self.asked += 1
        self.is_asked.set()
        while True:
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self._is_deaf:
                    raise
            else:
                return []


def system(chat_ctx: ChatContext) -> list[str]:
    """What was put into a turn."""
    return [item.text_content or "" for item in chat_ctx.items if item.type == "message" and item.role == "system"]


async def added(contexts: TurnContexts, text: str = "Where is my order?") -> list[str]:
    """End a turn; return what was put into it."""
    chat_ctx = ChatContext.empty()
    await contexts.add(chat_ctx, user(text))
    return system(chat_ctx)


async def test_what_is_known_stands_before_the_message() -> None:
    """As a system message, marked, of all that the sources say; they are told who said what."""
    first, second, failures = Known("Order 42.", " "), Known("Sent on Monday."), Failures()
    contexts = TurnContexts([first, second], budget=PATIENT, failures=failures, speaker=lambda: "alice")
    chat_ctx, message = ChatContext([user("Hello")]), user("Where is my order?")
    await contexts.add(chat_ctx, message)
    chat_ctx.insert(message)
    before, context, last = chat_ctx.items
    assert isinstance(context, ChatMessage)
    assert (before.type, context.role, last) == ("message", "system", message)
    assert (context.text_content, context.extra) == ("Order 42.\nSent on Monday.", {MARK: True})
    assert first.asked == second.asked == [EndedTurn("Where is my order?", message.id, "alice")]
    assert failures.counts == {}


async def test_nothing_known_leaves_a_turn_as_it_is() -> None:
    """LiveKit keeps the answer that it has begun; and nobody is asked about a turn without words."""
    source = Known()
    contexts = TurnContexts([source], budget=PATIENT, failures=Failures())
    assert await added(contexts) == []
    assert await added(contexts, " ") == []
    assert len(source.asked) == 1


async def test_who_is_late_is_given_up_and_the_others_are_heard() -> None:
    """All sources have the budget together."""
    slow, failures = Slow(), Failures()
    contexts = TurnContexts([slow, Known("Order 42.")], budget=SOON, failures=failures)
    assert await added(contexts) == ["Order 42."]
    await until(lambda: slow.cancelled == 1)
    assert failures.counts == {"context": 1}


async def test_who_does_not_give_up_is_left_alone_until_then() -> None:
    """Turns go on without, and no questions pile up."""
    slow, failures = Slow(is_deaf=True), Failures()
    contexts = TurnContexts([slow], budget=SOON, failures=failures)
    told = [await added(contexts) for _ in range(3)]
    slow.may_end.set()
    assert (told, slow.asked, failures.counts) == ([[], [], []], 1, {"context": 3})
    await turns()
    assert await added(contexts) == []
    assert (slow.asked, failures.counts) == (2, {"context": 3})


async def test_each_failure_is_counted_and_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without a word of what somebody said."""
    source, failures = Known("Order 42."), Failures()
    contexts = TurnContexts([source], budget=PATIENT, failures=failures)
    with caplog.at_level(logging.WARNING):
        for error in (ValueError("Order 42"), KeyError("Order 42"), RuntimeError("Order 42")):
            source.error = error
            assert await added(contexts) == []
    assert failures.counts == {"context": 3}
    (told,) = caplog.records
    assert "Order" not in str(vars(told))
    source.error = None
    assert await added(contexts) == ["Order 42."]


async def test_a_turn_that_is_broken_off_asks_no_longer() -> None:
    """The session ends in the middle of it."""
    slow = Slow()
    turn = asyncio.create_task(added(TurnContexts([slow], budget=PATIENT, failures=Failures())))
    await slow.is_asked.wait()
    turn.cancel()
    with suppress(asyncio.CancelledError):
        await turn
    await until(lambda: slow.cancelled == 1)


async def test_too_much_is_cut() -> None:
    """A model's context has an end."""
    contexts = TurnContexts([Known("a", "b" * MOST_CHARACTERS, "c")], budget=PATIENT, failures=Failures())
    assert await added(contexts) == ["a\n" + "b" * (MOST_CHARACTERS - 2)]


async def test_a_speaker_that_is_not_known_costs_no_turn() -> None:
    """LiveKit drops a turn whose hook raises."""

    def fail() -> str:
        raise KeyError

    source, failures = Known("Order 42."), Failures()
    assert await added(TurnContexts([source], budget=PATIENT, failures=failures, speaker=fail)) == ["Order 42."]
    assert [turn.identity for turn in source.asked] == [None]
    assert failures.counts == {"context": 1}


# In a session


class Keeping(Agent):
    """An application that does something with the context of a turn."""

    def __init__(self, chat_ctx: ChatContext | None = None, do: Callable[[ChatContext], Any] | None = None) -> None:
        """`do`: what it does."""
        super().__init__(instructions="x", chat_ctx=chat_ctx)
        self._do = do
        self.seen: list[str] = []

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        """See what is known, and keep it."""
        self.seen += system(turn_ctx)[1:]
        turn_ctx.insert(new_message)
        await self.update_chat_ctx(turn_ctx)
        if self._do is not None:
            self._do(turn_ctx)


Started = Callable[..., Any]


@pytest.fixture
def started(server: OfflineServer, new_session: SessionFactory) -> Started:
    """Start an agent in a session whose turns get a context."""

    @asynccontextmanager
    async def start(agent: Agent, source: Any) -> AsyncIterator[AgentSession[None]]:
        session, failures = await new_session(server), Failures()
        contexts = TurnContexts([source], budget=PATIENT, failures=failures)
        watched = Turns(session, SessionNotes(session, _Nobody(), failures), failures, contexts=contexts)
        watched.start()
        await session.start(agent, record=False)
        yield session
        watched.stop()
        await session.aclose()

    return start


class _Nobody:
    """Takes no notes."""

    def note(self, name: str, value: Any) -> None:
        """Forget it."""


async def end_turn(session: AgentSession[None], text: str) -> ChatContext:
    """LiveKit asks the agent about a turn that has ended; return the context of the answer."""
    turn_ctx = session.current_agent.chat_ctx.copy()
    await session.current_agent.on_user_turn_completed(turn_ctx, new_message=user(text))
    return turn_ctx


def kept(agent: Agent) -> list[str]:
    """What of a turn's own context an agent has."""
    return [item.id for item in agent.chat_ctx.items if is_turn_context(item)]


async def test_an_application_that_keeps_the_turn_keeps_nothing_of_what_was_added(started: Started) -> None:
    """It sees it before it decides; the next turn has its own, and no other."""
    source = Known("Order 42.")
    async with started(Keeping(), source) as session:
        agent = session.current_agent
        assert system(await end_turn(session, "Where is my order?"))[1:] == ["Order 42."]
        assert agent.seen == ["Order 42."]
        assert "Where is my order?" in [getattr(item, "text_content", "") for item in agent.chat_ctx.items]
        assert kept(agent) == []
        source.texts = ["Order 43."]
        assert system(await end_turn(session, "And the other?"))[1:] == ["Order 43."]


async def test_an_agent_that_is_made_from_a_turn_keeps_nothing_of_it(started: Started) -> None:
    """And it is not noted as something that was brought into its context."""
    made: list[Keeping] = []
    sessions: list[AgentSession[None]] = []

    def hand_over(turn_ctx: ChatContext) -> None:
        made.append(Keeping(turn_ctx))
        assert len(kept(made[0])) == 1
        assert "Order 42." not in str(brought_into(made[0].chat_ctx.items, ()))
        sessions[0].update_agent(made[0])

    async with started(Keeping(do=hand_over), Known("Order 42.")) as session:
        sessions.append(session)
        await end_turn(session, "Where is my order?")
        await until(lambda: session.current_agent is made[0] and not kept(made[0]))
        assert "Where is my order?" in [getattr(item, "text_content", "") for item in made[0].chat_ctx.items]
