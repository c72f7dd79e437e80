"""Where a conversation's owner runs, and what its owners have logged, for people or as JSON."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from conversation_actors.log_lines import as_text, harmless
from conversation_actors.runtime import Whereabouts, find_whereabouts
from conversation_actors.runtime.titles import title_of
from conversation_actors.settings import Settings
from conversation_actors.values import check_id

_NODE = 12
"""Number of letters of a node's id that tell it from others."""


async def run(conversation_id: str, *, most_lines: int, as_json: bool) -> int:
    """Print where a conversation's owner runs, and its log. Returns the exit code: 1 if nobody has heard of it.

    Raises `ClusterUnavailableError`.
    """
    conversation_id = check_id(conversation_id, "conversation_id")
    settings = Settings()
    settings.refuse_memory("conversation-actors where")
    found = await find_whereabouts(conversation_id, settings, most_lines=most_lines)
    print(document(found) if as_json else told(found))  # noqa: T201  # the interface
    return 0 if found.owner or found.trouble or found.lines else 1


def document(found: Whereabouts) -> str:
    """Return what was found, as JSON."""
    owner = None
    if found.owner is not None:
        owner = {name: getattr(found.owner, name) for name in ("pid", "node_id", "epoch", "activated_at")}
    return json.dumps({**asdict(found), "owner": owner}, ensure_ascii=False)


def told(found: Whereabouts) -> str:
    """Return what was found, for people, with a line for each fact."""
    lines = [found.name, *_owner(found)]
    lines += [f"node   {node[:_NODE]} does not answer: its log is not among these lines" for node in found.silent_nodes]
    lines.append("log    " + ("these lines of its owners:" if found.lines else "no line is about it"))
    for line in found.lines:
        rest = {name: value for name, value in line.items() if name not in {"conversation", "node"}}
        lines.append(as_text({**rest, "node": str(line["node"])[:_NODE]}))
    return harmless("\n".join(lines))


def _owner(found: Whereabouts) -> list[str]:
    if found.owner is None:
        return [f"owner  says nothing ({found.trouble})" if found.trouble else "owner  none runs"]
    info = found.owner
    since = datetime.fromtimestamp(info.activated_at, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    return [
        f"owner  process {info.pid} on node {info.node_id[:_NODE]}, epoch {info.epoch}, since {since}",
        f"title  {title_of(found.name, info.epoch)}",
    ]
