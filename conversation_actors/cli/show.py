"""A conversation as it is stored, printed for people or as JSON. Looking starts nothing and changes nothing."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from conversation_actors.activation.recovery import restate
from conversation_actors.client import Snapshot
from conversation_actors.client.views import snapshot_of
from conversation_actors.items import DataMessage, Item, Message
from conversation_actors.log_lines import harmless
from conversation_actors.settings import Settings
from conversation_actors.state import ConversationState
from conversation_actors.store import Stored, open_store
from conversation_actors.values import check_id

SHOWN_ITEMS = 40
"""Items printed for people; JSON has all."""
_ROLE_STYLES = {"user": "cyan", "assistant": "green", "system": "yellow", "developer": "yellow"}


async def run(conversation_id: str, *, as_json: bool) -> None:
    """Print the conversation. Raises what `ConversationClient.read` raises, but at once.

    This needs no Ray, and no right but to read.
    """
    conversation_id = check_id(conversation_id, "conversation_id")
    settings = Settings()
    settings.require_redis_url(shared_by="conversation-actors show")
    store = open_store(settings)
    try:
        stored = await store.read(conversation_id)
    finally:
        await store.aclose()
    state, _ = restate(stored, settings.history.limits())
    snapshot = snapshot_of(conversation_id, state, epoch=stored.epoch)
    facts = Facts.of(stored, state)
    if as_json:
        print(json.dumps(document(snapshot, facts), ensure_ascii=False))  # noqa: T201  # the interface
    else:
        tell(Console(highlight=False), snapshot, facts)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is stored of a conversation besides its content. It does not tell whether the owner runs now.

    `epoch` and `life` are those of the last activation. `active_at` is when the conversation was last written or
    activated, and `expires_at` when it will be forgotten unless it is used; both are in seconds since the epoch. The
    next owner would be rebuilt from the snapshot at `snapshot_seq` and the `journal_entries` after it. The rest is as
    in `ActivationInfo`.
    """

    conversation_id: str
    tenant: str
    life: str
    epoch: int
    seq: int
    active_at: float
    expires_at: float
    snapshot_seq: int
    journal_entries: int
    history_items: int
    history_bytes: int
    total_items: int
    talked_for: timedelta
    has_counted_all: bool

    @classmethod
    def of(cls, stored: Stored, state: ConversationState) -> Self:
        """Return the facts about what was read."""
        now = time.time()
        return cls(
            conversation_id=stored.conversation_id,
            tenant=stored.tenant,
            life=stored.life,
            epoch=stored.epoch,
            seq=stored.seq,
            active_at=stored.active_at,
            expires_at=now + stored.left.total_seconds(),
            snapshot_seq=stored.snapshot_seq,
            journal_entries=stored.seq - stored.snapshot_seq,
            history_items=len(state.window),
            history_bytes=state.window.size,
            total_items=max(state.total_items, len(state.window)),
            talked_for=timedelta(seconds=state.talked_until(max(now, state.changed_at))),
            has_counted_all=state.has_counted_all,
        )


def document(snapshot: Snapshot, facts: Facts) -> dict[str, Any]:
    """Return the conversation as JSON's types; field names are those of the API."""
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
        "activation": {**asdict(facts), "talked_for": facts.talked_for.total_seconds()},
    }


def tell(console: Console, snapshot: Snapshot, facts: Facts) -> None:
    """Print the conversation for people."""
    console.print(Text(snapshot.conversation_id, style="bold"))
    console.print(_facts(snapshot, facts))
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


def _facts(snapshot: Snapshot, facts: Facts) -> Group:
    rows = [
        ("position", f"seq {snapshot.seq}, epoch {snapshot.epoch}"),
        ("active", f"last at {_when(facts.active_at)}"),
        ("stored", f"a snapshot at seq {facts.snapshot_seq}, {facts.journal_entries} journal entries after it"),
        ("holds", f"{facts.history_items} items, {facts.history_bytes} bytes"),
    ]
    at_least = "" if facts.has_counted_all else "at least "
    talked_for = timedelta(seconds=round(facts.talked_for.total_seconds()))
    rows.append(("in all", f"{at_least}{facts.total_items} items, {talked_for} with somebody there"))
    retention = f", {snapshot.retention} after its last use" if snapshot.retention else ""
    rows.append(("kept", f"until {_when(facts.expires_at)}{retention}"))
    if snapshot.closing:
        rows.append(("closed", f"{_when(snapshot.closing.at)} {snapshot.closing.reason}"))
    if snapshot.summary:
        rows.append(("summary", f"through seq {snapshot.summary.through_seq}: {snapshot.summary.text}"))
    return _pairs(None, rows)


def _participants(snapshot: Snapshot) -> Group:
    rows = []
    for one in snapshot.participants.values():
        state = "connected" if one.connected else f"gone since {_when(one.last_seen)}"
        more = [f"{one.reconnect_count} reconnects" if one.reconnect_count else "", one.language or ""]
        tracks, metadata = _tracks(one.metadata)
        more += [tracks, *(_json(values) for values in (metadata, one.context) if values)]
        rows.append((Text(one.identity), Text(", ".join(filter(None, [one.name, state, *more])))))
    return _grid("Participants", rows)


def _tracks(metadata: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return which tracks somebody has open, in words, and the rest of the metadata."""
    tracks = metadata.get("tracks")
    if not isinstance(tracks, Mapping) or not all(isinstance(state, str) for state in tracks.values()):
        return "", metadata
    told = ", ".join(f"{source.replace('_', ' ')} {state}" for source, state in tracks.items())
    return told, {name: value for name, value in metadata.items() if name != "tracks"}


def _leases(snapshot: Snapshot) -> Group:
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
    """Return who said it, if that is known: several people may speak in one conversation."""
    participant = item.participant if isinstance(item, Message | DataMessage) else None
    if participant is None:
        return ""
    device = f" ({participant['device']})" if participant.get("device") else ""
    return f"{participant['identity']}{device}: "


def _sent(item: DataMessage) -> str:
    """Return the topic and what was sent: text as it is, and of anything else what it is and how large."""
    if item.text:
        told = ": ".join(filter(None, [item.name, item.text]))
    else:
        kept = "" if item.payload is not None else "not kept"
        told = ", ".join(filter(None, [item.name, item.mime_type, f"{item.size} bytes", kept]))
    return f"{item.topic}: {told}" + (" (interrupted)" if item.interrupted else "")


def _spoken(content: str | list[Any]) -> str:
    parts = [content] if isinstance(content, str) else content
    return " ".join(part if isinstance(part, str) else f"[{part.get('type', 'object')}]" for part in parts)


def _pairs(title: str | None, rows: Iterable[tuple[str, str]]) -> Group:
    return _grid(title, [(Text(name), Text(value)) for name, value in rows])


def _grid(
    title: str | None, rows: Iterable[tuple[Text, Text]], *, widths: tuple[int | None, int | None] = (None, None)
) -> Group:
    # no title of the table's own: it would be as narrow as the table
    heading = [] if title is None else [Text(f"\n{title}", style="bold")]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=widths[0])
    table.add_column(overflow="fold", min_width=widths[1])
    for row in rows:
        table.add_row(*(Text(harmless(text.plain), style=text.style) for text in row))
    return Group(*heading, table)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
