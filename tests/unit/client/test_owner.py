"""The policy by which an owner is asked again: when it is repeated, when the owner is looked up anew, when it ends."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from conversation_actors.client.owner import AbsenceNotice, RemoteOwner
from conversation_actors.errors import (
    ActivationLostError,
    ClusterUnavailableError,
    ConversationError,
    ConversationNotFoundError,
    OwnerFailedError,
    StoreUnavailableError,
)
from conversation_actors.port import PeerFailedError, PeerLostError, PeerRestartingError
from conversation_actors.protocol import ActivationInfo, Execute, Opened, Polled, Seen, View
from conversation_actors.timing import Timing
from tests.support.fakes import brief, until
from tests.support.quick import QUICK

VIEW = View(3, 1, b"")
ENTRIES = Polled((b"entry",), "o")
SEEN = Seen("life", "o")
AWAY = StoreUnavailableError("Redis does not answer")


class ScriptedPeer:
    """Gives one answer after the other: a value, an error as a value, or a failure of the port. Then it hangs."""

    def __init__(self, *answers: Any) -> None:
        """Answer with these, in order."""
        self.answers = deque(answers)
        self.is_current = True
        self.asked: list[str] = []
        self.calls: list[Execute] = []
        self.suspected = 0

    def suspect(self) -> None:
        """See `Peer.suspect`."""
        self.suspected += 1

    async def open(self, *, create: bool) -> Any:
        """See `Peer.open`."""
        return await self._next(f"open {create}")

    async def info(self) -> Any:
        """See `Peer.info`."""
        return await self._next("info")

    async def execute(self, call: Execute) -> Any:
        """See `Peer.execute`."""
        self.calls.append(call)
        return await self._next("execute")

    async def read(self, *, fresh: bool) -> Any:
        """See `Peer.read`."""
        return await self._next(f"read {fresh}")

    async def poll(self, watcher: str, after_seq: int, seen: Seen, seconds: float) -> Any:
        """See `Peer.poll`."""
        assert (watcher, after_seq, seen) == ("w", 3, SEEN)
        assert seconds > 0
        return await self._next("poll")

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Peer.let_go`."""
        await self._next(f"let go {list(watchers)}")

    async def passivate(self) -> Any:
        """See `Peer.passivate`."""
        return await self._next("passivate")

    async def line(self) -> None:
        """See `Peer.line`."""

    async def _next(self, name: str) -> Any:
        self.asked.append(name)
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.popleft()
        if isinstance(answer, (PeerLostError, PeerRestartingError, PeerFailedError)):
            raise answer
        return answer


class ScriptedPort:
    """Finds one peer after the other, the last one for ever; starts one only if it is asked to."""

    def __init__(self, *peers: ScriptedPeer) -> None:
        """Find these, in order."""
        self.peers = deque(peers)
        self.found = self.started = self.confirmed = 0
        self.starts: list[bool] = []
        self.is_running = True
        self.error: ConversationError | None = None

    async def find(self) -> ScriptedPeer | None:
        """See `OwnerPort.find`."""
        self.found += 1
        return self._next() if self.is_running else None

    async def find_or_start(self) -> ScriptedPeer:
        """See `OwnerPort.find_or_start`."""
        self.started += 1
        await asyncio.sleep(0)  # whoever finds owners takes time
        return self._next()

    async def confirm(self) -> None:
        """See `OwnerPort.confirm`."""
        self.confirmed += 1
        if self.error is not None:
            raise self.error

    def note_start(self, _info: ActivationInfo, *, was_ready: bool) -> None:
        """See `OwnerPort.note_start`."""
        self.starts.append(was_ready)

    async def aclose(self) -> None:
        """See `OwnerPort.aclose`."""

    def _next(self) -> ScriptedPeer:
        if self.error is not None:
            raise self.error
        return self.peers.popleft() if len(self.peers) > 1 else self.peers[0]


def made(*peers: ScriptedPeer, timing: Timing = QUICK, **seconds: float) -> tuple[RemoteOwner, ScriptedPort]:
    """An owner as seen through a port that finds these peers."""
    port = ScriptedPort(*peers)
    return RemoteOwner(port, brief(**cast("Any", seconds)), timing=timing), port


@pytest.mark.parametrize("failure", [PeerLostError(), ActivationLostError("fenced")], ids=["lost", "left"])
async def test_an_owner_that_is_gone_is_looked_up_anew(failure: Exception) -> None:
    """The next one is asked the same; the caller notices nothing."""
    gone, next_one = ScriptedPeer(failure), ScriptedPeer(VIEW)
    owner, port = made(gone, next_one)
    assert await owner.read(fresh=True) == VIEW
    assert (gone.asked, next_one.asked, port.started) == (["read True"], ["read True"], 2)


async def test_an_owner_that_is_being_restarted_is_asked_again_without_a_look() -> None:
    """The peer in hand stays good, and whoever finds owners is spared."""
    peer = ScriptedPeer(PeerRestartingError(), PeerRestartingError(), VIEW)
    owner, port = made(peer)
    assert await owner.read(fresh=False) == VIEW
    assert (port.started, port.confirmed) == (1, 0)


