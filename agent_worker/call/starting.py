"""A session's start, in a call: what comes before it, whom it starts with, and when.

An agent is known when its session starts, and not earlier: ``session.start(agent=Assistant())`` is what most
applications say. So ``start`` of that one session does first what a conversation needs.
"""

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext
from livekit.agents.llm import ChatMessage
from livekit.agents.utils import is_given

from agent_worker.call.arrivals import who
from agent_worker.call.audible import keep_audible
from agent_worker.call.data_messages import DataMessages
from agent_worker.call.echo import listen_from_the_start
from agent_worker.call.ending import Ending
from agent_worker.call.late_joining import WITHOUT, LateJoining
from agent_worker.call.life import Call, Keeper
from agent_worker.call.linking import is_starting
from agent_worker.call.opening_lines import OpeningLines, opening_lines_of, said_by_callers
from agent_worker.call.person_notes import Retractions
from agent_worker.call.typed_words import TypedWords
from agent_worker.session.active_agent import ActiveAgent, Word, agent_with_the_word
from agent_worker.session.context_edits import ContextEdits
from agent_worker.session.entering import entrance_of
from agent_worker.session.notes import Noted
from agent_worker.session.pictures import Pictures
from agent_worker.session.realtime import RealtimeModels
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import Restored, restore
from agent_worker.session.task_groups import follow_groups
from agent_worker.session.tools import HeldTools, hold_tools_back, until_durable
from agent_worker.session.userdata import Userdata
from agent_worker.settings import ContentSettings, RoomSettings, ToolSettings
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import InvalidInputError
from conversation_actors.errors import ConversationError

logger = logging.getLogger(__name__)

ENTRYPOINT_TASK = "job_user_entrypoint"
"""LiveKit's name for the task of a job's entrypoint."""
AgentFactories = Mapping[str, Callable[..., Agent]]
"""Makers of agents by LiveKit's agent id. A maker takes nothing, or the agent's saved state."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Whom a session starts with, and what it was given."""

    given: Agent
    """The agent that the application starts the session with."""
    word: Word
    restored: Restored
    is_whole: bool
    """Whether the conversation was open; else it joins the call later."""


