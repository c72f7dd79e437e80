"""A call in text: this process runs the agent and speaks the caller's part of a transcript.

Everything that happens is told in lines of JSON, for people and for a demo that watches several processes.
It picks a call up wherever the conversation's history ends, also in the middle of a turn.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TextIO

from livekit.agents import AgentSession, ConversationItemAddedEvent, FunctionToolsExecutedEvent
from livekit.agents.llm import ChatItem, ChatMessage
from livekit.agents.voice.events import ToolCallStarted, ToolExecutionUpdatedEvent

from agent_worker.call.attach import Attached, attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline.transcript import Transcript
from agent_worker.session.protocol import Conversation
from conversation_actors.errors import ConversationError
from conversation_actors.items import Item

logger = logging.getLogger(__name__)


class Entry(Protocol):
    """One change of a conversation, at its position."""

    @property
    def seq(self) -> int:
        """The position."""


class WatchedConversation(Conversation, Protocol):
    """A conversation that can also be followed."""

    def watch(self, *, after_seq: int) -> AsyncIterator[Entry]:
        """Entries in order from a position on, without end; the local copy follows within milliseconds."""


class Report:
    """Writes one line of JSON for each event."""

    def __init__(self, out: TextIO, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch, written as `at`."""
        self._out = out
        self._clock = clock

    def __call__(self, event: str, **fields: Any) -> None:
        """Write and flush, so that whoever reads the other end sees it even if this process is killed next."""
        line = {"event": event, "at": round(self._clock(), 6), **fields}
        self._out.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self._out.flush()


@dataclass(frozen=True, slots=True)
class TalkOptions:
    """How much to speak. `first_turn` (from 0) None: where the history ends. `turns` None: to the end."""

    first_turn: int | None = None
    turns: int | None = None
    pause: timedelta = timedelta(0)
    greeting: str = ""
    """What the agent says first; nothing if it is empty."""


class _Tracked:
    """A conversation that remembers which items it took (`pending`), until they are acknowledged."""

    def __init__(self, conversation: Conversation) -> None:
        self.pending: dict[str, None] = {}
        self._conversation = conversation

    @property
    def items(self) -> tuple[Item, ...]:
        return self._conversation.items

    @property
    def seq(self) -> int:
        return self._conversation.seq

    def record(self, item: Item, /) -> None:
        self._conversation.record(item)
        self.pending[item.id] = None

    async def flush(self) -> None:
        """Items that are recorded while this waits stay pending."""
        sent = list(self.pending)
        await self._conversation.flush()
        for identity in sent:
            del self.pending[identity]


class _Narrator:
    """Reports what a session does."""

    def __init__(self, report: Report, conversation: Conversation) -> None:
        self.turn = 0
        self._report = report
        self._conversation = conversation

    def listen(self, session: AgentSession[Any]) -> None:
        """Report from now on."""
        session.on("conversation_item_added", self._on_item_added)
        session.on("tool_execution_updated", self._on_tool_updated)
        session.on("function_tools_executed", self._on_tools_executed)

    def _on_item_added(self, event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, ChatMessage):
            self._tell(
                event.item.role, event.item, text=event.item.text_content or "", interrupted=event.item.interrupted
            )
        elif event.item.type == "agent_handoff":
            self._tell("handoff", event.item, to=event.item.new_agent_id)

    def _on_tool_updated(self, event: ToolExecutionUpdatedEvent) -> None:
        if isinstance(event.update, ToolCallStarted):
            call = event.update.function_call
            self._tell("tool_call", call, name=call.name, arguments=call.arguments, call_id=call.call_id)

    def _on_tools_executed(self, event: FunctionToolsExecutedEvent) -> None:
        for output in event.function_call_outputs:
            self._tell("tool_output", output, name=output.name, output=output.output, is_error=output.is_error)

    def _tell(self, event: str, item: ChatItem, **fields: Any) -> None:
        try:
            self._report(event, turn=self.turn, id=item.id, seq=self._conversation.seq, **fields)
        except Exception:
            # a TypeError out of a handler would kill the agent's reply
            logger.exception("an event could not be reported")


