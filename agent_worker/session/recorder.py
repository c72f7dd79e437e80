"""Session → conversation: everything that enters a session's history is recorded as it happens.

Nothing is kept back for the end of the call: no hook of LiveKit's runs in a crash.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from livekit.agents import AgentSession, ConversationItemAddedEvent, FunctionToolsExecutedEvent
from livekit.agents.llm import AgentHandoff, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from livekit.agents.voice.events import (
    ToolCallEnded,
    ToolCallStarted,
    ToolCallUpdated,
    ToolExecutionUpdatedEvent,
)

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.heard_language import HeardLanguage
from agent_worker.session.item_writer import ItemWriter, remember
from agent_worker.session.pictures import Archive, Pictures
from agent_worker.session.protocol import Conversation
from agent_worker.session.remarks import without_remarks
from conversation_actors.items import DATA_MESSAGE, PINNED_ROLES

logger = logging.getLogger(__name__)

MAX_ANNOUNCED = 64
"""Calls remembered between their start and their end; more than ever run at one time."""
RESERVED_PREFIX = "lk."
"""LiveKit's own messages, such as the agent's instructions, have ids that start so."""
_LANGUAGE_UNKNOWN = "it is not known in which language something was said"
Speaker = Callable[[ChatMessage], Mapping[str, Any] | None]
"""Gives ``{identity, device}`` of whoever has spoken, or typed, a message; None if that is not known."""


def belongs_in_history(item: ChatItem) -> bool:
    """Whether an item is part of the conversation; instructions and configuration belong to the agent."""
    if item.id.startswith(RESERVED_PREFIX) or item.type == "agent_config_update":
        return False
    return not (item.type == "message" and item.role in {"system", "developer"})


def _leaves_in_its_turn(fields: dict[str, Any]) -> bool:
    """Whether an item's place tells what has left: system messages stay, and a call leaves with its last output."""
    return fields.get("role") not in PINNED_ROLES and fields["type"] not in {"function_call", "function_call_output"}


def _place(oldest: dict[str, Any] | None, own: list[ChatItem]) -> int:
    """Return the index of the first item that cannot have left, as the `oldest` one of the conversation has not."""
    if oldest is not None and oldest["type"] == DATA_MESSAGE:  # is not in the session: its time tells
        later = (index for index, item in enumerate(own) if item.created_at >= oldest["created_at"])
        return next(later, len(own))
    return next((index for index, item in enumerate(own) if oldest is not None and item.id == oldest["id"]), 0)


