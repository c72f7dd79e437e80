"""Session → conversation: everything that enters a session's history is recorded as it happens.

Nothing is kept back for the end of the call: no hook of LiveKit's runs in a crash.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from livekit.agents import AgentSession, ConversationItemAddedEvent, FunctionToolsExecutedEvent
from livekit.agents.llm import AgentHandoff, ChatItem, ChatMessage, FunctionCall
from livekit.agents.voice.events import ToolCallEnded, ToolCallStarted, ToolExecutionUpdatedEvent, ToolReplyUpdated

from agent_worker.failures import Failures
from agent_worker.session.protocol import Conversation
from agent_worker.session.serialise import essentials, shortened, to_fields
from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.items import PINNED_ROLES, item_from_dict

logger = logging.getLogger(__name__)

_ANNOUNCED_CALLS = 64
"""Calls remembered between their start and their end; more than ever run at one time."""
_MOST_OWN = 2000
"""Ids remembered of what this recorder was given; more than a session's history has."""
RESERVED_PREFIX = "lk."
"""LiveKit's own messages, such as the agent's instructions, have ids that start so."""
Speaker = Callable[[ChatMessage], Mapping[str, Any] | None]
"""Gives ``{identity, device}`` of whoever has spoken, or typed, a message; None where that is not known."""


def belongs_in_history(item: ChatItem) -> bool:
    """Whether an item is part of the conversation; instructions and configuration belong to the agent."""
    if item.id.startswith(RESERVED_PREFIX) or item.type == "agent_config_update":
        return False
    return not (item.type == "message" and item.role in {"system", "developer"})


def _leaves_in_its_turn(fields: dict[str, Any]) -> bool:
    """Whether an item's place tells what has left: system messages stay, and a call leaves with its last output."""
    return fields.get("role") not in PINNED_ROLES and fields["type"] not in {"function_call", "function_call_output"}


