"""The outbox: order, repeats, cancellation, deadlines, bounds, flush and close, with an owner that is a function."""

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from conversation_actors.client import delivery, outbox, refusals
from conversation_actors.client.digest import digest_of
from conversation_actors.client.outbox import Outbox
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConflictError,
    ConversationError,
    ConversationNotFoundError,
    InvalidInputError,
    OutcomeUnknownError,
    OverloadedError,
    OwnerFailedError,
    StoreUnavailableError,
)
from conversation_actors.protocol import Done, Executed, Reply, Request, Turn
from conversation_actors.settings import Settings
from conversation_actors.state import (
    AppendItems,
    ClearHistory,
    Command,
    Guard,
    JoinParticipant,
    SetAttributes,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.timing import Timing
from tests.support.fakes import brief, turns, until
from tests.support.quick import QUICK
from tests.support.strategies import message

AWAY = StoreUnavailableError("Redis does not answer")


class FakeSend:
    """An owner that answers, or fails as told; `batches` are the item ids of every call, failed ones too."""

    def __init__(self) -> None:
        """Healthy."""
        self.batches: list[list[str]] = []
        self.request_ids: list[list[str]] = []
        self.turns: list[Turn] = []
        self.leases: list[Guard | None] = []
        self.digests: list[str | None] = []
        self.seconds: list[float] = []
        self.plan: deque[Exception | tuple[Reply, ...]] = deque()
        self.refused: dict[str, ConversationError] = {}
        self.trouble: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, requests: Sequence[Request], seconds: float, turn: Callable[[], Turn]) -> Executed:
        """Answer a batch."""
        self.turns.append(turn())
        names = [name(request) for request in requests]
        self.batches.append(names)
        self.request_ids.append([request.request_id for request in requests])
        self.leases.extend(request.lease for request in requests)
        self.digests.extend(request.digest for request in requests)
        self.seconds.append(seconds)
        await self.may_answer.wait()
        step = self.plan.popleft() if self.plan else self.trouble
        if isinstance(step, Exception):
            raise step
        if step is not None:
            return Executed(step, ())
        replies: list[Reply] = []
        for request, called in zip(requests, names, strict=True):
            refusals = [self.refused[one] for one in called.split() if one in self.refused]
            replies.append(refusals[0] if refusals else Done(len(replies) + 1, 1))
            if refusals and request.is_group:
                break
        return Executed(tuple(replies), ())


def name(request: Request) -> str:
    """The items' ids, or the command's name."""
    command = request.command
    if not isinstance(command, AppendItems):
        return type(command).__name__
    return " ".join(item.id for item in command.items)


def item(identity: str, text: str = "hello") -> AppendItems:
    """A command."""
    return AppendItems((message(identity, text),))


class Running:
    """An outbox and its task."""

    def __init__(self, settings: Settings, timing: Timing = QUICK) -> None:
        """Start it."""
        self.send = FakeSend()
        self.box = Outbox(self.send, settings, timing=timing)
        self.task = asyncio.create_task(self.box.run())

    def ask(self, identity: str, text: str = "hello", request_id: str | None = None) -> "asyncio.Task[Done]":
        """Ask in the background."""
        return asyncio.create_task(self.box.ask(item(identity, text), request_id))

    async def occupy(self) -> "list[asyncio.Task[Done]]":
        """Have as many batches on their way as there may be, unanswered: what comes now waits."""
        self.send.may_answer.clear()
        asked = []
        for identity in ("first", "second"):
            sent = len(self.send.batches)
            asked.append(self.ask(identity))
            await until(lambda sent=sent: len(self.send.batches) > sent)  # type: ignore[misc]  # bound here and now
        return asked

    async def stop(self) -> None:
        """End the task."""
        self.task.cancel()
        await asyncio.wait({self.task})


@pytest.fixture
async def run() -> AsyncIterator[type[Running]]:
    """Makes outboxes that are stopped afterwards."""
    started: list[Running] = []

    class Started(Running):
        def __init__(self, settings: Settings | None = None, timing: Timing = QUICK) -> None:
            super().__init__(settings or brief(), timing)
            started.append(self)

    yield Started
    for one in started:
        await one.stop()


