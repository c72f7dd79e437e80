"""The demo's verdict fails when a promise is broken: each break is put in by hand."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from conversation_actors.cli.demo.__main__ import exit_code
from conversation_actors.cli.demo.script import DemoScript, call_key
from conversation_actors.cli.demo.story import DemoOutcome
from conversation_actors.cli.demo.verdict import Evidence, Return, Written, judge

SCRIPT = DemoScript(
    turns=("Hello?", "Bye."),
    lines=(("user", "Hello?"), ("assistant", "Good day."), ("user", "Bye."), ("assistant", "Bye bye.")),
    calls=Counter({call_key("look_up", {"order": 1}): 1}),
    steps=(1, 0),
)
TOOL = {"id": "t", "type": "function_call", "name": "look_up", "arguments": '{"order": 1}'}


def _message(identity: str, role: str, text: str) -> dict[str, Any]:
    return {"id": identity, "type": "message", "role": role, "content": [text]}


FINAL = (
    _message("a", "user", "Hello?"),
    TOOL,
    _message("b", "assistant", "Good day."),
    _message("c", "user", "Bye."),
    _message("d", "assistant", "Bye bye."),
)
IDS = tuple(item["id"] for item in FINAL)
GOOD = Evidence(
    acknowledged={"A": ["a", "t", "b"], "B": ["d"]},
    seqs=[1, 2, 3, 4, 5],
    written=[Written(number + 1, identity, identity.encode()) for number, identity in enumerate(IDS)],
    final=FINAL,
    watched=frozenset(IDS),
    after_wipe=Return(
        history=[*FINAL, _message("e", "assistant", "Welcome back.")], seqs=[6, 7], welcome="back", acknowledged=["e"]
    ),
)
AGAIN = GOOD.after_wipe


def test_a_kept_promise_passes() -> None:
    """All there, once, in order: exit code 0. What was written and never acknowledged is no loss."""
    verdict = judge(GOOD, SCRIPT)

    assert exit_code(DemoOutcome(verdict, [])) == 0
    assert (verdict.acknowledged, verdict.present) == (4, 5)


BROKEN = {
    "an acknowledged item is missing at the end": replace(GOOD, final=[i for i in FINAL if i["id"] != "t"]),
    "an acknowledged item was never in the journal": replace(GOOD, written=GOOD.written[1:], seqs=[1, 2, 3, 4]),
    "an id is there twice": replace(GOOD, final=[*FINAL, FINAL[-1]]),
    "the same bytes were written twice": replace(GOOD, written=[*GOOD.written, Written(6, "d", b"d")]),
    "a sentence was said twice": replace(GOOD, final=[*FINAL, _message("e", "assistant", "Bye bye.")]),
    "a tool was used twice": replace(GOOD, final=[*FINAL, {**TOOL, "id": "t2"}]),
    "the journal has a gap": replace(GOOD, seqs=[1, 2, 4, 5, 6]),
    "the history is in another order than the journal": replace(GOOD, final=[FINAL[1], FINAL[0], *FINAL[2:]]),
    "a process's items are in another order": replace(GOOD, acknowledged={"A": ["b", "a"]}),
    "the agent said something else": replace(
        GOOD, final=[*FINAL[:4], _message("d", "assistant", "I have lost the thread.")]
    ),
    "the watching process missed an item": replace(GOOD, watched=GOOD.watched - {"c"}),
    "nothing was acknowledged at all": replace(GOOD, acknowledged={}),
    "an item is forgotten when Redis is wiped": replace(GOOD, after_wipe=replace(AGAIN, history=AGAIN.history[1:])),
    "the history ends earlier after the wipe": replace(GOOD, after_wipe=replace(AGAIN, history=FINAL[:4])),
    "an item has other words after the wipe": replace(
        GOOD, after_wipe=replace(AGAIN, history=[_message("a", "user", "Hm?"), *AGAIN.history[1:]])
    ),
    "what was acknowledged after the wipe is missing": replace(GOOD, after_wipe=replace(AGAIN, history=FINAL)),
    "another conversation began after the wipe": replace(GOOD, after_wipe=replace(AGAIN, seqs=[1, 2])),
    "nothing came after the wipe": replace(GOOD, after_wipe=replace(AGAIN, seqs=[])),
    "the caller was taken for a new one": replace(GOOD, after_wipe=replace(AGAIN, welcome="first")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_fails(name: str) -> None:
    """Each of these alone makes the exit code non-zero."""
    assert exit_code(DemoOutcome(judge(BROKEN[name], SCRIPT), [])) == 1


def test_what_is_wrong_is_counted() -> None:
    """Lost and duplicated are numbers in the JSON document, with the ids beside them."""
    lost = judge(BROKEN["an acknowledged item is missing at the end"], SCRIPT).document()
    twice = judge(BROKEN["an id is there twice"], SCRIPT).document()

    assert (lost["lost"], lost["lost_ids"]) == (1, ["t"])
    assert twice["duplicated"] >= 1