async def talk(
    conversation: Conversation,
    session: AgentSession[Any],
    transcript: Transcript,
    options: TalkOptions,
    report: Report,
) -> int:
    """Hold the call to its end, or for `options.turns` turns. Returns how many turns were spoken or continued.

    A turn that already has its answer is not spoken again, and the model is not asked for it again; one that
    has none yet is continued without its words being repeated. The session is closed after its last turn.
    What the language model's server refuses is raised. That Redis or the cluster is away is only reported.
    """
    agent = SupportAgent()
    tracked = _Tracked(conversation)
    attached = await attach(session, agent, tracked)
    _report_start(attached, conversation, report)
    narrator = _Narrator(report, conversation)
    narrator.listen(session)
    first, half_done = position(session.history.items, transcript)
    if options.first_turn is not None:
        first, half_done = options.first_turn, False
    await session.start(agent, record=False)
    if options.greeting:
        await session.say(options.greeting)
        await _acknowledge(tracked, first, report)
    spoken = 0
    for number in _turn_numbers(first, half_done, transcript, options):
        if spoken:
            await asyncio.sleep(options.pause.total_seconds())
        narrator.turn = number
        if half_done:
            report("continuing", turn=number)
            await _continue(session)
        else:
            await session.run(user_input=transcript.turns[number].user)
        half_done, spoken = False, spoken + 1
        await _acknowledge(tracked, number, report)
    await session.aclose()
    report(
        "finished", turns=spoken, items=len(conversation.items), seq=conversation.seq, refused=attached.recorder.refused
    )
    return spoken


def _report_start(attached: Attached, conversation: Conversation, report: Report) -> None:
    restored = attached.restored
    report(
        "started",
        seq=conversation.seq,
        restored=restored.items,
        messages=restored.messages,
        function_calls=restored.function_calls,
        function_call_outputs=restored.function_call_outputs,
        handoffs=restored.handoffs,
        interrupted_calls=len(restored.interrupted_calls),
        unreadable=restored.unreadable,
    )


def position(history: Sequence[ChatItem], transcript: Transcript) -> tuple[int, bool]:
    """Where in the transcript a history ends: the turn to go on with, and whether that turn has begun already.

    A turn has begun if its user message is there and the last word is not the agent's.
    """
    spoken = [item for item in history if item.type in {"message", "function_call", "function_call_output"}]
    known = [
        (place, turn)
        for place, item in enumerate(spoken)
        if isinstance(item, ChatMessage) and item.role == "user"
        if (turn := transcript.position(item.text_content or "")) is not None
    ]
    if not known:
        return 0, False
    turn = known[-1][1]
    last = spoken[-1]
    answered = isinstance(last, ChatMessage) and last.role == "assistant"
    return (turn + 1, False) if answered else (turn, True)


def _turn_numbers(first: int, half_done: bool, transcript: Transcript, options: TalkOptions) -> range:  # noqa: FBT001
    end = len(transcript.turns)
    if half_done and first >= end:
        end = first + 1
    return range(first, end if options.turns is None else min(end, first + options.turns))


async def _continue(session: AgentSession[Any]) -> None:
    """Let the agent answer what is already in its history."""
    handle = session.generate_reply()
    await handle
    if (error := handle.exception()) is not None:
        raise error


async def _acknowledge(conversation: _Tracked, turn: int, report: Report) -> None:
    """Wait until the turn is durable. If it is not yet, say so and go on: a call does not wait for a database."""
    ids = list(conversation.pending)
    try:
        await conversation.flush()
    except ConversationError as error:
        report("not_acknowledged", turn=turn, pending=len(ids), reason=str(error))
        return
    report("acknowledged", turn=turn, items=len(conversation.items), seq=conversation.seq, ids=ids)


async def watch(conversation: WatchedConversation, report: Report) -> None:
    """Report every item that comes in or changes, until cancelled."""
    known = {item.id: item.to_dict() for item in conversation.items}
    report("watching", items=len(known), seq=conversation.seq)
    async for entry in conversation.watch(after_seq=conversation.seq):
        while conversation.seq < entry.seq:  # noqa: ASYNC110  # the copy follows by itself, milliseconds later
            await asyncio.sleep(0.005)
        current = {item.id: item.to_dict() for item in conversation.items}
        for identity, fields in current.items():
            if known.get(identity) != fields:
                report("item", seq=entry.seq, item=fields)
        known = current
