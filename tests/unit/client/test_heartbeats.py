"""`Heartbeats` as an application holds them: what is checked, what is passed on, when it is connected."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors.client import Heartbeats, opening
from conversation_actors.errors import (
    InvalidInputError,
    ItemTooLargeError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.settings import Settings
from conversation_actors.store import HeartbeatRecord, MemoryStore, Place, Store
from conversation_actors.store.heartbeats import MemoryHeartbeats

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
RECORD = HeartbeatRecord("c", "h1", "", {}, 1, "w1", MINUTE)


class CheckedStore(MemoryStore):
    """A store whose check fails as told, and that knows whether it was closed."""

    def __init__(self) -> None:
        """In good order."""
        super().__init__(clock=lambda: self.now)
        self.now = 0.0
        self.failure: Exception | None = None
        self.is_closed = False

    async def check(self) -> None:
        """Fail as told."""
        if self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> CheckedStore:
    """The store that is opened next."""
    made = CheckedStore()

    def open_made(settings: Settings) -> Store:
        assert isinstance(settings, Settings)
        return made

    monkeypatch.setattr(opening, "open_store", open_made)
    return made


@pytest.fixture
async def heartbeats(store: CheckedStore) -> AsyncIterator[Heartbeats]:
    """Heartbeats of the lease "agent"."""
    async with Heartbeats(clock=lambda: store.now) as entered:
        yield entered


async def claimed(heartbeats: Heartbeats, store: CheckedStore, claimant: str, *, until: float) -> list[HeartbeatRecord]:
    """What is claimed by somebody who looks twice a second until then."""
    records: list[HeartbeatRecord] = []
    while store.now < until:
        store.now += 0.5
        records += await heartbeats.claim_expired(claimant, hold=MINUTE)
    return records


async def test_a_life(heartbeats: Heartbeats, store: CheckedStore) -> None:
    """Start, beat, fall silent, be claimed, be postponed, be settled."""
    await heartbeats.start("c", "h1", valid_for=MINUTE, group="g", details={"room": "r"})
    assert await claimed(heartbeats, store, "w1", until=50.0) == []
    assert await heartbeats.beat("c", "h1", valid_for=MINUTE)
    assert await claimed(heartbeats, store, "w1", until=110.0) == []
    (record,) = await claimed(heartbeats, store, "w1", until=111.0)
    assert record == HeartbeatRecord("c", "h1", "g", {"room": "r"}, 1, "w1", MINUTE)
    assert not await heartbeats.beat("c", "h1", valid_for=MINUTE)
    assert await heartbeats.postpone(record, delay=2 * SECOND)
    (again,) = await claimed(heartbeats, store, "w2", until=114.0)
    assert (again.attempt, again.claimant) == (2, "w2")
    assert not await heartbeats.settle(record)
    assert await heartbeats.settle(again)
    assert await heartbeats.find("c") is None


async def test_known_deaths(heartbeats: Heartbeats) -> None:
    """Of one holder, and of a group; what was stopped is not claimed."""
    for conversation_id in ("a", "b", "c"):
        await heartbeats.start(conversation_id, "h1", valid_for=MINUTE, group="g")
    assert await heartbeats.stop("c", "h1")
    assert await heartbeats.claim("a", "w1", hold=MINUTE) is None
    claimed = await heartbeats.claim("a", "w1", hold=MINUTE, holder="h1")
    assert claimed is not None
    assert [record.conversation_id for record in await heartbeats.claim_group("g", "w2", hold=MINUTE)] == ["b"]


async def test_what_a_beat_leaves_out_stays(heartbeats: Heartbeats) -> None:
    """Details that are given empty are given."""
    await heartbeats.start("c", "h1", valid_for=MINUTE, group="g", details={"room": "r"})
    await heartbeats.beat("c", "h1", valid_for=MINUTE)
    kept = await heartbeats.find("c")
    await heartbeats.beat("c", "h1", valid_for=MINUTE, details={})
    emptied = await heartbeats.find("c")
    assert kept is not None
    assert emptied is not None
    assert (kept.group, kept.details, emptied.group, emptied.details) == ("g", {"room": "r"}, "g", {})


async def test_nobody_is_waited_for_for_ever(heartbeats: Heartbeats, store: CheckedStore) -> None:
    """After an hour that this reader has seen, or what the caller says, a death is of no interest."""
    await heartbeats.start("old", "h1", valid_for=timedelta(minutes=50))
    await heartbeats.start("older", "h1", valid_for=timedelta(minutes=70))
    for _ in range(423):
        store.now += 10.0
        assert "older" not in [one.conversation_id for one in await heartbeats.claim_expired("w1", hold=MINUTE * 90)]
    assert await heartbeats.find("older") is None
    found = await heartbeats.find("old")
    assert found is not None
    assert found.claimant == "w1"
    await heartbeats.start("young", "h1", valid_for=SECOND)
    for _ in range(6):
        await heartbeats.find("young")
        store.now += 0.3
        await heartbeats.claim_expired("w1", hold=MINUTE, forget=SECOND / 2, limit=1)
    assert await heartbeats.find("young") is None


async def test_what_cannot_be_reached_begins_the_count_anew(
    heartbeats: Heartbeats, store: CheckedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question without an answer: nobody could have been heard."""
    await heartbeats.start("c", "h1", valid_for=MINUTE)
    assert await claimed(heartbeats, store, "w1", until=59.0) == []

    async def away(self: MemoryHeartbeats, conversation_id: str) -> None:
        raise StoreUnavailableError(conversation_id)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryHeartbeats, "find", away)
        with pytest.raises(StoreUnavailableError):
            await heartbeats.find("c")
    assert await claimed(heartbeats, store, "w1", until=119.0) == []
    assert len(await claimed(heartbeats, store, "w1", until=121.0)) == 1


