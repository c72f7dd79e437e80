"""The life of one session in one room: from the first word to whoever comes next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import AgentSession, AgentStateChangedEvent, CloseEvent, CloseReason
from livekit.agents.llm import ChatMessage

from agent_worker.call.backend import CallBackend, backend_of
from agent_worker.call.data_messages import DataMessages
from agent_worker.call.ending import Ending
from agent_worker.call.opening_lines import OpeningLines
from agent_worker.call.people import People
from agent_worker.call.quiet import Quiet
from agent_worker.call.speaking import Speaking
from agent_worker.call.typed_words import leave_typed_words
from agent_worker.call.welcome import spoken_name, visits
from agent_worker.lines import Welcome
from agent_worker.session.bounds import SessionBounds
from agent_worker.session.notes import SessionNotes, unanswered_item
from agent_worker.session.recorder import Recorder
from agent_worker.session.turns import Turns
from agent_worker.session.usage import UsageNotes
from agent_worker.tenure.call_end import NOBODY_HERE
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import Participant

logger = logging.getLogger(__name__)

_IN_PLACE_SECONDS = 5.0
"""Longer than what an application does between two tasks that are over, unless it waits for somebody."""
_TYPED_SECONDS = 0.25
"""Typed words that came before the agent takes no more have become a turn by then, or show as a busy session."""


class Keeper(Protocol):
    """Something that looks after a part of the session."""

    def start(self) -> None:
        """Look from now on."""

    def stop(self) -> None:
        """Look a last time."""


class Call:
    """One session in one room, with the conversation that outlives it."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: CallConversation,
        recorder: Recorder,
        room: rtc.Room | None,
        *,
        ending: Ending,
        opening: OpeningLines | None = None,
        data: DataMessages | None = None,
        in_place: asyncio.Event | None = None,
        has_tracks: bool = True,
    ) -> None:
        """Take the agent's own lines in a job that follows another (`opening`), and what keeps data messages (`data`).

        `in_place`: see `AwaitedTasks`; `has_tracks`: see `Participants`.
        """
        self._session, self._conversation, self._recorder = session, conversation, recorder
        self._room, self._ending, self._data = room, ending, data
        self._keepers: list[Keeper] = []
        self._failures, self._timing = conversation.failures, conversation.timing
        self._notes = SessionNotes(session, conversation, self._failures, stacks=conversation.backend.stacks)
        self._usage = UsageNotes(session, conversation, self._failures, holder=conversation.holder)
        self._bounds = SessionBounds(session, conversation.settings.session_items, self._failures)
        self.speaking = Speaking(session, conversation, opening)
        self.people = None if room is None else self._people_of(room, has_tracks=has_tracks)
        """Those of the room; None if there is no room."""
        self._backend = self._backend_of_call()
        contexts = None if self._backend is None else self._backend.contexts
        self._turns = Turns(session, self._notes, self._failures, contexts=contexts, timing=self._timing)
        self._quiet = Quiet(session, self._notes, timing=self._timing)
        self._listening, self._in_place = asyncio.Event(), in_place
        self._tasks: set[asyncio.Task[None]] = set()
        self._lingering: asyncio.Task[None] | None = None
        self._redials: asyncio.Task[None] | None = None
        self._has_resumed = False
        self._is_over = False

    def _people_of(self, room: rtc.Room, *, has_tracks: bool) -> People:
        """Make what knows of the people in the room; nothing of the room is followed before `start`."""
        return People(
            self._session,
            self._conversation,
            room,
            ending=self._ending,
            speaking=self.speaking,
            on_welcome=self._on_welcome,
            on_empty=self._on_empty,
            has_tracks=has_tracks,
        )

    def _backend_of_call(self) -> CallBackend | None:
        """Make what asks a back end, and tells it what is heard; None if the settings want neither."""
        people, session, conversation = self.people, self._session, self._conversation
        if people is None:
            return backend_of(session, conversation, speaks=lambda: None, has_spoken=lambda: None)
        return backend_of(session, conversation, speaks=people.speaks, has_spoken=people.has_spoken)

    def start(self) -> None:
        """Follow the session, the conversation and the room from now on; before the session starts."""
        self._notes.start()
        self._usage.start()
        self._turns.start()
        self._bounds.start()
        self._ending.start(self._session)
        if self.people is not None:
            self.people.start()
        self._session.on("agent_state_changed", self._on_agent_state)
        self._session.on("close", self._on_close)
        self._conversation.on_items_missed(self._record_again)
        self.keep(*(keeper for keeper in (self._data, self._backend) if keeper is not None))
        self._follow("deposition", self._follow_deposition)
        self._follow("handover", self._follow_handover)
        self._redials = self._follow("redials", self._follow_redials)

    def keep(self, *keepers: Keeper) -> None:
        """Have somebody look after a part of the session, until the call is over."""
        if not self._is_over:
            self._keepers.extend(keepers)
            for keeper in keepers:
                keeper.start()

    def speaker(self, message: ChatMessage) -> Mapping[str, Any] | None:
        """Return who said what becomes a message now; None if people are not followed."""
        return None if self.people is None else self.people.speaker(message)

    def who(self, participant: rtc.RemoteParticipant) -> Mapping[str, Any] | None:
        """Return a participant as the conversation knows it; None if people are not followed."""
        return None if self.people is None else self.people.who(participant)

    def restored_late(self) -> None:
        """Owe an answer to what the history ends with, which is whole only now."""
        self.speaking.owe()
        if self.people is not None:
            self.people.look_back()

    def begin(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something once, when the session listens. What it raises is counted, and the call goes on without it."""
        self._keep_task(self._failures.at_most_once(name, lambda: self._when_listening(work)))

    async def _when_listening(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._listening.wait()
        if self._in_place is not None:
            # a task that goes on has the word a moment later: what is owed is for it to say
            with suppress(TimeoutError):
                async with asyncio.timeout(_IN_PLACE_SECONDS):
                    await self._in_place.wait()
        if not self._is_over:
            await work()

    def provider_renewed(self) -> None:
        """Answer what a model's provider was asked last before it began a new session: the old one may never do so."""
        lost = unanswered_item(self._session.history.items)
        if lost is not None:
            self.begin("answer_lost", lambda: self._answer_lost(lost.id))

    async def _answer_lost(self, item_id: str) -> None:
        await self._quiet.lasts(self._timing.room_lost)
        # a tool that runs is an answer that comes, also when LiveKit says that it listens meanwhile
        if not (self._is_over or self._recorder.running_calls):
            self.speaking.answer_lost(item_id)

    # What is said without having been asked.

    def _on_welcome(self, wanted: Welcome, person: Participant) -> None:
        settings = self._conversation.settings
        name = spoken_name(person.name, person.metadata.get("kind"))
        line = settings.line(wanted, person.language, name=name, visits=visits(person))
        if wanted is Welcome.RESUME and not self._conversation.is_planned_handover and not self._has_resumed:
            self._has_resumed = True
            self.begin("resume", lambda: self.speaking.resume(line))
        elif wanted in {Welcome.FIRST, Welcome.BACK}:
            self.begin("say", lambda: self.speaking.say(line))

    def _record_again(self, is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        """Give the conversation what it lacks of this session; nobody hears anything of that."""
        self._recorder.record_again(is_afresh=is_afresh, is_full=self._conversation.is_full)

    # Who is here.

    def _on_empty(self, is_empty: bool) -> None:  # noqa: FBT001  # a callback of one value
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if is_empty:
            self._lingering = self._follow("linger", self._leave_when_nobody_comes)
        elif self._is_over:
            # the session closed when its caller went, and somebody is here: the next agent is called
            self._end("somebody came back", is_clean=False)
        elif self.people is not None:
            self.people.listen_to_somebody()

    async def _leave_when_nobody_comes(self) -> None:
        await asyncio.sleep(self._conversation.settings.linger.total_seconds())
        self._end(NOBODY_HERE, is_clean=True)

    # How it ends.

    async def _follow_deposition(self) -> None:
        await self._conversation.deposed.wait()
        self._recorder.stop()
        self._end("another agent has taken over", is_clean=False)

    async def _follow_handover(self) -> None:
        """Give the call over when neither side is speaking."""
        await self._conversation.handover_asked.wait()
        await self._listening.wait()
        if self._data is not None:
            # the successor gets what begins from now on, and nobody else what has begun
            await self._data.until_read(self._timing.room_stream)
        await self._quiet.lasts(self._timing.room_quiet)
        if self._room is not None:
            # the successor has what is typed from now on, and what was typed a moment ago is answered here
            leave_typed_words(self._room)
            await self._quiet.lasts(_TYPED_SECONDS)
        if self._session.input.audio_enabled:
            self._session.input.set_audio_enabled(False)
        await self._go("handed over")

    async def _follow_redials(self) -> None:
        """Let an agent in another room have the conversation, as soon as it asks while nobody is in this one."""
        while True:
            await self._conversation.redialled.wait()
            if self.people is not None and self.people.is_empty:
                break
            await self._conversation.refuse_redial()
        await self._go("the call goes on in another room")

    async def _go(self, reason: str) -> None:
        """Leave the call to the successor that waits for it."""
        self._stop()
        self._conversation.left()
        await self._conversation.hand_over()
        self._end(reason, is_clean=True)

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening":
            self._listening.set()
            self._conversation.ready()

    def _on_close(self, event: CloseEvent) -> None:
        self._stop()
        self._usage.stop()
        if event.reason is CloseReason.ERROR:
            self._end("the session failed", is_clean=False)
        elif event.reason is CloseReason.PARTICIPANT_DISCONNECTED and self.people is not None:
            # the participants are still followed: somebody may come back
            self._on_empty(not self.people.is_somebody_here)

    def _stop(self) -> None:
        """Record no more."""
        self._is_over = True
        self._quiet.end()
        self._recorder.stop()
        self._notes.stop()
        if not self._conversation.goes_on_elsewhere:
            self._usage.tell()
        self._turns.stop()
        self._bounds.stop()
        if self.people is not None:
            self.people.stop_notes()
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.stop()

    def _end(self, reason: str, *, is_clean: bool) -> None:
        """End the job; not clean: in a way that has the next agent called."""
        self._stop()
        if self.people is not None:
            self.people.stop()
        if self._redials is not None:
            # who asks now gets the call when this job has ended, and must not be refused
            self._redials.cancel()
        self._ending.end(reason, is_clean=is_clean)

    def _follow(self, name: str, step: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that the end of the call hangs on. What it raises is counted, and it is begun anew."""
        return self._keep_task(self._failures.until_done(name, step, pause=self._timing.room_retry))

    def _keep_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
