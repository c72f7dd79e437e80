"""The checker of histories: a good one has no violations, and each kind of wrong one is found."""

import itertools
import json
from pathlib import Path
from typing import Any, Self

import pytest

from tests.chaos.archive import mutants as of_the_archive
from tests.chaos.calls import mutants as of_calls
from tests.chaos.history import mutants as of_histories
from tests.chaos.history.checker import Findings, check
from tests.chaos.history.mutants import Mutant
from tests.chaos.history.record import Line, digest, read

ALL_MUTANTS = [
    (whose, name, mutant)
    for whose, all_of_them in (
        ("histories", of_histories.MUTANTS), ("lines", of_histories.LINE_MUTANTS), ("archive", of_the_archive.MUTANTS),
        ("calls", of_calls.MUTANTS),
    )
    for name, mutant in all_of_them.items()
]  # fmt: skip
LIFE, NEXT_LIFE = "first-life", "next-life"


class Story:
    """Makes a history line by line, a second apart; one conversation, whose state it keeps for the views."""

    def __init__(self) -> None:
        """Settled in its first life, and watched by the witness."""
        self.lines: list[Line] = []
        self._now = 0.0
        self._numbers = itertools.count(1)
        self.begin(LIFE)

    def add(self, what: str, **facts: Any) -> Self:
        """Add one line of the witness's, unless it names another process."""
        self._now += 1
        self.lines.append({"what": what, "process": "witness", "at": self._now, "conversation": "c", **facts})
        return self

    def begin(self, life: str, *, after: int = 0) -> Self:
        """Settle in a life, and watch it from its beginning."""
        self.life, self.seq, self.epoch, self.run = life, after, 1, next(self._numbers)
        self.said: list[str] = []
        self.counter = 0
        self.leases: dict[str, list[Any]] = {}
        return self.add("settled", life=life).add("run", run=self.run, life=life, after=after)

    def fault(self, *, ends: bool = False, lost_after: int | None = None) -> Self:
        """Something happened to the system."""
        losses = [] if lost_after is None else [["c", self.life, lost_after]]
        return self.add("fault", kind="fault", ends=["c"] if ends else [], losses=losses)

    def entry(self, request: str, **facts: Any) -> Self:
        """The witness is shown the next entry."""
        self.seq += 1
        self.said += facts.get("texts", [])
        shown = {"seq": self.seq, "epoch": self.epoch, "time": self._now, "request": request, "kind": "ItemsAppended"}
        return self.add("entry", run=self.run, life=self.life, **{**shown, **facts})

    def invoke(self, request: str, operation: str = "append", **facts: Any) -> int:
        """A client begins something."""
        number = next(self._numbers)
        self.add("invoke", process="client", number=number, operation=operation, request=request, **facts)
        return number

    def complete(self, number: int, result: str = "ok", **facts: Any) -> Self:
        """What it began ends."""
        return self.add("complete", process="client", number=number, result=result, **facts)

    def append(self, text: str, **facts: Any) -> Self:
        """A client's append, from its beginning to its receipt."""
        number = self.invoke(f"r{text}", texts=[text], **facts)
        return self.entry(f"r{text}", texts=[text]).complete(number, receipt=[self.seq, self.epoch])

    def view(self, *, fresh: bool = True, said: list[str] | None = None, **facts: Any) -> Self:
        """A read that shows everything, or what it is told to."""
        said = self.said if said is None else said
        shown = {
            "life": self.life, "seq": self.seq, "epoch": self.epoch, "started": self._now + 0.5, "fresh": fresh,
            "digest": digest(said), "counter": self.counter, "leases": {}, "texts": said,
        }  # fmt: skip
        return self.add("view", **{**shown, **facts})

    def judged(self) -> Findings:
        """What the checker finds, after a last view."""
        return check(self.view().lines)


def assert_found(story: Story, what: str) -> None:
    """Fail unless the checker finds this, and nothing that is something else."""
    found = story.judged().violations
    assert [violation for violation in found if what in violation], found


def test_good() -> None:
    """Appends, two lives, a permitted loss, a lease, a counter: nothing is wrong, and all is counted."""
    story = Story().append("a1").append("a2").view()
    story.entry("rc", kind="AttributesChanged", counter=1)
    story.counter = 1
    story.view().entry("rl", kind="LeaseAcquired", lease=["agent", "client", story.seq + 1, 100.0])
    story.append("guarded", lease=["agent", "client", story.seq])
    story.fault(lost_after=3)
    story.seq, story.said = 3, ["a1", "a2"]
    story.add("run", run=99, life=LIFE, after=3)
    story.run = 99
    story.append("a3").fault(ends=True).begin(NEXT_LIFE).append("b1")
    findings = story.judged()
    assert findings.violations == []
    assert findings.figures["lives"] == 2
    assert findings.figures["items acknowledged"] == 5
    assert findings.figures["lost with permission"] == 2