async def test_a_record_tells_how_long_it_is_silent(heartbeats: Heartbeats, store: CheckedStore) -> None:
    """As far as this object has seen; alive until that is as long as the beat was valid."""
    await heartbeats.start("c", "h1", valid_for=SECOND)
    told = []
    for _ in range(5):
        record = await heartbeats.find("c")
        assert record is not None
        told.append((record.silent_for.total_seconds(), record.valid_for, record.is_alive, record.is_silent))
        store.now += 0.25
    assert told == [(0.25 * look, SECOND, look < 4, look == 4) for look in range(5)]


async def test_keep(heartbeats: Heartbeats, store: CheckedStore) -> None:
    """The conversation itself is kept for its retention, which is told; None where there is none."""
    assert await heartbeats.keep("c") is None
    claim = (await store.activate("c", owner="o", create=True, ttl=MINUTE)).claim
    await store.append(claim, expected_seq=0, entries=[], ttl=SECOND, kept=MINUTE)
    store.now += 0.9
    assert await heartbeats.keep("c") == MINUTE
    store.now += 59.0
    assert await store.head("c") is not None


async def test_leases_do_not_meet(store: CheckedStore) -> None:
    """Each has signs of life of its own."""
    async with Heartbeats() as agents, Heartbeats(lease="summary") as summaries:
        await agents.start("c", "h1", valid_for=MINUTE)
        assert await summaries.find("c") is None
        assert await agents.find("c") is not None
    assert store.is_closed


async def test_roles_are_told_apart(heartbeats: Heartbeats) -> None:
    """Each has its record; which ones a holder has begun is known behind its end too."""
    await heartbeats.start("c", "h1", valid_for=MINUTE)
    await heartbeats.start("c", "h1", role="translator", valid_for=MINUTE)
    assert await heartbeats.beat("c", "h1", role="translator", valid_for=MINUTE)
    assert await heartbeats.stop("c", "h1")
    assert await heartbeats.find("c") is None
    claimed = await heartbeats.claim("c", "w", hold=MINUTE, holder="h1", role="translator")
    assert claimed is not None
    assert (claimed.conversation_id, claimed.role) == ("c", "translator")
    assert await heartbeats.held_by("h1") == [("c", ""), ("c", "translator")]