class Recorder:
    """The recorder of a session's messages, handoffs, tool calls and outputs into a conversation.

    A tool call is recorded before the tool runs, and again only if it changed. Handlers never raise and never
    wait; an item that is refused is logged, without its text, and counted in `refused`. If the conversation
    could not take it for now, `record_again` brings it.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: Conversation,
        failures: Failures | None = None,
        *,
        speaker: Speaker | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        """Nothing is recorded before `start`. What is refused is counted in `failures` too.

        `speaker` is asked who said a user message, when it enters the history; `pictures` are as they are stored.
        """
        self.recorded = 0
        self.refused = 0
        self._session = session
        self._conversation = conversation
        self._failures = failures or Failures()
        self._announced: dict[str, tuple[FunctionCall, dict[str, Any] | None]] = {}
        self._own: dict[str, None] = {}
        self._speaker, self._language = speaker, HeardLanguage()
        self._passed_over: set[str] = set()
        self._running: dict[str, bool] = {}
        """The calls whose tools run, and whether they have reported: such tools work in the background."""
        self._writer = ItemWriter(
            session,
            conversation,
            pictures or Pictures(failures=self._failures, archive=_archive_of(conversation)),
            running=self._running,
            on_refused=self._refuse,
        )
        self._expected: list[str | None] = []
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": total(self._language.hear, self._failures, "recorder", _LANGUAGE_UNKNOWN),
            "conversation_item_added": self._on_item_added,
            "function_tools_executed": self._on_tools_executed,
            "tool_execution_updated": self._on_tool_updated,
        }

    def expect(self, chain: Iterable[str]) -> None:
        """Who has the word already: an agent, by its id, and the tasks in it. That they get it is no news."""
        self._expected = [None, *chain]

    def start(self) -> Self:
        """Record from now on. Call it before the session starts, or its first handoff is missed."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)
        return self

    def stop(self) -> None:
        """Record no more. What was recorded is still being sent by the conversation's handle."""
        self._writer.stop()
        for name, handler in self._handlers.items():
            self._session.off(name, handler)

    @property
    def has_unrecorded_calls(self) -> bool:
        """Whether a tool is called whose call was refused, and is not in the conversation since."""
        refused = {call_id for call_id, (_, fields) in self._announced.items() if fields is None}
        return bool(refused) and not refused <= {item.id for item in self._conversation.items}

    @property
    def running_calls(self) -> frozenset[str]:
        """The call ids of tools that run now, also in the background."""
        return frozenset(self._running)

    def record(self, items: Iterable[ChatItem]) -> None:
        """Record items, also from outside of an event. Never raises."""
        for item in items:
            try:
                self._record(item)
            except Exception as error:  # noqa: BLE001  # a TypeError out of a handler kills the agent's reply
                self._refuse(item, error)

    def leave_out(self, item_ids: Iterable[str]) -> None:
        """Record these items no more, whoever tells of them: they were taken out of the conversation.

        A call goes with its outputs, as it does there.
        """
        ids = set(item_ids)
        known = [*self._session.history.items, *(call for call, _ in self._announced.values())]
        calls = {getattr(item, "call_id", None) for item in known if item.id in ids} - {None}
        self._passed_over |= ids | {item.id for item in known if getattr(item, "call_id", None) in calls}
        self._writer.leave_out(self._passed_over)

    def record_again(self, *, is_afresh: bool, is_full: bool = False) -> None:
        """Record what the session has and the conversation lacks. Never raises.

        `is_afresh`: the conversation has lost everything, so all that the session still has is recorded. Else only
        what was recorded here before, and is not there as it was recorded; if the conversation `is_full`, not what
        came before the oldest item that it holds: it was left behind. Either with the calls whose tools are running.
        An item whose successors are stored already comes after them: the conversation keeps the order in which it
        takes items. Their time stamps tell the other one.
        """
        there = self._session.history.items
        own = [item for item in there if belongs_in_history(item) and item.id not in self._passed_over]
        items = self._with_running_calls(own)
        if not is_afresh:
            items = self._lacking(items, is_full=is_full)
        self._writer.are_lost(None if is_afresh else {item.id for item in items})
        for item in items:
            try:
                self._writer.write(item)
            except Exception as error:  # noqa: BLE001  # one that is refused costs only itself
                self._refuse(item, error)
        logger.info("recorded again", extra={"items": len(items), "is_afresh": is_afresh})

    def _with_running_calls(self, items: list[ChatItem]) -> list[ChatItem]:
        """Return the session's items with the announced calls, which the session gets when their tools end."""
        there = {item.id for item in items}
        complete = list(items)
        for call, _ in self._announced.values():
            if call.id not in there and call.id not in self._passed_over:
                outputs = (i for i, item in enumerate(complete) if getattr(item, "call_id", None) == call.call_id)
                complete.insert(next(outputs, len(complete)), call)
        return complete

    def _lacking(self, items: list[ChatItem], *, is_full: bool) -> list[ChatItem]:
        """Those that were recorded here, and are not in the conversation as they were recorded."""
        known = {item.id: without_remarks(item.to_dict()) for item in self._conversation.items}
        own = [item for item in items if item.id in self._own]
        oldest = next((fields for fields in known.values() if _leaves_in_its_turn(fields)), None)
        first = _place(oldest, own) if is_full else 0
        return [item for item in own[first:] if known.get(item.id) != self._writer.fields(item)]

    def _on_item_added(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if item.type == "unknown":
            return
        if item.type == "agent_handoff" and self._is_no_news(item):
            self._passed_over.add(item.id)
            return
        if item.type == "message" and item.role == "user":
            self._name_speaker(item)
        self.record([item])

    def _is_no_news(self, handoff: AgentHandoff) -> bool:
        """Whether a session begins with the agent that has the word already, as a successor's does; or its tasks."""
        if self._expected[:2] == [handoff.old_agent_id, handoff.new_agent_id] and len(self._expected) > 1:
            del self._expected[0]
            return True
        self._expected = []
        if handoff.old_agent_id is not None:
            return False
        items = reversed(self._conversation.items)
        last = next((item.to_dict() for item in items if item.type == "agent_handoff"), {})
        return last.get("new_agent_id") == handoff.new_agent_id

    def _name_speaker(self, message: ChatMessage) -> None:
        """Note in the message who said it, and in which language: models are not told, whoever reads the history is."""
        try:
            self._language.note_in(message)
            speaker = self._speaker(message) if self._speaker is not None else None
            if speaker is not None and "participant" not in message.extra:
                message.extra["participant"] = {"identity": speaker["identity"], "device": speaker.get("device")}
        except Exception as error:  # noqa: BLE001  # the message is recorded, whoever said it
            self._failures.count("recorder", error, "it is not known who said something")

    def _on_tools_executed(self, event: FunctionToolsExecutedEvent) -> None:
        # before 1.7 LiveKit has no output for a tool that wants silence, and the call would look interrupted
        given: list[FunctionCallOutput | None] = [*event.function_call_outputs]
        pairs = zip(event.function_calls, given, strict=False)
        outputs = [_silent(call) if output is None else output for call, output in pairs]
        self.record([*event.function_calls, *outputs])

    def _on_tool_updated(self, event: ToolExecutionUpdatedEvent) -> None:
        update = event.update
        if isinstance(update, ToolCallStarted):
            self._running[update.function_call.call_id] = False
            self._announce(update.function_call)
        elif isinstance(update, ToolCallUpdated):
            self._running[update.call_id] = True
        elif isinstance(update, ToolCallEnded):
            if update.id != update.call_id:
                self._record_late(
                    lambda call_id: call_id == update.id or call_id.startswith(f"{update.call_id}_update_")
                )
            # after that: what a tool has reported that gave nothing in the end is told as interrupted
            self._running.pop(update.call_id, None)
        elif update.status == "scheduled":
            late = frozenset(update.update_ids)
            self._record_late(lambda call_id: call_id in late)

    def _announce(self, call: FunctionCall) -> None:
        """Record a call before its tool runs, and remember how, so that it is not sent twice unchanged."""
        before = self.recorded
        self.record([call])
        # one that was refused is sent once more when its tool ends
        self._announced[call.id] = call, None if self.recorded == before else self._writer.fields(call)
        if len(self._announced) > MAX_ANNOUNCED:
            del self._announced[next(iter(self._announced))]

    def _record_late(self, wanted: Callable[[str], bool]) -> None:
        """Record what a tool that works in the background put into the history; LiveKit has no event for it."""
        items = self._session.history.items
        self.record(
            item for item in items if item.type in {"function_call", "function_call_output"} and wanted(item.call_id)
        )

    def _record(self, item: ChatItem) -> None:
        if not belongs_in_history(item) or item.id in self._passed_over:
            return
        if item.type == "function_call":
            fields = self._writer.fields(item)
            is_unchanged = self._announced.pop(item.id, (item, None))[1] == fields
            # one that was refused since is not there, and its output must not come before it
            if is_unchanged and any(known.id == item.id for known in self._conversation.items):
                return
        remember(item.id, self._own)
        self._writer.write(item)
        self.recorded += 1

    def _refuse(self, item: ChatItem, error: Exception) -> None:
        """Tell the operator. The text of an error may quote the transcript, so only our own errors' is shown."""
        self.refused += 1
        item_id, item_type = getattr(item, "id", None), getattr(item, "type", None)
        self._failures.count("recorder", error, "an item could not be recorded", item_id=item_id, item_type=item_type)


def _archive_of(conversation: Conversation) -> Archive | None:
    return conversation if isinstance(conversation, Archive) else None


def _silent(call: FunctionCall) -> FunctionCallOutput:
    """Return the output of a call of which nothing is to be told."""
    return FunctionCallOutput(
        id=call.id + "/silent",
        call_id=call.call_id,
        name=call.name,
        output="",
        is_error=False,
        created_at=call.created_at,
    )
