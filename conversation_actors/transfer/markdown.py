"""A history to be read by people, as Markdown. What was said is quoted, so that no words of it become structure."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

from conversation_actors.archive.rows import GAP, ITEM, LIFE, Row
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import (
    AgentHandoff,
    DataMessage,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OtherItem,
    item_from_dict,
)
from conversation_actors.log_lines import harmless
from conversation_actors.values import decode


class MarkdownForm:
    """Writes all lives of a conversation, the oldest first, with what is missing where that is known."""

    suffix = ".md"
    kinds = frozenset({LIFE, GAP, ITEM})
    only_latest = False
    left_out = 0
    """Nothing is: what cannot be shown is named."""

    def __init__(self, conversation_id: str) -> None:
        """Take the title."""
        self._title = conversation_id

    async def write(self, rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
        """Yield the text piece by piece."""
        yield f"# {_plain(self._title)}\n".encode()
        async for row in rows:
            if row.kind == LIFE:
                yield _life(row).encode()
            elif row.kind == GAP:
                yield _gap(row).encode()
            elif row.kind == ITEM:
                yield "".join(_lines(_item(row.values["data"]))).encode()


def _life(row: Row) -> str:
    first, last = _when(row.values["created_at"]), _when(row.values["active_at"])
    place = f"entries {row.values['start'] + 1} to {row.values['seq']}"
    return f"\n## {first} to {last}\n\nLife `{_plain(row.values['life'])}`, {place}.\n"


def _gap(row: Row) -> str:
    through = row.values["to_seq"]
    until = f"to {through}" if through is not None else "on, nobody knows how far"
    return f"\n*Missing: entries {row.values['from_seq']} {until} ({_plain(row.values['reason'])}).*\n"


def _item(data: bytes) -> Item | None:
    try:
        fields = decode(data)
    except ValueError:
        return None
    try:
        return item_from_dict(fields)
    except InvalidInputError:
        return OtherItem.model_construct(**fields) if isinstance(fields, dict) else None


def _lines(item: Item | None) -> Iterator[str]:
    if item is None:
        yield "\n*An item that cannot be read.*\n"
        return
    created_at = getattr(item, "created_at", None)
    at = f" · {_when(created_at)}" if isinstance(created_at, int | float) else ""
    match item:
        case Message():
            spoken = (item.participant or {}).get("identity")
            who = item.role if spoken is None else f"{item.role} · {spoken}"
            yield f"\n**{_plain(who)}**{at}{' · interrupted' if item.interrupted else ''}\n\n"
            yield _quoted(_words(item))
        case FunctionCall():
            yield f"\n**tool call** `{_plain(item.name)}`{at}\n\n"
            yield _quoted(item.arguments)
        case FunctionCallOutput():
            yield f"\n**tool {'error' if item.is_error else 'output'}** `{_plain(item.name or item.call_id)}`{at}\n\n"
            yield _quoted(item.output)
        case AgentHandoff():
            yield f"\n*Agent: {_plain(item.text)}*{at}\n"
        case DataMessage():
            sender = (item.participant or {}).get("identity") or "server"
            what = ", ".join(filter(None, [item.name, item.mime_type, f"{item.size} bytes"]))
            yield f"\n**data · {_plain(sender)}** `{_plain(item.topic)}` ({_plain(what)}){at}\n\n"
            yield _quoted(item.text) if item.text else ""
        case _:
            yield f"\n**{_plain(item.type)}**{at}\n\n"
            yield _quoted(item.text)


def _words(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part if isinstance(part, str) else _named(part) for part in message.content)


def _named(part: dict[str, Any]) -> str:
    """Name a part that is no text; a picture by its address, unless it is the picture itself."""
    image = part.get("image")
    is_address = isinstance(image, str) and image.startswith(("https://", "http://"))
    return f"[{part.get('type', 'object')}{f': {image}' if is_address else ''}]"


def _quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in harmless(text).splitlines()) or ">\n"


def _plain(text: str) -> str:
    """Return text for one line, in which nothing but letters means anything."""
    one_line = " ".join(harmless(text).split())
    return "".join(f"\\{one}" if one in "\\`*_[]<>#" else one for one in one_line)


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