async def test_a_batch_gathers_while_two_are_on_their_way(run: type[Running]) -> None:
    """What comes meanwhile goes together in the next one, in the order it came; what comes before that, at once."""
    it = run(brief())
    it.send.may_answer.clear()
    first = it.ask("u0")
    await until(lambda: len(it.send.batches) >= 1)
    it.box.put(item("u1"))
    it.box.put(item("u2"))
    await until(lambda: len(it.send.batches) >= 2)
    it.box.put(item("u3"))
    await turns()
    third = it.ask("u4")
    await turns()
    it.send.may_answer.set()
    await asyncio.gather(first, third)
    await it.box.flush()
    assert it.send.batches == [["u0"], ["u1", "u2"], ["u3", "u4"]]
    (sender,) = {turn.sender for turn in it.send.turns}
    assert it.send.turns == [Turn(sender, 1, 0), Turn(sender, 2, 1), Turn(sender, 3, it.send.turns[2].after)]


async def test_a_batch_is_bounded(run: type[Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes no more commands and bytes than its bounds; what is larger goes alone."""
    monkeypatch.setattr(delivery, "BATCH_COMMANDS", 3)
    monkeypatch.setattr(delivery, "BATCH_BYTES", 1000)
    it = run(brief())
    for identity, size in (("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 2000), ("f", 600), ("g", 600), ("h", 600)):
        it.box.put(item(identity, "x" * size))
    await it.box.flush()
    assert it.send.batches == [["a", "b", "c"], ["d"], ["e"], ["f"], ["g"], ["h"]]


async def test_a_call_carries_no_more_than_is_remembered(run: type[Running]) -> None:
    """However much waits, a call that is repeated is recognised by an owner with the smallest request memory."""
    least = 500
    with pytest.raises(InvalidInputError, match="requests"):
        brief(requests=least - 1)
    it = run(brief(items=1000, bytes=4 << 20))
    callers = [it.ask(f"a{number}") for number in range(2 * least + 1)]
    await asyncio.gather(*callers)
    for _ in range(2 * least + 1):
        it.box.put(item("partial"))  # one id again and again: they cannot be a group
    await it.box.flush()
    it.send.refused["g7"] = ConflictError("no")
    for number in range(1000):
        it.box.put(item(f"g{number}"))  # a refused group is taken apart
    with pytest.raises(ConflictError):
        await it.box.flush()
    assert 0.9 * least < max(map(len, it.send.batches)) <= least
    sent = [one for batch in it.send.batches for one in batch if " " not in one]
    gathered, grouped = [f"a{n}" for n in range(2 * least + 1)], [f"g{n}" for n in range(1000)]
    assert sent == [*gathered, *["partial"] * (2 * least + 1), *grouped]


async def test_order_is_kept_over_failures(run: type[Running]) -> None:
    """A batch that failed is repeated as it was, with the same request ids, before anything that came later."""
    it = run(brief())
    it.send.plan.extend([AWAY, ClusterUnavailableError("nobody"), OverloadedError("full")])
    it.box.put(item("u0"))
    it.box.put(item("u1"))
    await until(lambda: len(it.send.batches) >= 2)
    it.box.put(item("u2"))
    await it.box.flush()
    assert it.send.batches == [["u0", "u1"]] * 4 + [["u2"]]
    assert len({tuple(sent) for sent in it.send.request_ids[:4]}) == 1
    assert len({one for sent in it.send.request_ids for one in sent}) == 3


# Groups


def words(text: str) -> list[str]:
    """Ids, from ``a-d e``."""
    ids: list[str] = []
    for word in text.split():
        first, _, last = word.partition("-")
        ids += [chr(code) for code in range(ord(first), ord(last or first) + 1)]
    return ids


@pytest.mark.parametrize(
    ("put", "sent"),
    [
        ("a-h", ["a b c d e f g h"]),
        ("a-g", ["a", "b", "c", "d", "e", "f", "g"]),
        ("a-k", ["a b c d e f g h i j", "k"]),
        ("a-s", ["a b c d e f g h i j", "k l m n o p q r s"]),
        ("a-h a", ["a b c d e f g h", "a"]),
        ("a-d a-d", ["a", "b", "c", "d", "a", "b", "c", "d"]),
        ("a-h A b", ["a b c d e f g h", "A", "b"]),
        ("A a-h B", ["A", "a b c d e f g h", "B"]),
        ("a-d C e-h", ["a", "b", "c", "d", "ClearHistory", "e", "f", "g", "h"]),
        ("a-h X i-p", ["a b c d e f g h", "X", "i j k l m n o p"]),
        ("a-h L-S", ["a b c d e f g h", "L M N O P Q R S"]),
    ],
)
async def test_what_goes_as_one(run: type[Running], put: str, sent: list[str]) -> None:
    """Eight neighbours or more that nobody waits for, of one lease, within the window, no id twice; all in order."""
    it = run(brief(items=10))
    asked = []
    for one in words(put):
        if one == "C":
            it.box.put(ClearHistory())
        elif one == "X":
            it.box.put(item("X", "x" * 200_000))  # more than a group may hold
        elif one in "AB":
            asked.append(it.ask(one))
            await asyncio.sleep(0)
        else:
            it.box.put(item(one), lease=Guard("agent", 7, "me", "") if one in "LMNOPQRS" else None)
    await asyncio.gather(*asked)
    await it.box.flush()
    assert [one for batch in it.send.batches for one in batch] == sent


async def test_a_refused_group_is_gone_through(run: type[Running]) -> None:
    """At once, only what is at fault is refused; all else is taken, in order, before what came behind the group."""
    it = run(brief(), Timing(outbox=(60.0, 60.0)))
    it.send.refused["u3"] = ConflictError("u3")
    for number in range(9):
        it.box.put(item(f"u{number}"))
    it.box.put(ClearHistory())
    with pytest.raises(ConflictError, match="u3") as error:
        await it.box.flush()
    assert not hasattr(error.value, "__notes__"), "one refusal, not nine"
    singly = [f"u{number}" for number in range(9)]
    assert it.send.batches == [[" ".join(singly), "ClearHistory"], [*singly, "ClearHistory"]]
    assert len(it.box) == 0
    first, second = it.send.request_ids
    assert first[0] not in second, "a name stands for one command: the group's is not any of its members'"
    assert first[1] == second[-1]


async def test_a_refused_call_blames_nothing_in_it(run: type[Running]) -> None:
    """What is raised for all of it is told to all of it; a group is not tried again, past what came with it."""
    it = run(brief())
    it.send.plan.append(ConversationNotFoundError("gone"))
    for number in range(9):
        it.box.put(item(f"u{number}"))
    it.box.put(ClearHistory())
    with pytest.raises(ConversationNotFoundError) as error:
        await it.box.flush()
    assert error.value.__notes__ == ["and 9 more refusals since the last flush"]
    assert len(it.send.batches) == 1


async def test_a_group_that_met_a_defect_is_not_gone_through(run: type[Running]) -> None:
    """Only a refusal is somebody's fault; an answer of another kind is told to all of the group, which is sent once."""
    it = run(brief())
    it.send.plan.append((OwnerFailedError("a defect"),))
    for number in range(9):
        it.box.put(item(f"u{number}"))
    with pytest.raises(OwnerFailedError) as error:
        await it.box.flush()
    assert error.value.__notes__ == ["and 8 more refusals since the last flush"]
    assert len(it.send.batches) == 1


async def test_a_group_is_repeated_as_it_was(run: type[Running]) -> None:
    """Whatever came meanwhile: the owner knows it by its name, and may have done it."""
    it = run(brief())
    it.send.plan.extend([AWAY, (OutcomeUnknownError("not durable yet"),)])
    for number in range(9):
        it.box.put(item(f"u{number}"))
    await until(lambda: len(it.send.batches) >= 1)
    it.box.put(item("u9"))
    await it.box.flush()
    group = " ".join(f"u{number}" for number in range(9))
    assert it.send.batches == [[group]] * 3 + [["u9"]]
    assert it.send.request_ids[0] == it.send.request_ids[1] == it.send.request_ids[2]


async def test_closing_tells_of_groups(run: type[Running], caplog: pytest.LogCaptureFixture) -> None:
    """Each member of one that is on its way is a refusal of its own."""
    it = run(brief())
    it.send.may_answer.clear()
    for number in range(9):
        it.box.put(item(f"u{number}"))
    await until(lambda: len(it.send.batches) >= 1)
    await it.stop()
    it.box.close(InvalidInputError("closed", field="conversation"))
    assert len(it.box) == 0
    assert sum(record.message == "a recorded item was refused" for record in caplog.records) == 9


async def test_request_ids(run: type[Running]) -> None:
    """A caller's request id is used as it is; two outboxes never make the same one."""
    one, two = run(brief()), run(brief())
    await asyncio.gather(one.ask("u0", request_id="mine"), one.ask("u1"), two.ask("u0"), two.ask("u1"))
    made = [identity for it in (one, two) for sent in it.send.request_ids for identity in sent]
    assert made[0] == "mine"
    assert len(set(made)) == 4


async def test_content_is_sent_along_under_a_chosen_id(run: type[Running]) -> None:
    """As a digest, the same in each repeat; what has an automatic id costs none, recorded groups neither."""
    it = run(brief())
    it.send.plan.append(AWAY)
    await it.ask("u0", request_id="mine")
    await it.ask("u1")
    for number in range(10):
        it.box.put(item(f"r{number}"))
    await it.box.flush()
    digest = digest_of(item("u0"))
    assert it.send.digests == [digest, digest, None, None]


async def test_a_lease_is_sent_along(run: type[Running]) -> None:
    """Waited for or not, what comes in the name of a lease says so, in its repeats too."""
    it = run(brief())
    it.send.plan.append(AWAY)
    one, two = Guard("agent", 7, "me", ""), Guard("agent", 8, "me", "")
    it.box.put(item("u0"), lease=one)
    await it.box.ask(item("u1"), None, lease=two)
    await it.box.ask(item("u2"), None)
    assert it.send.leases == [one, two] * 2 + [None]


async def test_partial_replies(run: type[Running]) -> None:
    """What was decided is answered at once; the rest of the batch, and only that, is repeated, in order."""
    it = run(brief())
    unknown = OutcomeUnknownError("not durable yet")
    it.send.plan.append((Done(1, 1), unknown, unknown))
    it.send.plan.append((Done(2, 1), unknown))
    asks = [it.ask(f"u{number}") for number in range(3)]
    assert [done.seq for done in await asyncio.gather(*asks)] == [1, 2, 1]
    assert it.send.batches == [["u0", "u1", "u2"], ["u1", "u2"], ["u2"]]


async def test_a_refusal_is_its_callers_own(run: type[Running]) -> None:
    """One refused command of a batch is told to its caller; the others are answered as they were."""
    it = run(brief())
    it.send.refused["u1"] = ConflictError("no")
    asks = [it.ask(f"u{number}") for number in range(3)]
    first, refused, last = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(first, Done)
    assert isinstance(refused, ConflictError)
    assert isinstance(last, Done)
    assert len(it.send.batches) == 1


async def test_what_no_repeat_mends(run: type[Running]) -> None:
    """An error of another kind than "try again" is told to everybody in the batch, and the next one is sent."""
    it = run(brief())
    it.send.plan.append(ConversationNotFoundError("gone"))
    results = await asyncio.gather(it.ask("u0"), it.ask("u1"), return_exceptions=True)
    assert [type(result) for result in results] == [ConversationNotFoundError] * 2
    assert (await it.ask("u2")).seq == 1


async def test_survives_a_defect(run: type[Running]) -> None:
    """An unexpected exception is told as a typed error, and what comes later is sent all the same."""
    it = run(brief())
    it.send.plan.append(ZeroDivisionError("a defect"))
    with pytest.raises(OwnerFailedError, match="ZeroDivisionError"):
        await it.ask("u0")
    assert (await it.ask("u1")).seq == 1


# Cancellation


async def test_cancelled_before_it_was_sent(run: type[Running]) -> None:
    """A caller that leaves before its command was sent takes it back; its neighbours are sent."""
    it = run(brief())
    sent = await it.occupy()
    asks = [it.ask(f"u{number}") for number in range(1, 4)]
    await turns()
    asks[1].cancel()
    await turns()
    it.send.may_answer.set()
    await asyncio.gather(*sent, asks[0], asks[2])
    assert it.send.batches == [["first"], ["second"], ["u1", "u3"]]
    assert len(it.box) == 0


async def test_what_was_taken_back_weighs_nothing(run: type[Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a command that was cancelled before it was sent are free again."""
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", 1000)
    it = run(brief())
    for _ in range(3):
        sent = await it.occupy()
        second = it.ask("u1", "x" * 700)
        await turns()
        second.cancel()
        it.send.may_answer.set()
        await asyncio.gather(*sent)
        await it.box.flush()
    it.box.put(item("u2", "x" * 700))


async def test_only_cancelled_ones(run: type[Running]) -> None:
    """A queue of nothing but cancelled commands is passed over, and a flush of it ends."""
    it = run(brief())
    sent = await it.occupy()
    second = it.ask("u1")
    await turns()
    second.cancel()
    it.send.may_answer.set()
    await asyncio.gather(*sent)
    await it.box.flush()
    assert it.send.batches == [["first"], ["second"]]


async def test_cancelled_after_it_was_sent(run: type[Running]) -> None:
    """A caller that leaves later takes nothing back, and its neighbours are answered; the batch stays whole."""
    it = run(brief())
    it.send.may_answer.clear()
    it.send.plan.append(AWAY)
    asks = [it.ask(f"u{number}") for number in range(3)]
    await until(lambda: len(it.send.batches) >= 1)
    asks[1].cancel()
    it.send.may_answer.set()
    assert [done.seq for done in await asyncio.gather(asks[0], asks[2])] == [1, 3]
    assert it.send.batches == [["u0", "u1", "u2"]] * 2
    await it.box.flush()
    assert len(it.box) == 0


# Deadlines


async def test_a_deadline(run: type[Running]) -> None:
    """A caller waits no longer than `timeouts.command`: then the outcome is unknown, and the error says why."""
    it = run(brief(command=0.5))
    it.send.trouble = AWAY
    with pytest.raises(OutcomeUnknownError, match="Redis does not answer") as error:
        await it.ask("u0")
    assert error.value.__cause__ is AWAY
    await until(lambda: len(it.box) == 0)  # what nobody waits for any more is not repeated any more
    sent = len(it.send.batches)
    it.send.trouble = None
    assert (await it.ask("u1")).seq == 1
    assert it.send.batches[sent:] == [["u1"]]


async def test_an_attempt_cut_short_hides_no_reason(run: type[Running]) -> None:
    """The last attempt before a deadline has too little time to say anything: what the owner said before is told."""
    it = run(brief(command=0.2))
    it.send.plan.append((OutcomeUnknownError("not durable: OOM"),))
    it.send.trouble = ClusterUnavailableError("no reply in 0.05 s")
    with pytest.raises(OutcomeUnknownError, match="OOM"):
        await it.ask("u0")


async def test_a_deadline_while_nobody_answers(run: type[Running]) -> None:
    """The time is bounded too where the owner does not answer at all."""
    it = run(brief(command=0.5))
    it.send.may_answer.clear()
    with pytest.raises(OutcomeUnknownError):
        await it.ask("u0")


async def test_a_deadline_in_the_queue(run: type[Running]) -> None:
    """A call that waits behind recorded items which cannot be sent ends in time; it was not sent, and never is."""
    it = run(brief(command=0.5))
    it.send.trouble = AWAY
    it.box.put(item("recorded"))
    await until(lambda: len(it.send.batches) >= 1)
    with pytest.raises(StoreUnavailableError, match="not sent"):
        await it.ask("asked")
    it.send.trouble = None
    await it.box.flush()
    assert {identity for batch in it.send.batches for identity in batch} == {"recorded"}


async def test_a_deadline_behind_batches_that_hang(run: type[Running]) -> None:
    """The same where the batches before hang without an error; what is on its way behind another may have happened."""
    it = run(brief(command=0.03))
    it.send.may_answer.clear()
    it.box.put(item("recorded"))
    await until(lambda: len(it.send.batches) >= 1)
    with pytest.raises(OutcomeUnknownError):
        await it.ask("asked")
    it.box.put(item("recorded"))
    with pytest.raises(ClusterUnavailableError, match="not sent"):
        await it.ask("asked")


async def test_the_owner_is_looked_for_no_longer_than_somebody_waits(run: type[Running]) -> None:
    """The time given to one call is that until the first deadline, and never nothing."""
    it = run(brief(command=2.0))
    it.send.plan.extend([AWAY] * 3)
    await it.ask("u0")
    assert all(
        0.05 <= later < earlier <= 2.0 for earlier, later in zip(it.send.seconds, it.send.seconds[1:], strict=False)
    )


# Bounds


async def test_bounded_by_number(run: type[Running]) -> None:
    """One command too many is refused with the number in the text, and nothing of it is taken."""
    it = run(brief(outbox_items=3))
    it.send.may_answer.clear()
    for number in range(3):
        it.box.put(item(f"u{number}"))
    with pytest.raises(OverloadedError, match="3 commands"):
        it.box.put(item("u3"))
    with pytest.raises(OverloadedError):
        await it.box.ask(item("u4"), None)
    assert len(it.box) == 3
    it.send.may_answer.set()
    await it.box.flush()
    it.box.put(item("u5"))
    await it.box.flush()
    assert [identity for batch in it.send.batches for identity in batch] == ["u0", "u1", "u2", "u5"]


async def test_bounded_by_bytes(run: type[Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are bounded as well, and freed when they were sent; commands without content weigh nothing."""
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", 1000)
    it = run(brief())
    for _ in range(3):
        it.box.put(item("u0", "x" * 700))
        with pytest.raises(OverloadedError):
            it.box.put(item("u1", "x" * 700))
        await it.box.flush()
    it.box.put(item("u2", "x" * 700))
    it.box.put(ClearHistory())


@pytest.mark.parametrize(
    "heavy",
    [
        SetAttributes({"a": "x" * 700}),
        JoinParticipant(identity="al", device_id="d", metadata={"a": "x" * 700}),
        UpdateParticipant(identity="al", context={"a": "x" * 700}),
        SetSummary("x" * 700, 0),
    ],
)
async def test_every_heavy_command_weighs(run: type[Running], monkeypatch: pytest.MonkeyPatch, heavy: Command) -> None:
    """Not only items count as bytes."""
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", 1000)
    it = run(brief())
    it.box.put(heavy)
    with pytest.raises(OverloadedError):
        it.box.put(heavy)


# Flush


async def test_flush_waits_for_all_that_was_put(run: type[Running]) -> None:
    """A flush ends when everything put before it is settled, and does not wait for what comes later."""
    it = run(brief())
    await it.box.flush()
    it.send.may_answer.clear()
    it.box.put(item("u0"))
    flush = asyncio.create_task(it.box.flush())
    await until(lambda: len(it.send.batches) >= 1)
    it.box.put(item("u1"))
    await turns()
    assert not flush.done()
    it.send.may_answer.set()
    await flush


async def test_flush_tells_refusals_once(run: type[Running]) -> None:
    """A flush raises the first refusal of what nobody waited for, says how many more there were, and forgets them."""
    it = run(brief())
    for identity in ("u0", "u2"):
        it.send.refused[identity] = ConflictError(identity)
    for number in range(3):
        it.box.put(item(f"u{number}"))
    with pytest.raises(ConflictError, match="u0") as error:
        await it.box.flush()
    assert error.value.__notes__ == ["and 1 more refusals since the last flush"]
    await it.box.flush()


async def test_flush_does_not_tell_what_was_told(run: type[Running]) -> None:
    """A refusal that an awaiting caller got is not raised again by a flush."""
    it = run(brief())
    it.send.refused["u0"] = ConflictError("no")
    with pytest.raises(ConflictError):
        await it.ask("u0")
    await it.box.flush()


async def told(box: Outbox) -> str | None:
    """The refusal that a flush of this very task raises, if it raises one."""
    try:
        await box.flush()
    except ConversationError as error:
        return str(error)
    return None


async def recorded(box: Outbox, identity: str, may_flush: asyncio.Event) -> str | None:
    """A task that records one item, and flushes when it may."""
    box.put(item(identity))
    await may_flush.wait()
    return await told(box)


async def test_every_flush_that_waits_is_told(run: type[Running]) -> None:
    """Whoever waits for what is refused is told, whichever flush ends first; one that covers none of it is not."""
    it = run(brief())
    it.send.refused["u1"] = ConflictError("u1")
    it.send.may_answer.clear()
    it.box.put(item("u0"))
    await until(lambda: len(it.send.batches) >= 1)
    before = asyncio.create_task(told(it.box))
    await turns()
    it.box.put(item("u1"))
    waiting = [asyncio.create_task(told(it.box)) for _ in range(3)]
    await turns()
    it.send.may_answer.set()
    assert await before is None
    assert await asyncio.gather(*waiting) == ["u1"] * 3
    assert await told(it.box) == "u1", "it was put here, and nobody has told this task"
    assert await told(it.box) is None


async def test_who_put_it_is_told_though_another_was(run: type[Running]) -> None:
    """A flush of one task does not take away the refusal of what another task has put; nobody is told twice."""
    it = run(brief())
    may_flush = asyncio.Event()
    it.send.refused["u0"] = ConflictError("u0")
    owner = asyncio.create_task(recorded(it.box, "u0", may_flush))
    bystander = asyncio.create_task(recorded(it.box, "u1", may_flush))
    await until(lambda: len(it.box) == 0 and len(it.send.batches) == 1)
    assert await told(it.box) == "u0", "nobody was told yet"
    assert await told(it.box) is None
    may_flush.set()
    assert await owner == "u0"
    assert await bystander is None
    assert not it.box._refused


@pytest.mark.parametrize("way", ["wait_for", "gather", "task"])
async def test_who_put_it_is_told_by_a_flush_it_starts(run: type[Running], way: str) -> None:
    """`asyncio.wait_for` makes a task of its own on Python 3.11, `gather` everywhere: it flushes for its starter."""
    it = run(brief())
    it.send.refused["u0"] = ConflictError("u0")
    may_flush = asyncio.Event()

    async def flush() -> str | None:
        waits = {
            "wait_for": lambda: asyncio.wait_for(it.box.flush(), 60),
            "gather": lambda: asyncio.gather(it.box.flush()),
            "task": lambda: asyncio.create_task(it.box.flush()),
        }
        try:
            await waits[way]()  # type: ignore[no-untyped-call]  # three kinds of awaitables
        except ConflictError as error:
            return str(error)
        return None

    async def record_and_flush() -> list[str | None]:
        it.box.put(item("u0"))
        await may_flush.wait()
        return [await flush(), await flush()]

    owner = asyncio.create_task(record_and_flush())
    await until(lambda: len(it.box) == 0 and len(it.send.batches) == 1)
    assert await told(it.box) == "u0", "nobody was told yet"
    may_flush.set()
    assert await owner == ["u0", None]


async def test_a_flush_that_gave_up_is_owed_what_another_heard_first(run: type[Running]) -> None:
    """Whose time was up is told by the next flush, though somebody else flushed in between."""
    it = run(brief(command=0.05))
    it.send.refused["u0"] = ConflictError("u0")
    it.send.may_answer.clear()
    asyncio.get_running_loop().call_soon(it.box.put, item("u0"))
    await until(lambda: len(it.box) == 1)
    with pytest.raises(OutcomeUnknownError):
        await it.box.flush()
    it.send.may_answer.set()
    await until(lambda: len(it.box) == 0)

    async def other() -> str | None:
        return await told(it.box)

    assert await asyncio.create_task(other()) == "u0"
    assert await told(it.box) == "u0"
    assert await told(it.box) is None


async def test_what_nobody_can_be_told_of_is_told_to_anybody(run: type[Running]) -> None:
    """What was put by a task that has ended, or by none, is raised by the next flush of whomever, once."""
    it = run(brief())
    it.send.refused = {identity: ConflictError(identity) for identity in ("u0", "u1")}

    async def put() -> None:
        it.box.put(item("u0"))

    await asyncio.create_task(put())
    asyncio.get_running_loop().call_soon(it.box.put, item("u1"))
    await until(lambda: [one for batch in it.send.batches for one in batch] == ["u0", "u1"] and len(it.box) == 0)
    with pytest.raises(ConflictError, match="u0") as error:
        await it.box.flush()
    assert error.value.__notes__ == ["and 1 more refusals since the last flush"]
    assert await told(it.box) is None
    assert not it.box._refused


async def test_flush_does_not_tell_what_was_put_later(run: type[Running]) -> None:
    """A refusal of what was put behind a flush is left for the next one, also where both went in one batch."""
    it = run(brief())
    it.send.refused["u2"] = ConflictError("u2")
    await it.occupy()
    it.box.put(item("u1"))
    may_flush = asyncio.Event()

    async def twice() -> list[str | None]:
        first = await told(it.box)
        await may_flush.wait()
        return [first, await told(it.box)]

    flushes = asyncio.create_task(twice())
    await turns()
    it.box.put(item("u2"))
    it.send.may_answer.set()
    await until(lambda: len(it.box) == 0)
    assert it.send.batches[-1] == ["u1", "u2"]
    assert await told(it.box) == "u2"
    may_flush.set()
    assert await flushes == [None, None], "it was neither put nor waited for there"


async def test_a_flush_that_gave_up_is_told_by_the_next(run: type[Running]) -> None:
    """One that was waiting when an item was refused, and timed out before it could tell, tells at the next try."""
    it = run(brief(command=0.05))
    it.send.refused["u0"] = ConflictError("u0")
    it.send.plan.append((ConflictError("u0"), OutcomeUnknownError("not durable yet")))
    it.send.may_answer.clear()
    it.box.put(item("u0"))
    it.box.put(item("u1"))
    it.send.trouble = AWAY
    may_flush = asyncio.Event()

    async def twice() -> list[str | None]:
        first = await told(it.box)
        await may_flush.wait()
        return [first, await told(it.box)]

    waiting = asyncio.create_task(twice())
    await turns()
    it.send.may_answer.set()
    await until(lambda: len(it.send.batches) >= 2)
    with pytest.raises(OutcomeUnknownError):
        await it.box.flush()
    it.send.trouble = None
    await until(lambda: len(it.box) == 0)
    assert await told(it.box) == "u0"
    may_flush.set()
    first, second = await waiting
    assert "not acknowledged" in str(first)
    assert second == "u0"


async def test_a_task_that_is_gone_is_not_kept(run: type[Running]) -> None:
    """What is to be told to a task does not keep it, nor what it holds, in memory."""
    it = run(brief())
    it.send.refused["u0"] = ConflictError("u0")
    task = asyncio.create_task(recorded(it.box, "u0", asyncio.Event()))
    await until(lambda: len(it.box) == 0 and len(it.send.batches) == 1)
    gone = weakref.ref(task)
    task.cancel()
    await asyncio.wait({task})
    del task
    gc.collect()
    assert gone() is None
    assert await told(it.box) == "u0"


async def test_flush_in_time(run: type[Running]) -> None:
    """A flush that takes too long says why, and leaves everything queued: the next one brings it through."""
    it = run(brief(command=0.03))
    it.send.trouble = AWAY
    it.box.put(item("u0"))
    with pytest.raises(OutcomeUnknownError, match="Redis does not answer") as error:
        await it.box.flush()
    assert error.value.__cause__ is AWAY
    assert len(it.box) == 1
    it.send.trouble = None
    await it.box.flush()
    assert (len(it.box), it.send.batches[-1]) == (0, ["u0"])


async def test_refusals_kept_are_bounded(run: type[Running]) -> None:
    """Whoever never flushes gathers no refusals without end, and still none of those concerned is passed over."""
    it = run(brief())
    may_flush = asyncio.Event()
    it.send.refused = {f"u{number}": ConflictError(f"u{number}") for number in range(150)}
    it.send.may_answer.clear()
    it.box.put(item("u0"))
    other = asyncio.create_task(recorded(it.box, "u1", may_flush))
    await turns()
    for number in range(2, 150):
        it.box.put(item(f"u{number}"))
    it.send.may_answer.set()
    with pytest.raises(ConflictError) as error:
        await it.box.flush()
    assert error.value.__notes__ == ["and 149 more refusals since the last flush"]
    assert len(it.box._refused) <= refusals.MAX_REFUSALS
    may_flush.set()
    assert await other is not None


# Close


async def test_close_answers_everybody(run: type[Running]) -> None:
    """Closing answers what is queued and what is on its way, each by its kind; later calls raise at once."""
    it = run(brief())
    sent = await it.occupy()
    queued = it.ask("u1")
    it.box.put(item("u2"))
    flush = asyncio.create_task(it.box.flush())
    await turns()
    await it.stop()
    it.box.close(InvalidInputError("closed", field="conversation"))
    results = await asyncio.gather(*sent, queued, flush, return_exceptions=True)
    assert [type(result) for result in results] == [
        OutcomeUnknownError,
        OutcomeUnknownError,
        ClusterUnavailableError,
        ClusterUnavailableError,
    ]
    with pytest.raises(InvalidInputError, match="closed"):
        await it.box.ask(item("u3"), None)
    with pytest.raises(InvalidInputError, match="closed"):
        it.box.put(item("u4"))
    it.box.close(InvalidInputError("closed", field="conversation"))
    assert len(it.box) == 0


async def test_a_repeat_that_was_closed_may_have_happened(run: type[Running]) -> None:
    """What is being repeated when the outbox is closed had been sent: its outcome is unknown, the item's too."""
    it = run(brief())
    it.send.may_answer.clear()
    first = it.ask("first")
    await until(lambda: len(it.send.batches) >= 1)
    asked = it.ask("u0")
    await turns()
    it.box.put(item("u1"))
    it.send.trouble = AWAY
    it.send.plan.append((Done(1, 1),))
    it.send.may_answer.set()
    await first
    await until(lambda: len(it.send.batches) >= 3)
    flush = asyncio.create_task(it.box.flush())
    await turns()
    await it.stop()
    it.box.close(InvalidInputError("closed", field="conversation"))
    results = await asyncio.gather(asked, flush, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknownError] * 2
    assert all("Redis does not answer" in str(result) for result in results)