class Starting:
    """What `attach` puts between an application and its session's start."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: CallConversation,
        *,
        context: JobContext | None,
        room: rtc.Room | None,
        agents: AgentFactories | None,
        userdata: type | None,
    ) -> None:
        """`room`: the one that is followed if the session starts with none. Made in the entrypoint's task."""
        self._session, self._conversation, self._context = session, conversation, context
        self._room, self._agents = room, agents or {}
        self._entrypoint = _entrypoint()
        failures = self._failures = conversation.failures
        self._start = session.start
        follow_groups()
        self._gate = until_durable(self._is_durable, ToolSettings())
        self._userdata = Userdata(session, conversation, failures, kind=userdata)
        content = ContentSettings()
        pictures = Pictures(content, failures, archive=conversation, timing=conversation.timing)
        self.recorder = Recorder(session, conversation, failures, speaker=self._speaker, pictures=pictures)
        self._content = content
        self._edits = ContextEdits(session, conversation, self.recorder, failures)
        self._edits.tell(Retractions(conversation).put)
        conversation.on_removed(self._edits.removed)
        self._ending = Ending(conversation, context)
        self._settings = RoomSettings()
        self._data = self._follow_data()
        self._expected: Agent | None = None
        self._prepared: Prepared | None = None
        self._late = LateJoining(session, conversation, self.recorder, self._userdata)
        self._typed: TypedWords | None = None
        self._call: Call | None = None
        self._opening: OpeningLines | None = None

    def watch(self, expected: Agent | None = None) -> None:
        """Do from now on, when the session starts, what comes before it; only with `expected`, if that is given."""
        self._expected = expected
        self._ending.keep_room()
        if self._data is not None:
            self._data.watch()
        self._session.start = self._on_start  # type: ignore[method-assign]  # on this instance: there is no event

    async def prepare(self, given: Agent) -> Prepared:
        """Choose the agent that has the word, and give it and the session what the conversation holds."""
        is_open = self._conversation.is_open
        is_known = is_open and self._conversation.is_restart
        word = Word(given, None)
        if is_known:
            word = await self._failures.value_or(
                word, "active_agent", self._choose(given, self._conversation.noted), told=WITHOUT
            )
        await self._failures.value_or(None, "tools", hold_tools_back(word.agent, self._gate), told=WITHOUT)
        if is_known:
            await self._failures.value_or(
                None, "userdata", self._userdata.restore(self._conversation.noted), told=WITHOUT
            )
        restoring = restore(self._session, word.agent, self._conversation, had=word.had)
        restored = await self._failures.value_or(Restored.nothing(), "restore", restoring, told=WITHOUT)
        self._prepared = Prepared(given, word, restored, is_open)
        if word.had is not None:
            self.recorder.expect(word.had.chain)
        HeldTools(self._session, self._gate, self._failures).start()
        RealtimeModels(self._session, self._failures, on_reconnected=self._on_reconnected).start(word.agent)
        self.recorder.start()
        self.recorder.record(restored.made_up)
        return self._prepared

    async def _on_start(self, agent: Agent, **named: Any) -> Any:
        """See `AgentSession.start`."""
        self._refuse_another(agent)
        if self._call is not None and self._prepared is not None:
            return await self._start(self._prepared.word.agent, **named)
        self._typed = self._follow_typed_words(named.get("room"))
        is_planned = self._conversation.is_waiting_for_handover
        known = await self._stand_by() if is_planned else Counter[str]()
        prepared = self._prepared or await self.prepare(agent)
        call = self._call = self._new_call(prepared)
        if self._content.context_edits == "follow":
            call.keep(self._edits)
        if prepared.is_whole:
            call.speaking.owe(self._settled_by(prepared.word))
            call.keep(*self._keepers(prepared.word, prepared.given))
        else:
            self._late.remember(prepared.word.agent)
        linking = None if call.people is None else call.people.linking
        if linking is not None:
            for options in ("room_options", "room_input_options"):
                linking.heed(named.get(options))
        call.start()
        self._prepare_sound()
        began = time.monotonic()
        with _being_started():
            result = await self._start(prepared.word.agent, **named)
        if self._opening is not None:
            self._opening.session_started()
        seconds = round(time.monotonic() - began, 3)
        logger.info("the session has started", extra={"conversation_id": self._conversation.id, "seconds": seconds})
        if linking is not None:
            linking.has_started()
        if not prepared.is_whole:
            call.begin("catch_up", lambda: self._catch_up(call, prepared))
        elif is_planned:
            call.begin("continue", lambda: self._go_on(call, known))
        return result

    def _prepare_sound(self) -> None:
        keep_audible(self._session)
        if self._conversation.is_restart:
            listen_from_the_start(self._session, self._conversation.items)

    def _refuse_another(self, agent: Agent) -> None:
        """Raise if the session was attached, or started, with another agent."""
        prepared = self._prepared
        known = self._expected if prepared is None else prepared.given
        if known is None or agent is known or (prepared is not None and agent is prepared.word.agent):
            return
        message = (
            "agent: the session starts with another agent than it was attached or started with before; "
            "`await attach(session, ctx)` takes the one that it is started with"
        )
        raise InvalidInputError(message, field="agent")

    # Before the start.

    def _follow_data(self) -> DataMessages | None:
        """Follow data messages, from now on; None if none are to be kept, or there is no room."""
        settings = self._settings
        if self._room is None or not settings.data_topics:
            return None
        return DataMessages(self._room, self._conversation, settings, functools.partial(self._who, self._room))

    def _who(self, room: rtc.Room, participant: rtc.RemoteParticipant) -> Mapping[str, Any]:
        followed = None if self._call is None else self._call.who(participant)
        return who(participant, room) if followed is None else followed

    def _follow_typed_words(self, room: Any) -> TypedWords | None:
        """Stand between the session and what is typed in its room; None if it has no room."""
        if not is_given(room) or room is None:
            return None
        typed = TypedWords(room, self._failures)
        typed.start()
        return typed

    async def _stand_by(self) -> Counter[str]:
        """Wait until the call is this job's; return what its callers had said by then, if words are kept.

        The session has not begun: nothing is heard, said, asked of a model or done twice until then.
        """
        if self._typed is not None:
            if self._context is not None and not self._context.room.isconnected():
                await self._context.connect()
            self._typed.keep()
        known = Counter(said_by_callers(self._conversation.items))
        self._conversation.ready()
        try:
            await self._conversation.wait_open()
        except ConversationError:
            self._ending.end("another agent has the call", is_clean=False)
            raise
        return known

    async def _choose(self, first: Agent, noted: Noted) -> Word:
        fresh = None
        with suppress(ValueError):  # the session has none
            fresh = self._session.userdata
        return await agent_with_the_word(first, noted, self._agents, userdata=fresh)

    async def _is_durable(self, seconds: float) -> bool:
        """Whether what was recorded is durable, and no call of a tool was refused."""
        return await self._conversation.is_durable(seconds) and not self.recorder.has_unrecorded_calls

    def _new_call(self, prepared: Prepared) -> Call:
        opening = self._opening = opening_lines_of(self._session, self._conversation, prepared.word, self._entrypoint)
        if opening is not None:
            opening.start(prepared.word.agent)
        tasks = entrance_of(prepared.word.agent).tasks
        tasks.follower = opening
        return Call(
            self._session,
            self._conversation,
            self.recorder,
            self._room,
            ending=self._ending,
            opening=opening,
            data=self._data,
            in_place=tasks.in_place,
            has_tracks=self._settings.tracks,
        )

    def _settled_by(self, word: Word) -> str | None:
        """Return the id of the item up to which nobody is owed an answer: a task that has ended wants none."""
        tasks = None if word.had is None else word.had.tasks
        if tasks is None:
            return None
        return self._session.history.items[-1].id if tasks.is_settled else tasks.given

    def _keepers(self, word: Word, first: Agent) -> tuple[Keeper, ...]:
        """Those who note what the session is, for the next agent."""
        keep, had, taken = self._userdata.keep, word.had, self._edits.taken
        active = ActiveAgent(
            self._session,
            self._conversation,
            self._failures,
            first=first,
            had=had,
            keep=keep,
            taken=taken,
            timing=self._conversation.timing,
        )
        # after that, what was noted before is forgotten: what is noted is to lack what was taken out
        self._edits.tell(lambda _texts: active.look())
        return active, self._userdata

    def _speaker(self, message: ChatMessage) -> Mapping[str, Any] | None:
        return None if self._call is None else self._call.speaker(message)

    # After the start.

    def _on_reconnected(self) -> None:
        """See `Call.provider_renewed`; before there is a call, nothing was asked."""
        if self._call is not None:
            self._call.provider_renewed()

    async def _go_on(self, call: Call, known: Counter[str]) -> None:
        """Answer what the agent that has gone left unanswered, and what was typed to neither of the two."""
        speech = call.speaking.answer()
        if self._typed is None:
            return
        if speech is not None and self._typed.has_kept:
            await speech
        await self._typed.release((Counter(said_by_callers(self._conversation.items)) - known).elements())

    async def _catch_up(self, call: Call, prepared: Prepared) -> None:
        """Give the session what happened in its conversation before, which has opened late."""
        await self._conversation.wait_open()
        word = await self._late.choose(prepared.word, self._choose, self._open_anew)
        try:
            await self._late.restore(word)
        finally:
            call.restored_late()
            call.keep(*self._keepers(word, prepared.given))

    def _open_anew(self, word: Word) -> None:
        """Follow the opening lines of an agent that gets the word late; the entrypoint's are known already."""
        if (opening := opening_lines_of(self._session, self._conversation, word, None)) is not None:
            opening.start(word.agent)


def _entrypoint() -> asyncio.Task[Any] | None:
    """Return the task of the application's entrypoint; the current one, if LiveKit has begun none."""
    named = (task for task in asyncio.all_tasks() if task.get_name() == ENTRYPOINT_TASK)
    return next(named, asyncio.current_task())


@contextmanager
def _being_started() -> Iterator[None]:
    token = is_starting.set(True)
    try:
        yield
    finally:
        is_starting.reset(token)
