"""What is heard before it is final is told while it is new, one at a time, and dropped if nobody takes it."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from livekit.agents import AgentSession, LanguageCode, UserInputTranscribedEvent

from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.session.interims import Interim, Interims
from agent_worker.timing import Timing
from conversation_actors.backoff import Backoff
from tests.support.fakes import turns, until
from tests.worker.conftest import SessionFactory

QUICK = Timing(interim=(0.001, 0.002))
LONG = Timing(interim=(3600.0, 3600.0))


class Taker:
    """Whoever is told, one telling at a time."""

    def __init__(self) -> None:
        """Takes everything at once."""
        self.told: list[Interim] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.error: Exception | None = None
        self.now = self.most = 0
        """Tellings that go on now, and at most."""

    @property
    def texts(self) -> list[str]:
        """What was told."""
        return [one.text for one in self.told]

    async def __call__(self, interim: Interim) -> None:
        """Be told."""
        self.told.append(interim)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.may_end.wait()
        finally:
            self.now -= 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def taker() -> Taker:
    """Whoever is told."""
    return Taker()


@pytest.fixture
async def session(server: OfflineServer, new_session: SessionFactory) -> AgentSession[None]:
    """A session that hears."""
    return await new_session(server)


Begin = Callable[..., Interims]


@pytest.fixture
def begin(session: AgentSession[None], taker: Taker) -> Begin:
    """Tell the taker what the session hears."""

    def start(failures: Failures | None = None, timing: Timing = QUICK) -> Interims:
        interims = Interims(session, taker, failures or Failures(), speaker=lambda: "alice", timing=timing)
        interims.start()
        return interims

    return start


def hear(session: AgentSession[None], text: str, *, final: bool = False) -> None:
    """The recogniser understands something."""
    heard = UserInputTranscribedEvent(transcript=text, is_final=final, language=LanguageCode("en"))
    session.emit("user_input_transcribed", heard)


async def test_what_is_heard_is_told_with_who_says_it(session: AgentSession[None], begin: Begin, taker: Taker) -> None:
    """And in which language; nothing is told of silence."""
    interims = begin()
    hear(session, " ")
    hear(session, "Where is")
    await until(lambda: bool(taker.told))
    (told,) = taker.told
    assert (told.text, told.identity, told.language) == ("Where is", "alice", "en")
    interims.stop()


async def test_the_newest_takes_the_place_of_what_waits(
    session: AgentSession[None], begin: Begin, taker: Taker
) -> None:
    """One telling goes on at a time, and no more than one waits, however long it takes."""
    interims = begin()
    taker.may_end.clear()
    hear(session, "Where")
    await until(lambda: taker.now == 1)
    for number in range(1000):
        hear(session, f"Where is {number}")
    await turns()
    assert taker.texts == ["Where"]
    taker.may_end.set()
    await until(lambda: len(taker.told) == 2)
    await turns()
    assert taker.texts == ["Where", "Where is 999"]
    assert taker.most == 1
    interims.stop()


async def test_what_became_final_is_told_no_more(session: AgentSession[None], begin: Begin, taker: Taker) -> None:
    """It is in the history, which is told by others; what is said behind it is told."""
    interims = begin()
    hear(session, "Where is my")
    hear(session, "Where is my order?", final=True)
    await turns()
    assert taker.texts == []
    hear(session, "And")
    await until(lambda: taker.texts == ["And"])
    interims.stop()


async def test_what_nobody_takes_is_dropped_and_tried_again_later(
    session: AgentSession[None], begin: Begin, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time is counted, an outage is told once, and without a word of what was said."""
    failures = Failures()
    with caplog.at_level(logging.WARNING):
        interims = begin(failures)
        for error in (ValueError("Where"), OSError("Where"), None):
            taker.error, before = error, len(taker.told)

            def is_told(before: int = before) -> bool:
                hear(session, "Where")
                return len(taker.told) > before and taker.now == 0

            await until(is_told)
        interims.stop()
    await turns()
    assert failures.counts == {"interim": 2}
    (told,) = caplog.records
    assert "Where" not in str(vars(told))


async def test_while_nobody_takes_them_nothing_waits(session: AgentSession[None], begin: Begin, taker: Taker) -> None:
    """One try, and then nothing for a while, however much is said."""
    interims, taker.error = begin(timing=LONG), OSError()
    hear(session, "Where")
    await until(lambda: bool(taker.told) and taker.now == 0)
    for number in range(100):
        hear(session, f"Where is {number}")
        await asyncio.sleep(0)
    await turns()
    assert taker.texts == ["Where"]
    interims.stop()


async def test_what_was_heard_in_a_pause_is_old(
    session: AgentSession[None], begin: Begin, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to nobody when the pause is over; what is heard then is."""
    is_paused, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_backoff: Backoff) -> None:
        is_paused.set()
        await go_on.wait()

    monkeypatch.setattr(Backoff, "wait", wait)
    interims, taker.error = begin(), OSError()
    hear(session, "Where")
    await is_paused.wait()
    taker.error = None
    hear(session, "Where is")
    go_on.set()
    await turns()
    assert taker.texts == ["Where"]
    hear(session, "Where is my")
    await until(lambda: taker.texts == ["Where", "Where is my"])
    interims.stop()


async def test_nothing_is_told_behind_the_end(session: AgentSession[None], begin: Begin, taker: Taker) -> None:
    """What is told just then is broken off."""
    interims = begin()
    taker.may_end.clear()
    hear(session, "Where")
    await until(lambda: taker.now == 1)
    interims.stop()
    hear(session, "Where is")
    await until(lambda: taker.now == 0)
    taker.may_end.set()
    await turns()
    assert taker.texts == ["Where"]
