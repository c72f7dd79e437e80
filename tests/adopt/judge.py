"""Whether an agent came back as itself: what it asked, said, did and stored, against what it should have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.adopt.model import Asked
from tests.adopt.shapes import Fault, Shape, Turn
from tests.adopt.stage import Played
from tests.e2e.calls import BACK

_DEPLOY_SECONDS = 15.0
"""A handover that takes longer has waited for something that never comes; on an idle machine it takes two or three.
`migrate` may take longer for another reason: the worker that is to be left may be asked first, several times."""
CALLER = "caller"
_ABOVE = frozenset({"system", "developer"})


def judge(played: Played) -> None:
    """Fail with everything that is wrong, in words."""
    wrong = [
        *_requests(played),
        *_brought(played),
        *_differences("said to the caller", expected_lines(played), played.said),
        *_differences("done", list(played.shape.effects), played.effects),
        *_stored(played),
        *_handover(played),
        *([] if played.is_there else ["the room is gone"]),
    ]
    assert not wrong, f"{played.shape.name}, {played.fault}:\n" + "\n".join(f"- {one}" for one in wrong)


def expected_lines(played: Played) -> list[str]:
    """What the caller should have heard, each once: a word that it is back only from an agent that was away."""
    shape = played.shape
    back = [] if played.fault.is_planned else [BACK]
    lines = [shape.greeting, *(turn.hears for turn in shape.before), *back, *(turn.hears for turn in shape.after)]
    return [line for line in lines if line]


def _handover(played: Played) -> list[str]:
    if played.blow.exit_code != 0:
        return [f"the worker that was told to end did so with {played.blow.exit_code}"]
    if played.fault is not Fault.DEPLOY or played.blow.seconds <= _DEPLOY_SECONDS:
        return []
    return [f"the handover took {played.blow.seconds:.1f} s"]


def _requests(played: Played) -> list[str]:
    asked = [one for one in played.since if not one.refusal]
    old = 0 if played.fault is Fault.NOTHING else played.blow.old
    wrong = [f"the model refused a request: {one.refusal}" for one in played.since if one.refusal]
    wrong += [f"the old agent asked the model about {one.last_words!r}" for one in asked if one.pid == old]
    successors = [one for one in asked if one.pid != old and not one.line]
    if not successors:
        return [*wrong, "no successor asked the model"]
    first = successors[0]
    wanted = [
        *played.before.messages,
        {"role": "assistant", "content": played.before.reply.text},
        *({"role": "assistant", "content": line} for line in _lines_of_ours(played)),
        {"role": "user", "content": played.shape.after[0].says},
    ]
    follows = _cut(wanted, first.messages) if played.shape.is_cut else _same(wanted, first.messages)
    return [*wrong, *follows, *_tools(played.before, first)]


def _lines_of_ours(played: Played) -> list[str]:
    """What a successor says of itself, where that is part of the talk."""
    return [BACK] if played.shape.is_line_talk and not played.fault.is_planned else []


def _brought(played: Played) -> list[str]:
    """What the application put into the context is there from the first request to the last one."""
    wanted = list(played.shape.brought)
    for number, one in enumerate(played.asked):
        found = [message["content"] for message in one.messages if message.get("content") in wanted]
        if found != wanted:
            return [f"request {number} has of what the application brought only {found}"]
    return []


def _same(wanted: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[str]:
    if list(wanted) == list(found):
        return []
    return ["the first request is not what the last one before leads to:\n" + _beside(wanted, found)]


def _cut(wanted: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[str]:
    """Of a long talk the beginning may be missing; what stands above it may not."""
    above = [one for one in wanted if one["role"] in _ABOVE]
    talk, kept = ([one for one in some if one["role"] not in _ABOVE] for some in (wanted, found))
    wrong = [] if above == [one for one in found if one["role"] in _ABOVE] else ["what was pinned is gone or changed"]
    if not kept or talk[-len(kept) :] != kept:
        wrong.append("the talk in the first request is not the end of what was said")
    return [f"{one}:\n{_beside(wanted, found)}" for one in wrong]


def _tools(before: Asked, first: Asked) -> list[str]:
    if before.tools == first.tools:
        return []
    return [f"the tools were {sorted(before.tools)} and are {sorted(first.tools)}, or are described otherwise"]


def _stored(played: Played) -> list[str]:
    """Every item once; each call with one output; the talk in its order."""
    items = [item.to_dict() for item in played.stored.items]
    twice = [key for key, count in Counter(item["id"] for item in items).items() if count > 1]
    calls = Counter(item["call_id"] for item in items if item["type"] == "function_call")
    outputs = Counter(item["call_id"] for item in items if item["type"] == "function_call_output")
    wrong = [f"stored twice: {twice}"] if twice else []
    if calls != outputs or any(count > 1 for count in calls.values()):
        wrong.append(f"calls {dict(calls)} and outputs {dict(outputs)} do not belong together")
    wrong += [f"who said {item['content']} is not known" for item in items if _is_anonymous(item)]
    firsts = [item for item in items if item["type"] == "agent_handoff" and not item.get("old_agent_id")]
    if len(firsts) > 1:
        wrong.append(f"{len(firsts)} agents were the first")
    if "livekit.handover" in played.stored.attributes:
        wrong.append("the handover is not over")
    spoken = [(role, text) for role, text in played.stored.said if role in {"user", "assistant"}]
    return [*wrong, *_differences("stored", expected_talk(played.shape, _lines_of_ours(played)), spoken)]


def _is_anonymous(item: Mapping[str, Any]) -> bool:
    who = (item.get("extra") or {}).get("participant") or {}
    return item.get("role") == "user" and not (who.get("identity") == CALLER and who.get("device"))


def expected_talk(shape: Shape, lines: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The messages that the conversation should hold; `lines` are our own, between what was before and after."""

    def exchange(turn: Turn) -> list[tuple[str, str]]:
        kept = turn.says if turn.kept is None else turn.kept
        heard = [("assistant", turn.hears)] if turn.hears else []
        return [("user", kept), *heard] if kept and heard else heard

    greeting = [("assistant", shape.greeting)] if shape.greeting else []
    before, after = ([line for turn in turns for line in exchange(turn)] for turns in (shape.before, shape.after))
    return [*greeting, *before, *(("assistant", line) for line in lines), *after]


def _differences(what: str, wanted: Sequence[object], found: Sequence[object]) -> list[str]:
    if list(wanted) == list(found):
        return []
    return [f"{what}: should be\n{_listed(wanted)}\n  and is\n{_listed(found)}"]


def _beside(wanted: Sequence[object], found: Sequence[object]) -> str:
    return f"  should be\n{_listed(wanted)}\n  and is\n{_listed(found)}"


def _listed(lines: Sequence[object]) -> str:
    return "\n".join(f"    {line}" for line in lines) or "    nothing"
