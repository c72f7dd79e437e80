"""A conversation, printed for people or as JSON."""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conversation_actors.activation import ActivationInfo
from conversation_actors.client import ConversationClient, Snapshot
from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.items import DataMessage, Item, Message
from conversation_actors.settings import Settings

_LISTENER_SECONDS = 3.0
SHOWN_ITEMS = 40
"""Items printed for people; JSON has all."""
_ROLE_STYLES = {"user": "cyan", "assistant": "green", "system": "yellow", "developer": "yellow"}


async def run(conversation_id: str, *, as_json: bool) -> None:
    """Print it. Raises `ConversationNotFoundError`, and whatever keeps its owner from answering."""
    # Ray complains in our name that it leaves our SIGTERM alone, which is what was asked of it.
    logging.getLogger("ray").setLevel(logging.ERROR)
    settings = Settings()
    await require_listener(settings.ray_address)
    async with ConversationClient(settings) as client:
        handle = await client.open(conversation_id, create=False)
        snapshot, info = await handle.snapshot(fresh=True), await handle.info()
    if as_json:
        print(json.dumps(document(snapshot, info), ensure_ascii=False))  # noqa: T201  # the interface
    else:
        tell(Console(highlight=False), snapshot, info)


async def require_listener(address: str | None) -> None:
    """Raise `ClusterUnavailableError` at once where nothing listens; Ray itself tries for minutes.

    Passes over what is no plain ``host:port``.
    """
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        async with asyncio.timeout(_LISTENER_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, OverflowError, TimeoutError):
        message = f"no Ray cluster listens at {address} (RAY_ADDRESS); start one with `conversation-actors dev`"
        raise ClusterUnavailableError(message) from None
    writer.close()


def document(snapshot: Snapshot, info: ActivationInfo) -> dict[str, Any]:
    """The conversation as JSON's types; field names are those of the API."""
    return {
        "conversation_id": snapshot.conversation_id,
        "seq": snapshot.seq,
        "epoch": snapshot.epoch,
        "items": [item.to_dict() for item in snapshot.items],
        "participants": {name: asdict(participant) for name, participant in snapshot.participants.items()},
        "attributes": dict(snapshot.attributes),
        "leases": {name: asdict(lease) for name, lease in snapshot.leases.items()},
        "summary": asdict(snapshot.summary) if snapshot.summary else None,
        "closing": asdict(snapshot.closing) if snapshot.closing else None,
        "retention": snapshot.retention.total_seconds() if snapshot.retention else None,
        "activation": {**asdict(info), "talked_for": info.talked_for.total_seconds()},
    }


def tell(console: Console, snapshot: Snapshot, info: ActivationInfo) -> None:
    """Print it for people."""
    console.print(Text(snapshot.conversation_id, style="bold"))
    console.print(_facts(snapshot, info))
    if snapshot.participants:
        console.print(_participants(snapshot))
    if snapshot.attributes:
        console.print(_pairs("Attributes", ((name, _json(value)) for name, value in snapshot.attributes.items())))
    if snapshot.leases:
        console.print(_leases(snapshot))
    shown = snapshot.items[-SHOWN_ITEMS:]
    title = f"History: {len(snapshot.items)} items"
    if len(shown) < len(snapshot.items):
        title += f", the last {len(shown)} of them (--json prints all)"
    console.print(_grid(title, [_line(item) for item in shown], widths=(10, None)))


def _facts(snapshot: Snapshot, info: ActivationInfo) -> Table:
    recovered = f"{info.replayed} journal entries on a snapshot at seq {info.recovered_from}"
    rows = [
        ("position", f"seq {snapshot.seq}, epoch {snapshot.epoch}"),
        (
            "owner",
            (
                f"{'forked ' if info.is_forked else ''}process {info.pid} on node {info.node_id[:12]}, "
                f"since {_when(info.activated_at)}"
            ),
        ),
        ("recovered", f"from {recovered}, in {info.recovery_seconds * 1000:.0f} ms"),
        ("holds", f"{info.history_items} items, {info.history_bytes} bytes"),
    ]
    at_least = "" if info.has_counted_all else "at least "
    talked_for = timedelta(seconds=round(info.talked_for.total_seconds()))
    rows.append(("in all", f"{at_least}{info.total_items} items, {talked_for} with somebody there"))
    if info.failures:
        survived = ", ".join(f"{task} {count}" for task, count in sorted(info.failures.items()))
        rows.append(("failures", f"{survived}, in the background; the owner's log tells of them"))
    if snapshot.retention:
        rows.append(("kept", f"for {snapshot.retention} after its last use"))
    if snapshot.closing:
        rows.append(("closed", f"{_when(snapshot.closing.at)} {snapshot.closing.reason}"))
    if snapshot.summary:
        rows.append(("summary", f"through seq {snapshot.summary.through_seq}: {snapshot.summary.text}"))
    return _pairs(None, rows)