async def test_who_is_on_its_way(heartbeats: Heartbeats) -> None:
    """Known before it begins, by conversation and role, until that is taken back; nobody has it yet."""
    await heartbeats.announce("c", "h1")
    await heartbeats.announce("c", "h1", role="translator")
    assert await heartbeats.find("c") is None
    assert await heartbeats.held_by("h1") == [("c", ""), ("c", "translator")]
    await heartbeats.withdraw("c", "h1")
    assert await heartbeats.held_by("h1") == [("c", "translator")]


async def test_which_roles_there_are(heartbeats: Heartbeats) -> None:
    """Those with a record in the very conversation; one that is only on its way has none."""
    await heartbeats.start("c", "h1", valid_for=MINUTE)
    await heartbeats.announce("c", "h1", role="coach")
    assert await heartbeats.roles_of("c") == []
    await heartbeats.start("c", "h2", role="translator", valid_for=MINUTE)
    await heartbeats.start("cc", "h2", role="scribe", valid_for=MINUTE)
    assert await heartbeats.roles_of("c") == ["translator"]


async def test_who_is_expected(heartbeats: Heartbeats) -> None:
    """Told before the call, amended by it, met once; what cannot be read is passed over."""
    told = {"conversation_id": "c", "attempt": 2}
    expectation = await heartbeats.expect("room", "", told, keep=MINUTE)
    assert await heartbeats.expected("room", "") == [expectation]
    assert (expectation.told, expectation.call, expectation.is_declined) == (told, "", False)
    called = replace(expectation, call="AD_1", is_declined=True)
    assert await heartbeats.amend(called, keep=MINUTE)
    assert await heartbeats.expected("room", "") == [called]
    store = heartbeats._connected().expectations("agent")
    for number, damage in enumerate([b"", b"[]", b'{"told": 7, "call": ""}', b'{"told": {}}', b"\xff"]):
        await store.put(Place("room", ""), f"t{number}", damage, keep=MINUTE, is_new=True)
    assert await heartbeats.expected("room", "") == [called]
    assert await heartbeats.met(called)
    assert not await heartbeats.met(called)
    assert not await heartbeats.amend(called, keep=MINUTE)


