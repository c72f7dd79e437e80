"""The last line of a call: said before the application ends it, while somebody is still there to hear it.

LiveKit has no event for that: an application shuts its session or its job down, or deletes the room. So what it calls
is done after the line. A call that goes on without this job is no end, nor is a caller who has left.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, CloseEvent

from agent_worker.call.arrivals import name_of
from agent_worker.call.ending import Ending
from agent_worker.call.linking import Linking
from agent_worker.call.opening_lines import apart
from agent_worker.call.participants import Participants
from agent_worker.call.speaking import Speaking
from agent_worker.call.welcome import spoken_name, visits
from agent_worker.tenure.conversation import CallConversation

_POLL_SECONDS = 0.02


class Farewell:
    """Says the line once, and has the end of the call wait for it, for a bounded time. Never raises."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: CallConversation,
        room: rtc.Room,
        *,
        ending: Ending,
        speaking: Speaking,
        linking: Linking,
        people: Participants,
        on_begin: Callable[[], None],
    ) -> None:
        """`on_begin` is called before the line is said: what comes now is no part of the talk."""
        self._session, self._conversation, self._room = session, conversation, room
        self._ending, self._speaking, self._linking, self._people = ending, speaking, linking, people
        self._on_begin = on_begin
        self._saying: asyncio.Task[None] | None = None
        self._shutting_down: asyncio.Task[None] | None = None
        self._has_closed = False

    def start(self) -> None:
        """Stand between the application and the end of its session; after what learns how the job ends."""
        if not self._conversation.settings.farewell:
            return
        self._ending.before_end = self.said
        shutdown, close = self._session.shutdown, self._session.aclose

        @functools.wraps(shutdown)
        def shut_down(**named: Any) -> None:
            if self._begin(is_awaited=False) is None:
                shutdown(**named)
            elif self._shutting_down is None:
                self._shutting_down = asyncio.create_task(self._after(lambda: shutdown(**named)))

        @functools.wraps(close)
        def closed() -> Coroutine[Any, Any, None]:
            closing = close()  # it notes who closes
            return closing if self._begin(is_awaited=True) is None else self._close(closing)

        self._session.on("close", self._on_close)
        self._session.shutdown = shut_down  # type: ignore[method-assign]  # on this instance: there is no event
        self._session.aclose = closed  # type: ignore[method-assign]

    async def said(self, leaving: str | None = None) -> bool:
        """Say the line, and return when it is said or left out: whether it took its time.

        `leaving`: it is said only if nobody stays but whoever is put out.
        """
        saying = None
        if leaving is None or self._people.present <= {leaving}:
            saying = self._begin(is_awaited=True, is_whole_call=True)
            if saying is not None:
                await asyncio.wait({saying})
        return saying is not None

    def _begin(self, *, is_awaited: bool, is_whole_call: bool = False) -> "asyncio.Task[None] | None":
        """Return what says the line, if it is due, or is being said; None if the call may end at once.

        `is_whole_call`: it ends for every agent in it, and not for this one only.
        """
        if self._saying is None:
            try:
                is_last = is_whole_call or not self._conversation.is_beside
                line = self._line() if self._is_due and is_last else ""
            except Exception as error:  # noqa: BLE001  # whatever it is, the call ends as it was to
                self._conversation.failures.count("farewell", error, "a call ends without its last line")
                return None
            if not line:
                return None
            work = functools.partial(self._say, line, is_awaited=is_awaited)
            saying = self._conversation.failures.at_most_once("farewell", work)
            self._saying = asyncio.create_task(saying, context=apart())
        return None if self._saying.done() else self._saying

    @property
    def _is_due(self) -> bool:
        """Whether the call is what ends, and somebody hears it: not if this job alone is told to leave."""
        is_talking = not self._has_closed and self._session.agent_state != "initializing"
        is_somebody_here = self._room.isconnected() and bool(self._people.present)
        is_over = not (self._conversation.goes_on_elsewhere or self._ending.is_told_to_leave)
        return is_talking and is_somebody_here and is_over

    def _line(self) -> str:
        """Return the line for whoever is listened to, or is there."""
        linked = self._linking.linked
        here = [one for one in self._room.remote_participants.values() if one.identity in self._people.present]
        heard = linked if linked is not None and linked.identity in self._people.present else next(iter(here), None)
        person = None if heard is None else self._conversation.participants.get(self._people.who(heard)["identity"])
        settings, name = self._conversation.settings, "" if heard is None else name_of(heard)
        if person is None:  # the conversation is not open, or has not been told yet
            return settings.farewell_line(None, name=name)
        return settings.farewell_line(
            person.language, name=spoken_name(person.name, person.metadata.get("kind")) or name, visits=visits(person)
        )

    async def _say(self, line: str, *, is_awaited: bool) -> None:
        if not is_awaited:
            # a tool that ends the call is answered first; who waits for the end may be that tool itself
            await self._until_quiet()
        if not self._is_due:
            return
        self._on_begin()
        async with asyncio.timeout(self._conversation.timing.farewell):
            speech = self._speaking.say_last(line)
            if speech is not None:
                await speech.wait_for_playout()

    async def _until_quiet(self) -> None:
        end = asyncio.get_running_loop().time() + self._conversation.timing.farewell_quiet
        while self._session.agent_state in {"thinking", "speaking"} or self._session.current_speech is not None:
            if asyncio.get_running_loop().time() > end:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _on_close(self, _event: CloseEvent) -> None:
        self._has_closed = True

    async def _after(self, end: Callable[[], None]) -> None:
        assert self._saying is not None
        await asyncio.wait({self._saying})
        end()

    async def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        try:
            assert self._saying is not None
            await asyncio.wait({self._saying})
        except BaseException:
            closing.close()
            raise
        await closing