def test_acknowledged_and_nowhere() -> None:
    """An append with a receipt that no watch and no view shows."""
    story = Story().append("a1")
    story.complete(story.invoke("ra2", texts=["a2"]), receipt=[2, 1])
    assert_found(story, "append ra2 of client was acknowledged at [2, 1], where it is not")


def test_receipt_of_another_position() -> None:
    """An append that is there, and not where its receipt says."""
    story = Story()
    number = story.invoke("ra1", texts=["a1"])
    story.entry("ra1", texts=["a1"]).complete(number, receipt=[7, 1])
    assert_found(story, "acknowledged at [7, 1], where it is not")


def test_acknowledged_and_replaced() -> None:
    """Two watches show different entries at one position, without a loss that was permitted."""
    story = Story().append("a1")
    story.add("run", run=99, life=LIFE, after=0)
    story.seq, story.run = 0, 99
    assert_found(story.entry("other", texts=["b1"]), "two entries at seq 1")


def test_missing_in_the_last_view() -> None:
    """What the last life's log brought is not in its last state."""
    story = Story().append("a1").append("a2")
    story.said.remove("a1")
    assert_found(story, "a1, at seq 1, is not in the last view")


def test_executed_twice() -> None:
    """A request that left two entries in one life."""
    assert_found(Story().append("a1").entry("ra1", texts=["a1"]), "request ra1 was executed again")


def test_repeat_with_another_receipt() -> None:
    """A repeat has the first receipt; here it has another one, of no entry."""
    story = Story().append("a1").append("a2")
    story.complete(story.invoke("ra1", "repeat", texts=["a1"]), receipt=[2, 1])
    assert_found(story, "repeat ra1 of client was acknowledged at [2, 1], where it is not")


def test_life_came_back() -> None:
    """A conversation that is in a life it had left."""
    story = Story().append("a1").fault(ends=True).begin(NEXT_LIFE).append("b1").fault(ends=True)
    assert_found(story.begin(LIFE), f"life {LIFE} came back")


def test_life_ended_by_itself() -> None:
    """A new life without a fault that may end one."""
    assert_found(Story().append("a1").fault().begin(NEXT_LIFE), "ended though nothing had happened")


def test_item_of_an_earlier_life() -> None:
    """What was settled before a life began is in that life."""
    story = Story().append("a1").fault(ends=True).begin(NEXT_LIFE).entry("ra1", texts=["a1"])
    assert_found(story, f"a1 was settled before life {NEXT_LIFE} began")


def test_gap_in_a_watch() -> None:
    """A watch that leaves a position out."""
    story = Story().append("a1")
    story.seq += 1
    assert_found(story.append("a3"), "went from seq 1 to 3")


def test_watch_goes_on_after_a_loss() -> None:
    """What a watch had brought is lost, and it goes on in the history that has taken its place."""
    story = Story().append("a1").append("a2").fault(lost_after=1)
    story.add("run", run=99, life=LIFE, after=1)
    run, story.run, story.seq, story.said = story.run, 99, 1, ["a1"]
    story.append("b2").append("b3")
    assert story.judged().violations == []
    story.run, story.seq = run, 2
    assert_found(story.entry("rb3", texts=["b3"], time=story.lines[-3]["time"]), "went on to seq 3 in a history")


def test_watch_goes_on_in_another_life() -> None:
    """A watch that is in one life brings an entry of the next."""
    story = Story().append("a1")
    run = story.run
    story.fault(ends=True).begin(NEXT_LIFE).append("b1").append("b2")
    story.run, story.life, story.seq = run, LIFE, 1
    shown = next(line for line in story.lines if line.get("request") == "rb2" and line["what"] == "entry")
    assert_found(story.entry("rb2", texts=["b2"], time=shown["time"]), "was shown in life first-life and in life next")


def test_epoch_falls() -> None:
    """An entry of an epoch before the one in front of it."""
    story = Story()
    story.epoch = 2
    story.append("a1").epoch = 1
    assert_found(story.append("a2"), "epoch 1 follows epoch 2")


def test_lost_update() -> None:
    """Two increments of one value were both taken."""
    story = Story().entry("r1", kind="AttributesChanged", counter=1).entry("r2", kind="AttributesChanged", counter=1)
    story.counter = 1
    assert_found(story, "the counter went from 1 to 1")


def test_write_of_a_deposed_holder() -> None:
    """A guarded write behind another holder's acquisition."""
    story = Story().entry("rl", kind="LeaseAcquired", lease=["agent", "other", 1, 100.0])
    assert_found(story.append("a1", lease=["agent", "client", 1]), "in the name of lease ['client', 1]")


