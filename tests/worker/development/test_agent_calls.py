"""When an agent is asked for again: never into the void, never for two at a time, and until one comes."""

import pytest

from agent_worker.development.agent_calls import AGAIN_SECONDS, AgentCalls, Waiting
from conversation_actors.errors import StoreUnavailableError

ROOM = "room-1"


class Desk:
    """Calls that are noted, a worker that is registered or not, and a clock."""

    def __init__(self) -> None:
        """A worker is registered."""
        self.called: list[str] = []
        self.is_registered = True
        self.error: Exception | None = None
        self.now = 1000.0
        self.calls = AgentCalls(self._call, lambda: self.is_registered, clock=lambda: self.now)

    async def _call(self, room: str) -> bool:
        self.called.append(room)
        if self.error is not None:
            raise self.error
        return True

    async def waits(self, seconds: float) -> list[Waiting]:
        """Ask every two seconds, as the page does; what was told, each once."""
        told: list[Waiting] = []
        until = self.now + seconds
        while self.now < until:
            told.append(await self.calls.missing(ROOM))
            self.now += 2.0
        return list(dict.fromkeys(told))


async def test_nobody_is_called_before_a_worker_is_registered() -> None:
    """LiveKit's server would forget it; whoever waits is told what for, and gets an agent when there is a worker."""
    desk = Desk()
    desk.is_registered = False
    await desk.calls.joining(ROOM)
    assert await desk.waits(30) == [Waiting.WORKER]
    assert desk.called == []
    desk.is_registered = True
    desk.calls.start_over()
    assert await desk.calls.missing(ROOM) is Waiting.AGENT
    assert desk.called == [ROOM]


async def test_an_agent_is_asked_for_again_until_one_comes() -> None:
    """One call in ten seconds, and it is said when they come to nothing."""
    desk = Desk()
    assert await desk.waits(31) == [Waiting.AGENT, Waiting.OVERDUE]
    assert len(desk.called) == 4


async def test_whoever_a_token_brings_is_not_called_twice() -> None:
    """The first token of a room asks for its agent by itself, and that one has time to come."""
    desk = Desk()
    await desk.calls.joining(ROOM)
    assert await desk.waits(AGAIN_SECONDS) == [Waiting.AGENT]
    assert desk.called == [ROOM]
    await desk.calls.missing(ROOM)
    assert desk.called == [ROOM, ROOM]


async def test_what_was_asked_of_a_worker_before_is_lost() -> None:
    """A worker that registers again, behind a restart of LiveKit's server, is asked at once."""
    desk = Desk()
    await desk.calls.joining(ROOM)
    desk.calls.start_over()
    await desk.calls.missing(ROOM)
    assert desk.called == [ROOM, ROOM]


async def test_rooms_do_not_wait_for_each_other() -> None:
    """Each has an agent of its own."""
    desk = Desk()
    await desk.calls.missing("one")
    await desk.calls.missing("two")
    await desk.calls.missing("one")
    assert desk.called == ["one", "two"]


async def test_a_server_that_does_not_answer_is_asked_again_soon() -> None:
    """It is said, it is counted as no call, and it does not raise."""
    desk = Desk()
    desk.error = StoreUnavailableError("no answer")
    assert await desk.waits(20) == [Waiting.UNANSWERED]
    assert len(desk.called) == 10
    desk.error = None
    assert await desk.calls.missing(ROOM) is Waiting.AGENT


async def test_who_waits_a_minute_later_waits_anew() -> None:
    """Several calls come to nothing for whoever waited for them, and not for the next one in the room."""
    desk = Desk()
    await desk.waits(40)
    desk.now += 120
    assert await desk.calls.missing(ROOM) is Waiting.AGENT


async def test_a_thousand_rooms_are_remembered() -> None:
    """The oldest goes; its agent is asked for once more than was needed."""
    desk = Desk()
    for number in range(1001):
        await desk.calls.missing(f"room-{number}")
    await desk.calls.missing("room-1000")
    assert len(desk.called) == 1001
    await desk.calls.missing("room-0")
    assert len(desk.called) == 1002


async def test_a_mistake_of_ours_is_no_outage() -> None:
    """What neither Redis nor LiveKit is to blame for is raised."""
    desk = Desk()
    desk.error = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        await desk.calls.missing(ROOM)
