"""Conversation → session: the history a new agent starts with, before the session starts.

`Agent(chat_ctx=…)` is not used: it drops calls of tools that the agent does not have, and leaves the
session's own history empty.
"""

import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from livekit.agents import Agent, AgentSession
from livekit.agents.llm import ChatContext, ChatItem, FunctionCall, FunctionCallOutput

from agent_worker.session.archived_pictures import pictures_of, shown
from agent_worker.session.beginnings import begun, told_in_words
from agent_worker.session.calls import FINAL, INTERRUPTED_OUTPUT, paired
from agent_worker.session.context import Brought, brought_into, composed, is_kept_apart
from agent_worker.session.entering import entrance_of, keep_context_on_enter
from agent_worker.session.had_the_word import HadTheWord
from agent_worker.session.protocol import Conversation
from agent_worker.session.recorder import RESERVED_PREFIX, belongs_in_history
from agent_worker.session.remarks import STANDS_BEFORE, STILL_RUNNING, is_report_of, remark
from agent_worker.session.saved_state import restore_itself
from agent_worker.session.stored_items import known_as, to_livekit
from conversation_actors.items import DATA_MESSAGE, Item

__all__ = ["INTERRUPTED_OUTPUT", "Restored", "active_agent", "restore", "restore_late"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a session was given, in numbers; `interrupted_calls` are outputs made up for calls that had none."""

    messages: int
    function_calls: int
    function_call_outputs: int
    handoffs: int
    left_out: int
    """Instructions and configuration, of which the agent brings its own, and data messages, which are no words."""
    unreadable: int
    """Items this version of LiveKit cannot read; they stay in the conversation."""
    duplicate_outputs: int
    """Second outputs of one call, as a deposed agent may have left them, and outputs of no call."""
    interrupted_calls: tuple[FunctionCallOutput, ...]
    ends: tuple[FunctionCall, ...] = ()
    """Calls made up for those of `interrupted_calls` whose tools had reported before they died."""

    @classmethod
    def nothing(cls) -> Self:
        """Nothing was given."""
        return cls(0, 0, 0, 0, 0, 0, 0, ())

    @property
    def made_up(self) -> tuple[ChatItem, ...]:
        """What the conversation lacks of it: record it, and each successor is told the same."""
        return *self.ends, *self.interrupted_calls

    @property
    def items(self) -> int:
        """Items the session's history now holds."""
        return self.messages + self.function_calls + self.function_call_outputs + self.handoffs


async def restore(
    session: AgentSession[Any],
    agent: Agent,
    conversation: Conversation,
    *,
    had: HadTheWord | None = None,
    clock: Callable[[], float] = time.time,
) -> Restored:
    """Give a session that has not started, and its agent, what the conversation holds.

    Everything comes back as LiveKit had it, in the conversation's order. Time stamps are changed only if
    they would break that order or lie in the future (another node's clock). An item that LiveKit cannot
    read is skipped and counted, never the whole history. A picture that the archive cannot give is told in words.
    Raises `RuntimeError` if the session has started.

    Neither begins with calls of tools: what they gave before the caller's first turn is told the agent in words. The
    agent's context is what the agent has been made with, and after that the history. If the agent `had` the
    word before (see `agent_with_the_word`), it is what it was then, and all that has been said since; what `on_enter`
    would put into it is not put there once more.
    """
    _require_not_started(session)
    pictures = await pictures_of(conversation)
    now = clock()
    items, restored = _history(conversation, now, pictures)
    session.history.merge(ChatContext(begun(items)))
    brought = _brought(agent, frozenset(), had)
    await _give(agent, told_in_words(composed(_heard(items, restored, had), brought, now)))
    if had is not None and had.tasks is not None:
        give_back = functools.partial(_give_task_back, items, restored, clock)
        entrance_of(agent).tasks.go_on(had.tasks, give_back, is_entering=not had.has_entered)
    if had is not None and had.has_entered:
        keep_context_on_enter(agent)
    return restored


async def _give_task_back(
    history: list[ChatItem], restored: Restored, clock: Callable[[], float], task: Agent, had: HadTheWord
) -> None:
    """Give a task, which the agent's `on_enter` waits for again, what it was and what it knew."""
    await restore_itself(task, had)
    brought = _brought(task, frozenset(), had)
    await _give(task, told_in_words(composed(_heard(history, restored, had), brought, clock())))
    if had.has_entered:
        keep_context_on_enter(task)


async def restore_late(
    session: AgentSession[Any],
    conversation: Conversation,
    agent: Agent | None = None,
    *,
    had: HadTheWord | None = None,
    running: Collection[str] = (),
    clock: Callable[[], float] = time.time,
) -> Restored:
    """Give a session that runs already what the conversation held before it: put in front of what it has.

    Whatever the clocks say: LiveKit sorts by time, so what was before gets times before the session's own. The agent's
    context is made as by `restore`, and what was said in this session comes after it. `agent`: whose context that is,
    if another one speaks in its name.
    """
    pictures = await pictures_of(conversation)
    own = session.history.items
    now = min(clock(), min((math.nextafter(item.created_at, 0.0) for item in own), default=math.inf))
    items, restored = _history(conversation, now, pictures, frozenset(running))
    known = {item.id for item in own}
    before = [item for item in items if item.id not in known]
    session.history.merge(ChatContext(begun(before)))
    agent = agent or session.current_agent
    context = agent.chat_ctx.items
    earlier = told_in_words(composed(_heard(before, restored, had), _brought(agent, known, had), now))
    instructions = [item for item in context if item.id.startswith(RESERVED_PREFIX)]
    there = {item.id for item in [*instructions, *earlier]}
    said = [item for item in context if item.id not in there and (item.id in known or is_kept_apart(item))]
    await _give(agent, [*instructions, *earlier, *said])
    return restored


def _heard(history: list[ChatItem], restored: Restored, had: HadTheWord | None) -> list[ChatItem]:
    if had is None:
        return history
    return had.heard.choose(history, frozenset(output.call_id for output in restored.interrupted_calls))


def _brought(agent: Agent, history: Collection[str], had: HadTheWord | None) -> tuple[Brought, ...]:
    """Return what stands before and between the history's items: as it was noted, else as the agent was made."""
    if had is not None and had.is_whole:
        return had.brought
    there = () if had is None else had.brought
    known = [_said(one.item) for one in there]
    made_with = (one.item for one in brought_into(agent.chat_ctx.items, history))
    return (*(Brought(None, item) for item in made_with if _said(item) not in known), *there)


def _said(item: ChatItem) -> object:
    """Return what tells two items of one content: an application makes the same message anew in each job."""
    return (item.role, item.content) if item.type == "message" else item.id


async def _give(agent: Agent, context: list[ChatItem]) -> None:
    # the default would drop calls of tools which this agent does not have
    await agent.update_chat_ctx(ChatContext(context), exclude_invalid_function_calls=False)


def active_agent(
    history: Iterable[Item], others: Mapping[str, Callable[[], Agent]], first: Callable[[], Agent]
) -> Agent:
    """Make the agent that had the word last, so that a handover outlives a crash.

    `others` are found by LiveKit's agent id (the class's name in snake case); an unknown id, or none,
    makes the `first`.

    Example:
        agent = active_agent(conversation.items, {"specialist": Specialist}, Assistant)
    """
    handed = (item.to_dict().get("new_agent_id") for item in history if item.type == "agent_handoff")
    last = next(reversed(list(handed)), None)
    return others.get(str(last), first)()


def _history(
    conversation: Conversation, now: float, pictures: Mapping[str, str], running: frozenset[str] = frozenset()
) -> tuple[list[ChatItem], Restored]:
    """Return the conversation's items as LiveKit's, and the numbers of those that a session's history is given."""
    left_out, unreadable, read = _read(shown(one, pictures) for one in conversation.items)
    read = [item for item in read if not _is_of(item, running)]
    reports = {stored.id: call for stored in conversation.items if (call := remark(stored, STILL_RUNNING)) is not None}
    told = paired(_words_before_calls(read), reports)
    items = _in_time_order(told.items, now)
    count = _counter(begun(items))
    return items, Restored(
        messages=count("message"),
        function_calls=count("function_call"),
        function_call_outputs=count("function_call_output"),
        handoffs=count("agent_handoff"),
        left_out=left_out,
        unreadable=unreadable,
        duplicate_outputs=told.left_out,
        interrupted_calls=told.outputs,
        ends=told.calls,
    )


def _is_of(item: ChatItem, calls: Collection[str]) -> bool:
    if not isinstance(item, FunctionCall | FunctionCallOutput):
        return False
    return any(is_report_of(item.call_id, call) or item.call_id == call + FINAL for call in calls)


def _require_not_started(session: AgentSession[Any]) -> None:
    try:
        session.current_agent  # noqa: B018  # the public way to ask: it raises while the session is not running
    except RuntimeError:
        return
    message = "restore a session before session.start(): a running one has a history of its own"
    raise RuntimeError(message)


def _counter(items: list[ChatItem]) -> Callable[[str], int]:
    return lambda kind: sum(1 for item in items if item.type == kind)


def _read(stored: Iterable[Item]) -> tuple[int, int, list[ChatItem]]:
    left_out = unreadable = 0
    items: list[ChatItem] = []
    for one in stored:
        if one.type == DATA_MESSAGE:
            left_out += 1
            continue
        item = to_livekit(one)
        if item is None:
            unreadable += 1
        elif _is_instruction(item) or belongs_in_history(item):
            items.insert(_place(items, remark(one, STANDS_BEFORE)), item)
        else:
            left_out += 1
    return left_out, unreadable, _apart(items)


def _place(items: Sequence[ChatItem], before: str | None) -> int:
    """Where an item goes: after all, but for one that LiveKit has dated back, as it does with a late transcript."""
    if before is None:
        return len(items)
    return next((index for index, item in enumerate(items) if item.id == before), len(items))


def _is_instruction(item: ChatItem) -> bool:
    """Whether somebody put a system message into the conversation; LiveKit's own have reserved ids."""
    return item.type == "message" and not item.id.startswith(RESERVED_PREFIX)


def _apart(items: list[ChatItem]) -> list[ChatItem]:
    """Rename assistant messages whose ids share what is before a slash.

    LiveKit takes that part for the id of one model reply, and asserts, at every request from then on, that a
    reply has one message.
    """
    replies: set[str] = set()
    for index, item in enumerate(items):
        if item.type != "message" or item.role != "assistant":
            continue
        if (reply := item.id.split("/", 1)[0]) in replies:
            items[index] = item.model_copy(update={"id": known_as(item.id)})
        replies.add(reply)
    return items


def _words_before_calls(items: list[ChatItem]) -> list[ChatItem]:
    """Put what was said in a model reply before the calls of the same reply, as LiveKit has them.

    Calls are recorded before their tools run, words only after they were spoken.
    """
    ordered: list[ChatItem] = []
    for item in items:
        place = len(ordered)
        if item.type == "message" and item.role == "assistant":
            prefix = item.id + "/"
            calls = (
                i for i, other in enumerate(ordered) if other.type == "function_call" and other.id.startswith(prefix)
            )
            place = next(calls, place)
        ordered.insert(place, item)
    return ordered


def _in_time_order(items: list[ChatItem], now: float) -> list[ChatItem]:
    """Make time stamps rise with the order, and none later than now: LiveKit sorts new items in by them."""
    latest = 0.0
    ordered: list[ChatItem] = []
    for item in items:
        latest = max(latest, min(item.created_at, now))
        ordered.append(item if item.created_at == latest else item.model_copy(update={"created_at": latest}))
    return ordered
