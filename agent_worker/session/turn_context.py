"""What an agent is to know for the answer to one turn, asked of others while the caller waits: in time, or not at all.

It is in the context of that answer only: it is no part of the agent's context, and is not recorded.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from livekit.agents import Agent, AgentSession
from livekit.agents.llm import LLM, ChatContext, ChatItem, ChatMessage
from livekit.agents.utils import is_given

from agent_worker.failures import Failures, Outage

logger = logging.getLogger(__name__)

MARK = "conversation_actors.turn_context"
"""Key in an item's ``extra``, which models are not told: the item is of one turn, and is kept by nobody."""
MOST_CHARACTERS = 16_000
"""What is added to one turn at most: a model's context must not overflow because somebody else says too much."""
_TASK = "context"
_TOLD = "a turn goes on without the context that was asked for"
_KEPT_OUT = "kept_out_by_turn_context"
Speaker = Callable[[], str | None]
"""Gives the identity of whoever has just spoken; None if that is not known."""


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """What a person has just said, and the agent is about to answer."""

    text: str
    item_id: str
    """LiveKit's id of the message. If LiveKit has begun the answer before the turn's end, and nothing was added to the
    turn, the message comes into the history under another id."""
    identity: str | None
    """Who said it; None if that is not known."""


class TurnContext(Protocol):
    """A source of what an agent is to know for one answer."""

    async def context(self, turn: EndedTurn) -> Sequence[str]:
        """Return texts, possibly none. Whatever it raises, the turn goes on without. It is cancelled if it is late."""


class TurnContexts:
    """The sources of a call, asked side by side. They have one budget, however many there are, and whatever they do."""

    def __init__(
        self, sources: Iterable[TurnContext], *, budget: float, failures: Failures, speaker: Speaker = lambda: None
    ) -> None:
        """`budget`: seconds. What does not come is counted in `failures`, under ``context``."""
        self._sources = [_Asked(source, failures) for source in sources]
        self._budget, self._speaker, self._failures = budget, speaker, failures

    async def add(self, chat_ctx: ChatContext, message: ChatMessage) -> None:
        """Put what the sources have into a turn's own context, before the message; never raises an `Exception`."""
        text = message.text_content or ""
        if not text.strip():
            return
        try:
            identity = self._speaker()
        except Exception as error:  # noqa: BLE001  # LiveKit would drop the turn
            self._failures.count(_TASK, error, "it is not known who ended a turn")
            identity = None
        turn = EndedTurn(text, message.id, identity)
        texts = await self._gathered(turn)
        if texts:
            # at the time of the message, which LiveKit puts behind it
            chat_ctx.insert(
                ChatMessage(
                    role="system",
                    content=[_cut("\n".join(texts))],
                    created_at=message.created_at,
                    extra={MARK: True},
                )
            )

    def stop(self) -> None:
        """Give up what is asked now: a turn that waits for it goes on without."""
        for source in self._sources:
            source.give_up()

    async def _gathered(self, turn: EndedTurn) -> list[str]:
        asked = [(source, source.begin(turn)) for source in self._sources]
        tasks = [task for _, task in asked if task is not None]
        if tasks:
            try:
                # does not wait for what it gives up, unlike `asyncio.timeout`
                await asyncio.wait(tasks, timeout=self._budget)
            finally:
                for task in tasks:
                    task.cancel()  # nothing, if it is done
        return [text for source, task in asked for text in source.taken(task)]


class _Asked:
    """One source, and what it is asked: one question at a time."""

    def __init__(self, source: TurnContext, failures: Failures) -> None:
        self._source = source
        self._outage = Outage(failures, _TASK, _TOLD)
        self._task: asyncio.Task[list[str]] | None = None

    def begin(self, turn: EndedTurn) -> "asyncio.Task[list[str]] | None":
        """Ask; None if the source does not heed that it was to give up an earlier question."""
        if self._task is not None and not self._task.done():
            return None
        self._task = asyncio.create_task(self._texts(turn))
        self._task.add_done_callback(_look)
        return self._task

    def give_up(self) -> None:
        """Wait for no answer any more."""
        if self._task is not None:
            self._task.cancel()

    def taken(self, task: "asyncio.Task[list[str]] | None") -> list[str]:
        """Return the answer to what `begin` has asked, if it is there; else count why it is not."""
        error: BaseException | None = TimeoutError()
        if task is not None and task.done():
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._outage.failed(error)
            return []
        assert task is not None
        self._outage.succeeded()
        return task.result()

    async def _texts(self, turn: EndedTurn) -> list[str]:
        return [text for text in await self._source.context(turn) if text.strip()]


def is_turn_context(item: ChatItem) -> TypeGuard[ChatMessage]:
    """Tell whether an item is of one turn, and is to be kept by nobody."""
    return item.type == "message" and MARK in item.extra


def keep_out(agent: Agent) -> None:
    """Keep what is of one turn out of an agent's context, whatever the application makes its context from."""
    update = agent.update_chat_ctx
    if getattr(update, _KEPT_OUT, False):
        return

    @functools.wraps(update)
    async def update_chat_ctx(chat_ctx: ChatContext, **named: Any) -> None:
        await update(without_turn_context(chat_ctx), **named)

    setattr(update_chat_ctx, _KEPT_OUT, True)
    agent.update_chat_ctx = update_chat_ctx  # type: ignore[method-assign]  # on this instance: there is no event


def without_turn_context(chat_ctx: ChatContext) -> ChatContext:
    """Return a context without what is of one turn; itself, if there is nothing of that in it."""
    if not any(map(is_turn_context, chat_ctx.items)):
        return chat_ctx
    return ChatContext([item for item in chat_ctx.items if not is_turn_context(item)])


def takes_context(agent: Agent, session: AgentSession[Any]) -> bool:
    """Tell whether an agent answers from a turn's own context: a realtime model has one of its own."""
    return isinstance(agent.llm if is_given(agent.llm) else session.llm, LLM)


def _cut(text: str) -> str:
    """Return as much of a text as may be added to a turn."""
    if len(text) > MOST_CHARACTERS:
        logger.warning("the context of a turn is too long, and was cut", extra={"characters": len(text)})
    return text[:MOST_CHARACTERS]


def _look(task: "asyncio.Task[list[str]]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waited knows it, and asyncio need not tell
