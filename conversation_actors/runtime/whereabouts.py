"""From a conversation's id to its process, and to the log lines of all its owners, wherever in the cluster they ran."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from conversation_actors.errors import ConversationError
from conversation_actors.protocol import PROTOCOL, ActivationInfo
from conversation_actors.runtime.cluster import NAMESPACE, actor_name, connect
from conversation_actors.runtime.owner_log import FILE, KEPT, log_directory
from conversation_actors.runtime.threads import in_thread
from conversation_actors.runtime.titles import shown_name
from conversation_actors.settings import Settings

_PATIENCE_SECONDS = 5.0
"""How long the owner, and each node, may take: a worker process that has to be started first takes up to two."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a conversation is, and has been."""

    name: str
    """What it is called in titles and log lines: its id, or a hash of it."""
    owner: ActivationInfo | None
    """What its owner says of itself; None where none runs, or it says nothing."""
    trouble: str
    """Why an owner that runs says nothing; empty where there is no such thing."""
    lines: tuple[Mapping[str, Any], ...]
    """The newest log lines of its owners, the oldest first; each has ``node``, an id of Ray's."""
    silent_nodes: tuple[str, ...]
    """Nodes whose log could not be read in time."""


async def find_whereabouts(conversation_id: str, settings: Settings, *, most_lines: int) -> Whereabouts:
    """Look, and change nothing: no owner is started, none is used. Raises `ClusterUnavailableError`."""
    await connect(settings)
    name = shown_name(conversation_id, settings)
    (owner, trouble), (lines, silent) = await asyncio.gather(
        _owner(conversation_id, settings), _lines(name, most_lines)
    )
    return Whereabouts(name, owner, trouble, lines, silent)


async def _owner(conversation_id: str, settings: Settings) -> tuple[ActivationInfo | None, str]:
    """What the owner that runs says of itself, or why it does not; neither where there is none."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            actor = await in_thread(ray.get_actor, actor_name(conversation_id, settings), NAMESPACE)
            answer = await actor.info.remote(protocol=PROTOCOL)
    except ValueError:
        return None, ""
    except TimeoutError:
        return None, f"no answer in {_PATIENCE_SECONDS:g} s"
    except RayError as error:
        return None, type(error).__name__
    return (None, str(answer)) if isinstance(answer, ConversationError) else (answer, "")


async def _lines(name: str, most: int) -> tuple[tuple[Mapping[str, Any], ...], tuple[str, ...]]:
    """The newest lines about one conversation from all nodes that live, and the nodes that did not answer."""
    read = ray.remote(num_cpus=0, max_retries=0)(lines_of_node)
    nodes = [node["NodeID"] for node in await in_thread(ray.nodes) if node["Alive"]]
    reading = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        reference = read.options(scheduling_strategy=here).remote(name, most)
        reading[node] = asyncio.wrap_future(reference.future())
    await asyncio.wait(reading.values(), timeout=_PATIENCE_SECONDS)
    found: list[dict[str, Any]] = []
    silent = []
    for node, answer in reading.items():
        if answer.done() and answer.exception() is None:
            found.extend({**line, "node": node} for line in answer.result())
        else:
            answer.cancel()
            silent.append(node)
    found.sort(key=lambda line: str(line.get("time")))
    return tuple(found[-most:]), tuple(silent)


def lines_of_node(name: str, most: int) -> list[dict[str, Any]]:
    """Return the newest lines about one conversation in the log of the owners of this process's node."""
    directory = log_directory()
    return [] if directory is None else [json.loads(line) for line in deque(_about(directory / FILE, name), most)]


def _about(path: Path, name: str) -> Iterator[str]:
    """The lines about a conversation, the oldest first."""
    marked = f'"conversation": {json.dumps(name, ensure_ascii=False)},'
    older = [path.with_name(f"{path.name}.{number}") for number in range(KEPT, 0, -1)]
    for one in [*older, path]:
        with suppress(FileNotFoundError), one.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if marked in line and line.endswith("}\n"))