def test_lease_taken_too_early() -> None:
    """Somebody takes a lease that is another's for some time more."""
    story = Story().entry("r1", kind="LeaseAcquired", lease=["agent", "one", 1, 100.0])
    assert_found(story.entry("r2", kind="LeaseAcquired", lease=["agent", "two", 2, 200.0]), "two took the lease")


def test_stale_fresh_read() -> None:
    """A fresh read that does not show what had been acknowledged before it began; an ordinary one may."""
    story = Story().append("a1").append("a2")
    assert story.view(fresh=False, seq=1, said=["a1"]).judged().violations == []
    assert_found(story.view(fresh=True, seq=1, said=["a1"]), "a fresh read of witness is at")


def test_order_in_real_time() -> None:
    """An append that began when another one had been acknowledged stands before it."""
    story = Story()
    number = story.invoke("ra1", texts=["a1"])
    story.complete(number, receipt=[2, 1]).append("a2").entry("ra1", texts=["a1"])
    assert_found(story, "append ra2 of client is at")


def test_view_of_another_story() -> None:
    """A state that the log does not lead to."""
    assert_found(Story().append("a1").view(said=["b1"]).append("a2"), "other items than the log has")


def test_refused_and_there() -> None:
    """A refused write that happened."""
    story = Story()
    number = story.invoke("ra1", texts=["a1"])
    story.entry("ra1", texts=["a1"]).complete(number, "refused", error="ConflictError")
    assert_found(story, "was refused (ConflictError), and is there")


def test_request_id_for_something_else() -> None:
    """Another text under a request id that is remembered was acknowledged: with the first receipt, and dropped."""
    story = Story().append("a1")
    story.complete(story.invoke("ra1", "reuse", texts=["x1"]), receipt=[1, 1])
    assert_found(story, "reuse ra1 of client was acknowledged, and something else is there")


def test_handle_loses_its_order() -> None:
    """What one handle recorded comes in another order."""
    story = Story().entry("r1", texts=["n:one/c:00002"]).entry("r2", texts=["n:one/c:00001"])
    assert_found(story, "n:one/c:00001 came behind n:one/c:00002")


def test_loss_excuses_what_came_before_it() -> None:
    """What was acknowledged before a permitted loss may be lost by it; what began behind it may not."""
    story = Story().append("a1").append("a2").fault(lost_after=1)
    story.seq, story.said = 1, ["a1"]
    assert story.judged().violations == []
    story.complete(story.invoke("ra3", texts=["a3"]), receipt=[2, 1])
    assert_found(story, "ra3 of client was acknowledged at [2, 1], where it is not")


def test_lost_before_anybody_was_shown_it() -> None:
    """An append whose owner died with the data behind it, before a watch had brought it; its repeat happens anew."""
    story = Story().append("a1")
    story.complete(story.invoke("ra2", texts=["a2"]), receipt=[2, 1]).fault(lost_after=1)
    number = story.invoke("ra2", "repeat", texts=["a2"])
    story.entry("rb", texts=["b"]).entry("ra2", texts=["a2"]).complete(number, receipt=[3, 1])
    assert story.judged().violations == []


def test_end_of_a_life_excuses_no_replaced_entry() -> None:
    """An append whose position another entry has in the life that acknowledged it; that this life ends is no excuse."""
    story = Story()
    story.complete(story.invoke("ra1", texts=["a1"]), receipt=[1, 1]).entry("rb", texts=["b"])
    assert_found(story.fault(ends=True).begin(NEXT_LIFE), "ra1 of client was acknowledged at [1, 1], where it is not")


def test_unexpected_error() -> None:
    """A client that ended with an error nobody expects."""
    assert_found(Story().add("error", process="client", error="CorruptStateError()"), "client: CorruptStateError()")


def test_unfinished_line(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves whole lines, which are read in the order of time."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"at": 2}) + "\n" + '{"at": 3, "wh')
    (tmp_path / "two.jsonl").write_text(json.dumps({"at": 1}) + "\n")
    assert read(tmp_path) == [{"at": 1}, {"at": 2}]


@pytest.mark.parametrize("mutant", [pytest.param(one, id=f"{whose}-{name}") for whose, name, one in ALL_MUTANTS])
def test_mutants_can_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    """Each planted fault still finds the text it replaces."""
    planted = mutant.plant(tmp_path / "copy") / "conversation_actors" / mutant.file
    assert mutant.old not in planted.read_text() or mutant.old in mutant.new


def test_mutant_without_its_place(tmp_path: Path) -> None:
    """A fault whose text is not found fails loudly."""
    with pytest.raises(LookupError, match="not exactly one place"):
        Mutant("errors.py", "no such text", "", ()).plant(tmp_path / "copy")