async def test_an_owner_that_restarts_for_long_has_the_cluster_confirmed() -> None:
    """Under a head that is gone, or another one, it seems to restart for ever: that is told instead of repeated."""
    peer = ScriptedPeer(PeerRestartingError())
    owner, port = made(peer, timing=Timing(ask=(0.001, 0.001), restart=0.0), command=0.2, attempt=0.1)
    assert await owner.poll("w", 3, SEEN) is None
    port.error = ClusterUnavailableError("no head")
    with pytest.raises(ClusterUnavailableError, match="no head"):
        await owner.read(fresh=False)
    assert port.confirmed
    assert await owner.poll("w", 3, SEEN) is None
    assert len(peer.asked) == 1


async def test_an_answer_ends_the_doubt_whether_a_restart_takes_too_long() -> None:
    """A later restart is given its time again."""
    peer = ScriptedPeer(PeerRestartingError(), VIEW, VIEW)
    owner, port = made(peer, timing=Timing(ask=(0.001, 0.001), restart=0.0))
    await owner.read(fresh=False)
    confirmed = port.confirmed
    await owner.read(fresh=False)
    assert (confirmed, port.confirmed) == (1, 1)


async def test_what_an_owner_raised_is_not_repeated() -> None:
    """It would raise that again; the caller is told the cause."""
    peer = ScriptedPeer(PeerFailedError(ZeroDivisionError("of ours")))
    owner, _ = made(peer)
    with pytest.raises(OwnerFailedError, match=r"ZeroDivisionError\('of ours'\)"):
        await owner.info()
    assert peer.asked == ["info"]


async def test_a_peer_that_answers_nothing_is_told_when_the_time_is_up() -> None:
    """The message says that there was no reply, and looks the owner up anew for each attempt."""
    owner, port = made(ScriptedPeer(), command=0.1, attempt=0.01)
    with pytest.raises(ClusterUnavailableError, match=r"not answered in 0\.1 s \(no reply\)"):
        await owner.read(fresh=False)
    assert port.started > 1


async def test_a_cluster_that_is_away_is_told_when_the_time_is_up() -> None:
    """With its own reason; until then it may come back."""
    owner, port = made(ScriptedPeer(), command=0.05)
    port.error = ClusterUnavailableError("no head")
    with pytest.raises(ClusterUnavailableError, match="no head"):
        await owner.read(fresh=False)
    assert port.started > 1


async def test_a_cluster_that_comes_back_in_time_is_asked() -> None:
    """Nobody is told that it was away."""
    owner, port = made(ScriptedPeer(VIEW))
    port.error = ClusterUnavailableError("no head")
    reading = asyncio.create_task(owner.read(fresh=False))
    await until(lambda: port.started > 3)
    port.error = None
    assert await reading == VIEW


async def test_a_read_waits_for_a_store_and_a_command_does_not() -> None:
    """Who sends commands decides by the error which of them to send again; a read has nothing to decide."""
    owner, _ = made(ScriptedPeer(AWAY, AWAY, VIEW))
    assert await owner.read(fresh=True) == VIEW
    owner, _ = made(ScriptedPeer(AWAY))
    with pytest.raises(StoreUnavailableError):
        await owner.execute(lambda: Execute((), "w", 0), 20.0)


async def test_a_read_tells_why_the_owner_could_not_answer_in_time() -> None:
    """Not that the owner was silent: it was not."""
    owner, _ = made(ScriptedPeer(*[AWAY] * 10_000), command=0.05)
    with pytest.raises(StoreUnavailableError, match="Redis does not answer"):
        await owner.read(fresh=True)


async def test_each_attempt_is_composed_anew() -> None:
    """The sender's copy may have gone on since the last attempt."""
    peer = ScriptedPeer(PeerLostError(), PeerRestartingError(), "executed")
    owner, _ = made(peer)
    positions = iter(range(3))
    assert await owner.execute(lambda: Execute((), "w", next(positions)), 20.0) == cast("Any", "executed")
    assert [call.after_seq for call in peer.calls] == [0, 1, 2]


Quiet = Callable[[RemoteOwner], Awaitable[object]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda owner: owner.poll("w", 3, SEEN),
        lambda owner: owner.let_go(["w"]),
        lambda owner: owner.tell_of_deletion(),
        lambda owner: owner.passivate(),
    ],
    ids=["poll", "let go", "deletion", "passivate"],
)
async def test_what_needs_no_answer_starts_no_owner(ask: Quiet) -> None:
    """A passivated conversation is not woken for it."""
    peer = ScriptedPeer()
    owner, port = made(peer)
    port.is_running = False
    await ask(owner)
    assert (port.started, peer.asked) == (0, [])


async def test_a_poll_is_sent_once_and_its_loss_is_no_answer() -> None:
    """Who polls has other things to do in between than to repeat."""
    owner, port = made(ScriptedPeer(PeerLostError()), ScriptedPeer(ENTRIES))
    assert await owner.poll("w", 3, SEEN) is None
    assert await owner.poll("w", 3, SEEN) == ENTRIES
    assert (port.found, port.started) == (2, 0)