class Recorder:
    """Records a session's messages, handoffs, tool calls and outputs into a conversation.

    A tool call is recorded before the tool runs, and again only if it changed. Handlers never raise and never
    wait; an item that is refused is logged, without its text, and counted in `refused`. Where the conversation
    could not take it for now, `record_again` brings it.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: Conversation,
        failures: Failures | None = None,
        *,
        speaker: Speaker | None = None,
    ) -> None:
        """Nothing is recorded before `start`. What is refused is counted in `failures` too.

        `speaker` is asked who said a user message, when it enters the history.
        """
        self.recorded = 0
        self.refused = 0
        self._session = session
        self._conversation = conversation
        self._failures = failures or Failures()
        self._announced: dict[str, tuple[FunctionCall, dict[str, Any] | None]] = {}
        self._own: dict[str, None] = {}
        self._speaker = speaker
        self._passed_over: set[str] = set()
        self._expected: list[str | None] = []
        self._handlers: dict[Any, Callable[[Any], None]] = {
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
        for name, handler in self._handlers.items():
            self._session.off(name, handler)

    @property
    def has_unrecorded_calls(self) -> bool:
        """Whether a tool is called whose call was refused, and is not in the conversation since."""
        refused = {call_id for call_id, (_, fields) in self._announced.items() if fields is None}
        return bool(refused) and not refused <= {item.id for item in self._conversation.items}

    def record(self, items: Iterable[ChatItem]) -> None:
        """Record items, also from outside of an event. Never raises."""
        for item in items:
            try:
                self._record(item)
            except Exception as error:  # noqa: BLE001  # a TypeError out of a handler kills the agent's reply
                self._refuse(item, error)

    def record_again(self, *, is_afresh: bool, is_full: bool = False) -> None:
        """Record what the session has and the conversation lacks. Never raises.

        `is_afresh`: the conversation has lost everything, so all that the session still has is recorded. Else only
        what was recorded here before, and is not there as it was recorded; where the conversation `is_full`, not what
        came before the oldest item that it holds: it was left behind. Either with the calls whose tools are running.
        An item whose successors are stored already comes behind them: the conversation keeps the order in which it
        takes items. Their time stamps tell the other one.
        """
        there = self._session.history.items
        own = [item for item in there if belongs_in_history(item) and item.id not in self._passed_over]
        items = self._with_running_calls(own)
        if not is_afresh:
            items = self._lacking(items, is_full=is_full)
        for item in items:
            try:
                self._send_whole(to_fields(item))
            except Exception as error:  # noqa: BLE001  # one that is refused costs only itself
                self._refuse(item, error)
        logger.info("recorded again", extra={"items": len(items), "is_afresh": is_afresh})

    def _with_running_calls(self, items: list[ChatItem]) -> list[ChatItem]:
        """The session's items with the calls that were announced, and that the session gets when their tools end."""
        there = {item.id for item in items}
        complete = list(items)
        for call, _ in self._announced.values():
            if call.id not in there:
                outputs = (i for i, item in enumerate(complete) if getattr(item, "call_id", None) == call.call_id)
                complete.insert(next(outputs, len(complete)), call)
        return complete

    def _lacking(self, items: list[ChatItem], *, is_full: bool) -> list[ChatItem]:
        """Those that were recorded here, and are not in the conversation as they were recorded."""
        known = {item.id: item.to_dict() for item in self._conversation.items}
        own = [item for item in items if item.id in self._own]
        oldest = next((item_id for item_id, fields in known.items() if _leaves_in_its_turn(fields)), None)
        first = next((index for index, item in enumerate(own) if item.id == oldest), 0) if is_full else 0
        return [item for item in own[first:] if known.get(item.id) != to_fields(item)]

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
        """Note in the message who said it: models are not told, other agents and whoever reads the history are."""
        try:
            speaker = self._speaker(message) if self._speaker is not None else None
            if speaker is not None and "participant" not in message.extra:
                message.extra["participant"] = {"identity": speaker["identity"], "device": speaker.get("device")}
        except Exception as error:  # noqa: BLE001  # the message is recorded, whoever said it
            self._failures.count("recorder", error, "it is not known who said something")

    def _on_tools_executed(self, event: FunctionToolsExecutedEvent) -> None:
        self.record([*event.function_calls, *event.function_call_outputs])

    def _on_tool_updated(self, event: ToolExecutionUpdatedEvent) -> None:
        update = event.update
        if isinstance(update, ToolCallStarted):
            self._announce(update.function_call)
        elif isinstance(update, ToolCallEnded) and update.id != update.call_id:
            self._record_late(lambda call_id: call_id == update.id or call_id.startswith(f"{update.call_id}_update_"))
        elif isinstance(update, ToolReplyUpdated) and update.status == "scheduled":
            late = frozenset(update.update_ids)
            self._record_late(lambda call_id: call_id in late)

    def _announce(self, call: FunctionCall) -> None:
        """Record a call before its tool runs, and remember how, so that it is not sent twice unchanged."""
        before = self.recorded
        self.record([call])
        # one that was refused is sent once more when its tool ends
        self._announced[call.id] = call, None if self.recorded == before else to_fields(call)
        if len(self._announced) > _ANNOUNCED_CALLS:
            del self._announced[next(iter(self._announced))]

    def _record_late(self, wanted: Callable[[str], bool]) -> None:
        """Record what a tool that works in the background put into the history; LiveKit has no event for it."""
        items = self._session.history.items
        self.record(
            item for item in items if item.type in {"function_call", "function_call_output"} and wanted(item.call_id)
        )

    def _record(self, item: ChatItem) -> None:
        if not belongs_in_history(item):
            return
        fields = to_fields(item)
        if item.type == "function_call":
            is_unchanged = self._announced.pop(item.id, (item, None))[1] == fields
            # one that was refused since is not there, and its output must not come before it
            if is_unchanged and any(known.id == item.id for known in self._conversation.items):
                return
        self._own[item.id] = None
        if len(self._own) > _MOST_OWN:
            del self._own[next(iter(self._own))]
        self._send_whole(fields)
        self.recorded += 1

    def _send_whole(self, fields: dict[str, Any]) -> None:
        """Record the item, without what nobody could read back."""
        try:
            self._send(fields)
        except ItemTooLargeError:
            raise
        except InvalidInputError as error:
            self._send(essentials(fields))
            logger.warning("an item lost its extras", extra={"item_id": fields["id"], "field": error.field})

    def _send(self, fields: dict[str, Any]) -> None:
        """Record the item, cut to size if it is too large."""
        try:
            self._conversation.record(item_from_dict(fields))
        except ItemTooLargeError as error:
            self._conversation.record(item_from_dict(shortened(fields, error.limit)))
            logger.warning("an item was shortened", extra={"item_id": fields["id"], "size": error.size})

    def _refuse(self, item: ChatItem, error: Exception) -> None:
        """Tell the operator. The text of an error may quote the transcript, so only our own errors' is shown."""
        self.refused += 1
        item_id, item_type = getattr(item, "id", None), getattr(item, "type", None)
        self._failures.count("recorder", error, "an item could not be recorded", item_id=item_id, item_type=item_type)
