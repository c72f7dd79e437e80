"""Restore calls of tools and their outputs: each call gets one output, and no call of a dead process stays open."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from livekit.agents.llm import ChatItem, FunctionCall, FunctionCallOutput

from agent_worker.session.context import INTERRUPTED_SUFFIX

INTERRUPTED_OUTPUT = "interrupted; outcome unknown"
"""What the model reads as the output of a tool call that had started and whose output was never recorded."""
FINAL = "_final"
"""The suffix that LiveKit puts after a call's id for the final output of a tool that has reported before."""
_MADE_UP_CALL = "_outcome_unknown"
"""The end of the ids of calls that were made up for the end of a tool that has reported before."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A history in which each call has one output after it."""

    items: list[ChatItem]
    left_out: int
    """How many outputs were left out: second outputs of one call, and outputs of no call."""
    calls: tuple[FunctionCall, ...]
    outputs: tuple[FunctionCallOutput, ...]
    """`calls` and `outputs` were made up, so the conversation lacks them. Some of the outputs belong to these calls."""


@dataclass(slots=True)
class _Use:
    """A call with all outputs that were found for it, `before` and after (`behind`) its place."""

    call: FunctionCall
    before: list[FunctionCallOutput] = field(default_factory=list)
    behind: list[FunctionCallOutput] = field(default_factory=list)

    @property
    def output(self) -> FunctionCallOutput | None:
        """The call's one output, because providers refuse two. A real one is preferred to one that was made up."""
        told = [*self.behind, *self.before]
        return next((one for one in told if not _is_made_up(one)), next(iter(told), None))

    @property
    def has_its_place(self) -> bool:
        """Whether the output stays at its place. If not, it is put right after its call."""
        return any(one is self.output and not _is_made_up(one) for one in self.behind)


def paired(items: Sequence[ChatItem], reports: Mapping[str, str]) -> Paired:
    """Give each call one output and a call id of its own, because some models begin to count anew in each reply.

    `reports` maps the id of an output to the call id of the tool that reported with it and went on working. If there is
    no later output of such a tool, the tool has died with its process. An end for it is made up then and put after
    everything that was said.
    """
    ends = list(_ends_of_dead_tools(items, reports))
    complete = [*items, *ends]
    uses = _uses(complete)
    made_up = [item for item in ends if isinstance(item, FunctionCallOutput)]
    for use in uses.values():
        if use.output is None:
            made_up.append(_interrupted(use.call))
            use.behind.append(made_up[-1])
    outputs = {use.output.id: use for use in uses.values() if use.output is not None and use.has_its_place}
    names = _distinct_call_ids(uses)
    told: list[ChatItem] = []
    for item in complete:
        if isinstance(item, FunctionCall) and item.id in uses:
            told.append(_of(item, names[item.id]))
            told += [] if uses[item.id].has_its_place else _output(uses[item.id], names)
        elif isinstance(item, FunctionCallOutput) and item.id in outputs:
            told += _output(outputs[item.id], names)
        elif not isinstance(item, FunctionCall | FunctionCallOutput):
            told.append(item)
    left_out = sum(isinstance(item, FunctionCallOutput) for item in items) + len(made_up)
    left_out -= sum(isinstance(item, FunctionCallOutput) for item in told)
    calls = tuple(item for item in ends if isinstance(item, FunctionCall))
    return Paired(told, left_out, calls, tuple(made_up))


def _uses(items: Sequence[ChatItem]) -> dict[str, _Use]:
    """Return the calls by their ids.

    An output belongs to the latest call with its call id before it. If there is none, it belongs to the next one.
    """
    real = {item.call_id for item in items if isinstance(item, FunctionCall) and not item.id.endswith(_MADE_UP_CALL)}
    uses: dict[str, _Use] = {}
    latest: dict[str, _Use] = {}
    early: dict[str, list[FunctionCallOutput]] = {}
    for item in items:
        if isinstance(item, FunctionCall):
            if item.id.endswith(_MADE_UP_CALL) and item.call_id in real:
                continue  # the tool of an agent that lost the conversation has ended after all
            uses[item.id] = latest[item.call_id] = _Use(item, before=early.pop(item.call_id, []))
        elif isinstance(item, FunctionCallOutput):
            use = latest.get(item.call_id)
            (early.setdefault(item.call_id, []) if use is None else use.behind).append(item)
    return uses


def _ends_of_dead_tools(items: Sequence[ChatItem], reports: Mapping[str, str]) -> Iterator[ChatItem]:
    """Yield a call and an output, as LiveKit writes a tool's end, for each tool that has reported but not ended.

    If the report's own call is not among the items, nothing is yielded for the tool.
    """
    calls = {item.call_id: item for item in items if isinstance(item, FunctionCall)}
    ended = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    at = max((item.created_at for item in items), default=0.0)
    for report in items:
        base = reports.get(report.id)
        if base is None or not isinstance(report, FunctionCallOutput) or base + FINAL in ended:
            continue
        ended.add(base + FINAL)
        call = calls.get(report.call_id)
        if call is not None:
            identity = base + FINAL + _MADE_UP_CALL
            end = FunctionCall(
                id=identity, call_id=base + FINAL, name=call.name, arguments=call.arguments, created_at=at
            )
            yield end
            # whether a reply to the output is expected; older versions of LiveKit lack the field
            wanted = {name: getattr(report, name) for name in ("reply_required",) if hasattr(report, name)}
            yield _interrupted(end, **wanted)


def _interrupted(call: FunctionCall, **fields: Any) -> FunctionCallOutput:
    return FunctionCallOutput(
        id=call.id + INTERRUPTED_SUFFIX,
        call_id=call.call_id,
        name=call.name,
        output=INTERRUPTED_OUTPUT,
        is_error=True,
        created_at=call.created_at,
        **fields,
    )


def _is_made_up(output: FunctionCallOutput) -> bool:
    return output.id.endswith(INTERRUPTED_SUFFIX)


def _distinct_call_ids(uses: Mapping[str, _Use]) -> dict[str, str]:
    """Return a distinct call id for each call's id. A number is added if an earlier call has the same call id."""
    taken = {use.call.call_id for use in uses.values()}
    given: set[str] = set()
    names: dict[str, str] = {}
    for identity, use in uses.items():
        name, number = use.call.call_id, 1
        while name in given or (number > 1 and name in taken):
            number += 1
            name = f"{use.call.call_id}_{number}"
        given.add(name)
        names[identity] = name
    return names


def _output(use: _Use, names: Mapping[str, str]) -> list[ChatItem]:
    return [] if use.output is None else [_of(use.output, names[use.call.id], name=use.output.name or use.call.name)]


def _of(item: FunctionCall | FunctionCallOutput, call_id: str, **fields: Any) -> ChatItem:
    """Return the item with this call id and these fields, or the item itself if it has them already."""
    changed = {name: value for name, value in {"call_id": call_id, **fields}.items() if getattr(item, name) != value}
    return item.model_copy(update=changed) if changed else item