Call = Callable[[Heartbeats], Awaitable[Any]]
BAD: dict[str, tuple[Call, str]] = {
    "no conversation": (lambda h: h.start("", "h1", valid_for=SECOND), "conversation_id"),
    "no holder": (lambda h: h.start("c", "", valid_for=SECOND), "holder"),
    "no duration": (lambda h: h.start("c", "h1", valid_for=5), "valid_for"),  # type: ignore[arg-type]
    "no time": (lambda h: h.start("c", "h1", valid_for=SECOND * 0), "valid_for"),
    "more than a day": (lambda h: h.start("c", "h1", valid_for=timedelta(days=2)), "valid_for"),
    "an unprintable group": (lambda h: h.start("c", "h1", valid_for=SECOND, group="a\nb"), "group"),
    "details that are a list": (lambda h: h.start("c", "h1", valid_for=SECOND, details=[1]), "details"),  # type: ignore[arg-type]
    "details with bytes": (lambda h: h.start("c", "h1", valid_for=SECOND, details={"a": b"x"}), "details.a"),
    "a beat of nobody": (lambda h: h.beat("c", "\0", valid_for=SECOND), "holder"),
    "a beat into the past": (lambda h: h.beat("c", "h1", valid_for=-SECOND), "valid_for"),
    "large details": (lambda h: h.beat("c", "h1", valid_for=SECOND, details={"a": "x" * 8192}), "details"),
    "a stop of nothing": (lambda h: h.stop("c", 7), "holder"),  # type: ignore[arg-type]
    "no claimant": (lambda h: h.claim_expired("", hold=SECOND), "claimant"),
    "a claim without end": (lambda h: h.claim_expired("w", hold=None), "hold"),  # type: ignore[arg-type]
    "no claims": (lambda h: h.claim_expired("w", hold=SECOND, limit=0), "limit"),
    "too many claims": (lambda h: h.claim_expired("w", hold=SECOND, limit=1001), "limit"),
    "claims without number": (lambda h: h.claim_expired("w", hold=SECOND, limit=True), "limit"),
    "nothing to remember": (lambda h: h.claim_expired("w", hold=SECOND, forget=SECOND * 0), "forget"),
    "a claim of a bad holder": (lambda h: h.claim("c", "w", hold=SECOND, holder=""), "holder"),
    "a claim for no time": (lambda h: h.claim("c", "w", hold=SECOND * 0), "hold"),
    "no group": (lambda h: h.claim_group("", "w", hold=SECOND), "group"),
    "no delay": (lambda h: h.postpone(RECORD, delay=SECOND * 0), "delay"),
    "no record": (lambda h: h.settle("c"), "record"),  # type: ignore[arg-type]
    "a record by its id": (lambda h: h.postpone("c", delay=SECOND), "record"),  # type: ignore[arg-type]
    "nothing to find": (lambda h: h.find("x" * 257), "conversation_id"),
    "a role of two lines": (lambda h: h.start("c", "h1", valid_for=SECOND, role="a\nb"), "role"),
    "a role that is a number": (lambda h: h.find("c", role=7), "role"),  # type: ignore[arg-type]
    "what nobody holds": (lambda h: h.held_by(""), "holder"),
    "an announcement of nobody": (lambda h: h.announce("c", ""), "holder"),
    "nowhere to go": (lambda h: h.withdraw("", "h1"), "conversation_id"),
    "roles of nothing": (lambda h: h.roles_of(""), "conversation_id"),
    "no room": (lambda h: h.expect("", "a", {}, keep=SECOND), "room"),
    "an agent of two lines": (lambda h: h.expected("r", "a\nb"), "agent_name"),
    "no time to expect": (lambda h: h.expect("r", "a", {}, keep=SECOND * 0), "keep"),
    "what JSON has not": (lambda h: h.expect("r", "a", {"x": b""}, keep=SECOND), "told.told.x"),
    "too much to expect": (lambda h: h.expect("r", "a", {"x": "y" * 9000}, keep=SECOND), "told"),
    "nobody to meet": (lambda h: h.met("t"), "expectation"),  # type: ignore[arg-type]
    "nobody to amend": (lambda h: h.amend(None, keep=SECOND), "expectation"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input(heartbeats: Heartbeats, case: str) -> None:
    """A mistake is told with its field, and nothing is written."""
    call, field = BAD[case]
    with pytest.raises(InvalidInputError) as error:
        await call(heartbeats)
    assert error.value.field == field
    assert await heartbeats.find("c") is None


async def test_too_large_details_tell_their_size(heartbeats: Heartbeats) -> None:
    """And the limit."""
    with pytest.raises(ItemTooLargeError) as error:
        await heartbeats.start("c", "h1", valid_for=SECOND, details={"a": "x" * 8192})
    assert (error.value.size, error.value.limit) == (8200, 8192)


def test_made_wrong() -> None:
    """Told where it is made."""
    with pytest.raises(InvalidInputError):
        Heartbeats("redis://localhost")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        Heartbeats(lease="")


async def test_not_connected(store: CheckedStore) -> None:
    """Before it is entered, and after it was closed, a call says so."""
    heartbeats = Heartbeats()
    with pytest.raises(InvalidInputError, match="async with"):
        await heartbeats.find("c")
    async with heartbeats:
        assert await heartbeats.find("c") is None
    with pytest.raises(InvalidInputError, match="async with"):
        await heartbeats.find("c")
    assert store.is_closed
    await heartbeats.aclose()


async def test_redis_may_be_away_at_first(store: CheckedStore) -> None:
    """Entering does not fail for it: every call says so for itself."""
    store.failure = StoreUnavailableError("away")
    async with Heartbeats() as heartbeats:
        await heartbeats.start("c", "h1", valid_for=MINUTE)
    assert store.is_closed


async def test_a_server_that_cannot_do_it_is_refused(store: CheckedStore) -> None:
    """At once, and nothing is left open."""
    store.failure = StoreMisconfiguredError("NOPERM")
    with pytest.raises(StoreMisconfiguredError):
        await Heartbeats().__aenter__()
    assert store.is_closed