def _participants(snapshot: Snapshot) -> Table:
    rows = []
    for one in snapshot.participants.values():
        state = "connected" if one.connected else f"gone since {_when(one.last_seen)}"
        more = [f"{one.reconnect_count} reconnects" if one.reconnect_count else "", one.language or ""]
        tracks, metadata = _tracks(one.metadata)
        more += [tracks, *(_json(values) for values in (metadata, one.context) if values)]
        rows.append((Text(one.identity), Text(", ".join(filter(None, [one.name, state, *more])))))
    return _grid("Participants", rows)


def _tracks(metadata: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What somebody has open, in words, and the rest of the metadata."""
    tracks = metadata.get("tracks")
    if not isinstance(tracks, Mapping) or not all(isinstance(state, str) for state in tracks.values()):
        return "", metadata
    told = ", ".join(f"{source.replace('_', ' ')} {state}" for source, state in tracks.items())
    return told, {name: value for name, value in metadata.items() if name != "tracks"}


def _leases(snapshot: Snapshot) -> Table:
    now = time.time()
    rows = []
    for name, lease in snapshot.leases.items():
        left = lease.expires_at - now
        until = f"for {left:.0f} s more" if left > 0 else "expired"
        rows.append((name, f"{lease.holder}, {until}"))
    return _pairs("Leases", rows)


def _line(item: Item) -> tuple[Text, Text]:
    fields = item.to_dict()
    match item.type:
        case "message":
            role = str(fields["role"])
            text = _author(item) + _spoken(fields["content"]) + (" (interrupted)" if fields.get("interrupted") else "")
            return Text(role, style=_ROLE_STYLES.get(role, "")), Text(text)
        case "function_call":
            return Text("tool call", style="magenta"), Text(f"{fields['name']} {fields['arguments']}")
        case "function_call_output":
            style = "red" if fields.get("is_error") else "magenta"
            return Text("  output", style=style), Text(str(fields["output"]))
        case "agent_handoff":
            return Text("agent", style="dim"), Text(f"now {fields['new_agent_id']}", style="dim")
        case "data_message" if isinstance(item, DataMessage):
            return Text("data", style="blue"), Text(_author(item) + _sent(item))
    rest = {name: value for name, value in fields.items() if name not in {"type", "id", "created_at"}}
    return Text(item.type, style="dim"), Text(_json(rest))


def _author(item: Item) -> str:
    """Who said it, where that is known: several people may speak in one conversation."""
    participant = item.participant if isinstance(item, Message | DataMessage) else None
    if participant is None:
        return ""
    device = f" ({participant['device']})" if participant.get("device") else ""
    return f"{participant['identity']}{device}: "


def _sent(item: DataMessage) -> str:
    """What was sent by which topic: text as it is, of anything else what it is and how large."""
    if item.text:
        told = ": ".join(filter(None, [item.name, item.text]))
    else:
        kept = "" if item.payload is not None else "not kept"
        told = ", ".join(filter(None, [item.name, item.mime_type, f"{item.size} bytes", kept]))
    return f"{item.topic}: {told}" + (" (interrupted)" if item.interrupted else "")


def _spoken(content: str | list[Any]) -> str:
    parts = [content] if isinstance(content, str) else content
    return " ".join(part if isinstance(part, str) else f"[{part.get('type', 'object')}]" for part in parts)


def _pairs(title: str | None, rows: Iterable[tuple[str, str]]) -> Table:
    return _grid(title, [(Text(name), Text(value)) for name, value in rows])


def _grid(
    title: str | None, rows: Iterable[tuple[Text, Text]], *, widths: tuple[int | None, int | None] = (None, None)
) -> Table:
    heading = None if title is None else Text(f"\n{title}", style="bold not italic")
    table = Table(title=heading, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=widths[0])
    table.add_column(overflow="fold", min_width=widths[1])
    for name, value in rows:
        table.add_row(name, value)
    return table


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
