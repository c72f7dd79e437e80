"""Follow edits of what was said: an item that somebody takes out of a context is kept from successors and from Redis.

LiveKit has no event for an edit. Therefore `update_chat_ctx` is wrapped on each agent that gets the word, and the
session's history is looked at between the turns.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from livekit.agents import (
    Agent,
    AgentSession,
    AgentStateChangedEvent,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import ChatContext, ChatItem

from agent_worker.failures import Failures
from agent_worker.session.beginnings import are_words, words_of
from agent_worker.session.context import is_kept_apart
from agent_worker.session.handlers import total
from agent_worker.session.protocol import Forgetful
from agent_worker.session.recorder import Recorder, belongs_in_history
from agent_worker.session.stored_ids import stored_as, told_by
from agent_worker.session.taken_out import Wording, is_only_longer, taken_out, wording

logger = logging.getLogger(__name__)

_FAILURE = "an edit of the context was not followed"
_FOLLOWED = "followed_by_context_edits"
_MAX_WORDS = 64
"""How many final transcripts are remembered until they become a message."""
_LATEST = 20
"""Among how many of the newest items the message of a transcript is looked for."""

Listener = Callable[[Collection[str]], None]


class ContextEdits:
    """The edits of a session's contexts and history, repeated in the history and in the conversation.

    Three kinds are followed: an item is taken out (see `taken_out`), an item says something else under the same id, or
    a turn was changed before it became a message. Everything that was stored before the edit is then forgotten. Nobody
    waits for that.
    """

    def __init__(
        self, session: AgentSession[Any], conversation: Forgetful, recorder: Recorder, failures: Failures | None = None
    ) -> None:
        """Follow nothing before `start`. Whatever goes wrong is counted in `failures`."""
        self.taken: set[str] = set()
        """The ids of items that were taken out. Nobody may note these items again, or give them to an agent."""
        self._session, self._conversation, self._recorder = session, conversation, recorder
        self._failures = counted = failures or Failures()
        self._said: dict[str, Wording] = {}
        self._changed: dict[str, ChatItem] = {}
        self._own: WeakKeyDictionary[Agent, dict[str, Wording]] = WeakKeyDictionary()
        self._history: list[ChatItem] = []
        self._words: list[str] = []
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": self._on_transcript,
            "conversation_item_added": self._on_item,
            "agent_state_changed": self._on_agent_state,
            "function_tools_executed": self._on_tools_executed,
        }
        self._handlers = {
            name: total(handler, counted, "context_edits", _FAILURE) for name, handler in handlers.items()
        }
        self._updated_safely = total(self._on_updated, counted, "context_edits", _FAILURE)
        self._look_safely = total(self._look, counted, "context_edits", _FAILURE)

    def start(self) -> None:
        """Follow edits from now on. The items that are there now count as unedited."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)
        self._remember(self._session.history.items)
        self._history = list(self._session.history.items)
        try:
            agent = self._session.current_agent
        except RuntimeError:  # the session has not started; its first handoff will tell who has the word
            return
        self._follow(agent)

    def tell(self, listener: Listener) -> None:
        """Call the listener at each edit before the past is forgotten, so that what the listener stores comes first.

        The listener is given the texts that must no longer be quoted.
        """
        self._listeners.append(total(listener, self._failures, "context_edits", _FAILURE))

    def removed(self, item_ids: Collection[str]) -> None:
        """Keep out the items that somebody removed from the conversation, also if edits are not followed.

        The session may still have these items, but no successor gets them.
        """
        calls = {item.id for item in self._conversation.items if item.type == "function_call" and item.id in item_ids}
        new = {
            *item_ids,
            *told_by(set(map(words_of, calls)), self._conversation.items),
            *map(words_of, calls),
        } - self.taken
        if new:
            self._keep_out(new)
            self._tell(())

    def stop(self) -> None:
        """Look a last time, then follow no more edits."""
        self._look_safely()
        self._is_stopped = True
        for name, handler in self._handlers.items():
            self._session.off(name, handler)
        for task in self._tasks:
            task.cancel()

    # What is looked at.

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if item.type == "agent_handoff":
            self._follow(self._session.current_agent)
        elif item.type == "message" and item.role == "user":
            words, self._words = self._words, []
            # the transcript of a realtime model may come after the message that contains it
            said = [item.text_content or "", *map(_user_text, self._session.history.items[-_LATEST:])]
            if not all(any(word in text for text in said) for word in words):
                # the words were noted as they were heard, before the application changed them
                logger.info("a turn was changed before it became a message", extra={"item_id": item.id})
                self._forget((), ())
        self._look()

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        if event.is_final and event.transcript.strip():
            self._words = [*self._words[-_MAX_WORDS:], event.transcript.strip()]

    def _on_agent_state(self, _event: AgentStateChangedEvent) -> None:
        self._look()

    def _on_tools_executed(self, _event: FunctionToolsExecutedEvent) -> None:
        self._look()

    def _follow(self, agent: Agent) -> None:
        """Follow what `update_chat_ctx` of an agent changes from now on, and apply earlier edits to its context."""
        if getattr(agent.update_chat_ctx, _FOLLOWED, None) is not self:
            update = agent.update_chat_ctx
            # the context that the agent was made with may word an item differently on purpose
            own = self._own[agent] = {item.id: wording(item) for item in agent.chat_ctx.items}

            @functools.wraps(update)
            async def update_chat_ctx(chat_ctx: ChatContext, **named: Any) -> None:
                before = list(agent.chat_ctx.items)
                try:
                    await update(chat_ctx, **named)
                finally:
                    self._updated_safely(agent, before, own)

            setattr(update_chat_ctx, _FOLLOWED, self)
            agent.update_chat_ctx = update_chat_ctx  # type: ignore[method-assign]
        self._align(agent)

    def _on_updated(self, agent: Agent, before: Sequence[ChatItem], own: Mapping[str, Wording]) -> None:
        if self._is_stopped:
            return
        self._look()
        items = agent.chat_ctx.items
        known = {item.id for item in before}
        is_news = any(item.id not in known and not is_kept_apart(item) for item in items)
        # the conversation, and perhaps the agent, still have a beginning that the session has forgotten
        said = {*self._said, *(item.id for item in self._conversation.items)}
        gone = taken_out(before, {item.id for item in items}, said, has_something_new=is_news)
        changed = [
            item
            for item in items
            if item.id in self._said and wording(item) not in {self._said[item.id], own.get(item.id)}
        ]
        self._change(changed)
        self._change_words(agent)
        if self._take(gone, said):
            self._align(agent)

    def _look(self) -> None:
        """Look for edits in the history. Contexts share its items, so an item changed in a context is changed there."""
        items = list(self._session.history.items)
        gone = taken_out(self._history, {item.id for item in items})
        self._change([item for item in items if item.id in self._said and self._said[item.id] != wording(item)])
        self._change_words(self._session.current_agent)
        if self._take(gone, self._said):
            self._align(self._session.current_agent)
        self._history = list(self._session.history.items)
        self._remember(self._history)

    def _remember(self, items: Iterable[ChatItem]) -> None:
        self._said = {item.id: wording(item) for item in items if belongs_in_history(item)}

    # What follows.

    def _take(self, gone: Sequence[ChatItem], said: Collection[str]) -> bool:
        """Have nobody keep those of the items that were `said`. Return whether there were any."""
        ids = {item.id for item in gone if item.id in said or are_words(item)} - self.taken
        if not ids:
            return False
        calls = {item.call_id for item in gone if item.type in {"function_call", "function_call_output"}}
        history = self._session.history.items
        ids |= {item.id for item in history if getattr(item, "call_id", None) in calls}
        ids |= told_by(ids, self._conversation.items)
        ids |= stored_as(ids, self._conversation.items, said=self._said)
        ids |= {words_of(item.id) for item in [*history, *gone] if item.type == "function_call" and item.id in ids}
        self._keep_out(ids)
        history[:] = [item for item in history if item.id not in ids]
        quoted = (self._said.get(item.id, wording(item)) for item in gone)
        self._forget(sorted(ids), map(_said, quoted))
        logger.info("items were taken out", extra={"items": len(ids)})
        return True

    def _keep_out(self, ids: Collection[str]) -> None:
        """Have nobody note or record these items again."""
        self.taken.update(ids)
        self._recorder.leave_out(ids)

    def _forget(self, item_ids: Iterable[str], texts: Iterable[str]) -> None:
        """Have the listeners drop what they quote of these texts, then remove the items and the stored past."""
        self._tell(texts)
        self._conversation.remove(*item_ids)

    def _tell(self, texts: Iterable[str]) -> None:
        quoted = frozenset(text for text in texts if text)
        for listener in self._listeners:
            listener(quoted)

    def _change(self, changed: Iterable[ChatItem]) -> None:
        """Keep these items as they are now: in the history, in the record and in contexts."""
        history = self._session.history.items
        for item in changed:
            before, now = self._said[item.id], wording(item)
            self._said[item.id] = now
            self._changed[item.id] = item
            for index, known in enumerate(history):
                if known.id == item.id and known is not item:
                    history[index] = item
            stored = next(iter(stored_as({item.id}, self._conversation.items, said=self._said)), item.id)
            self._recorder.record([item if stored == item.id else item.model_copy(update={"id": stored})])
            if not is_only_longer(before, now):
                self._forget((), [_said(before)])
                logger.info("an item was changed", extra={"item_id": item.id})

    def _change_words(self, agent: Agent) -> None:
        """Keep out of the conversation each call that the agent's context now tells in other words."""
        own = self._own.setdefault(agent, {})
        for item in filter(are_words, agent.chat_ctx.items):
            before, now = own.setdefault(item.id, wording(item)), wording(item)
            own[item.id] = now
            if before == now or (item.id in self._changed and wording(self._changed[item.id]) == now):
                continue
            self._changed[item.id] = item
            if not is_only_longer(before, now):
                ids = told_by({item.id}, self._conversation.items)
                self._keep_out(ids)
                self._forget(sorted(ids), [_said(before)])
                logger.info("an item was changed", extra={"item_id": item.id})

    def _align(self, agent: Agent) -> None:
        """Give the agent a context without the edited items, if its context still has them."""
        if self._left(agent) is None:
            return
        task = asyncio.get_running_loop().create_task(self._give(agent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _left(self, agent: Agent) -> list[ChatItem] | None:
        """Return the items that an agent's context should have, or None if it has them already."""
        items = agent.chat_ctx.items
        left = [self._changed.get(item.id, item) for item in items if item.id not in self.taken]
        is_same = len(left) == len(items) and all(
            new is old or wording(new) == wording(old) for new, old in zip(left, items, strict=True)
        )
        return None if is_same else left

    async def _give(self, agent: Agent) -> None:
        left = self._left(agent)  # asked again, because something may have been said since
        if left is None:
            return
        try:
            # by default, LiveKit would drop the calls of tools that this agent does not have
            await agent.update_chat_ctx(ChatContext(left), exclude_invalid_function_calls=False)
        except Exception as error:  # noqa: BLE001  # a provider's error; the call goes on
            self._failures.count("context_edits", error, _FAILURE)


def _user_text(item: ChatItem) -> str:
    return (item.text_content or "") if item.type == "message" and item.role == "user" else ""


def _said(words: Wording) -> str:
    return "\n".join(part for part in words if isinstance(part, str))