async def test_what_the_owner_answers_to_a_poll_is_raised() -> None:
    """As to any other call."""
    owner, _ = made(ScriptedPeer(ConversationNotFoundError("gone")))
    with pytest.raises(ConversationNotFoundError):
        await owner.poll("w", 3, SEEN)


async def test_passivating_is_repeated_until_the_owner_has_left() -> None:
    """Its answer may be lost, as it leaves right after it; one that runs no longer has nothing to answer."""
    owner, _ = made(ScriptedPeer(PeerLostError()), ScriptedPeer(True))  # what `passivate` answers
    await owner.passivate()
    lost = ScriptedPeer(*[PeerLostError()] * 1000)  # it may be asked again before the test goes on
    owner, port = made(lost)
    passivating = asyncio.create_task(owner.passivate())
    await until(lambda: bool(lost.asked))
    port.is_running = False
    await passivating


@pytest.mark.parametrize(("error", "told"), [(None, "not answered"), (ClusterUnavailableError("no head"), "no head")])
async def test_an_owner_that_cannot_be_passivated_is_told(error: ConversationError | None, told: str) -> None:
    """Nobody knows whether it has left."""
    owner, port = made(ScriptedPeer(), command=0.05)
    port.error = error
    with pytest.raises(ClusterUnavailableError, match=told):
        await owner.passivate()


async def test_a_peer_of_another_place_is_looked_up_anew() -> None:
    """This process may have left the cluster in which it was found."""
    left, here = ScriptedPeer(VIEW, VIEW), ScriptedPeer(VIEW)
    owner, _ = made(left, here)
    await owner.read(fresh=False)
    left.is_current = False
    await owner.read(fresh=False)
    assert (len(left.asked), len(here.asked)) == (1, 1)


async def test_many_that_ask_at_once_look_once() -> None:
    """The head is not asked for the same owner by each of them."""
    peer = ScriptedPeer(*[VIEW] * 5)
    owner, port = made(peer)
    await asyncio.gather(*(owner.read(fresh=False) for _ in range(5)))
    assert port.started == 1


@pytest.mark.parametrize("was_ready", [None, True, False])
async def test_a_first_answer_of_an_owner_is_told_to_the_port(*, was_ready: bool | None) -> None:
    """There it is counted whether its process had been started ahead of time."""
    info = cast("ActivationInfo", "info")
    owner, port = made(ScriptedPeer(Opened(info, VIEW, was_ready)))
    assert await owner.open(create=True) == (info, VIEW)
    assert port.starts == ([] if was_ready is None else [was_ready])


async def test_an_owner_is_suspected_when_it_is_overdue() -> None:
    """A command that takes half of its time is; a poll is meant to take long."""
    polled, asked = ScriptedPeer(), ScriptedPeer()
    following, _ = made(polled, attempt=0.02)
    owner, _ = made(asked, attempt=0.02)
    polling = asyncio.create_task(following.poll("w", 3, SEEN))
    reading = asyncio.create_task(owner.read(fresh=False))
    await until(lambda: asked.suspected > 2)
    assert not polled.suspected
    for task in (polling, reading):
        task.cancel()
    await asyncio.gather(polling, reading, return_exceptions=True)


async def test_an_owner_that_answers_is_not_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doubt that was set for it is taken back with the answer; a poll has longer until there is one."""
    loop = asyncio.get_running_loop()
    doubts: list[tuple[float, asyncio.TimerHandle]] = []
    set_timer = loop.call_later

    def note(delay: float, callback: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        timer = set_timer(delay, callback, *arguments)
        if callback == peer.suspect:
            doubts.append((delay, timer))
        return timer

    peer = ScriptedPeer(VIEW, ENTRIES)
    owner, _ = made(peer, poll=20.0, attempt=20.0)
    monkeypatch.setattr(loop, "call_later", note)
    await owner.read(fresh=False)
    await owner.poll("w", 3, SEEN)
    assert [(delay, timer.cancelled()) for delay, timer in doubts] == [(2.0, True), (22.0, True)]


async def test_that_owners_cannot_be_looked_for_is_told_by_who_follows(caplog: pytest.LogCaptureFixture) -> None:
    """A poll raises nothing for it, and the log has the reason."""
    port = ScriptedPort(ScriptedPeer())
    port.error = ClusterUnavailableError("no head")
    owner = RemoteOwner(port, brief(), absence=AbsenceNotice())
    assert await owner.poll("w", 3, SEEN) is None
    assert "owners cannot be looked for" in caplog.text


def test_an_absence_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Every open handle of a process finds the same, again and again."""
    now = [1000.0]
    notice = AbsenceNotice(lambda: now[0])
    for _ in range(3):
        notice.tell(ClusterUnavailableError("no head"))
    assert len(caplog.records) == 1
    now[0] += 60.0
    notice.tell(TimeoutError())
    assert [record.__dict__["reason"] for record in caplog.records] == ["no head", "no answer in time"]
