"""What `conversation-actors export --format chat-context` writes, read by LiveKit's own class."""

import asyncio
import json
from typing import Any

from livekit.agents.llm import AgentHandoff as LiveKitHandoff
from livekit.agents.llm import ChatContext, ChatMessage, ImageContent

from conversation_actors.archive.rows import ITEM, Row
from conversation_actors.items import (
    AgentHandoff,
    DataMessage,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OtherItem,
)
from conversation_actors.transfer.chat_context import ChatContextForm
from tests.support.archived_rows import item_row, rows_of, stream

PIXEL = "data:image/png;base64,iVBORw0KGgo="
ITEMS: tuple[Item, ...] = (
    Message(id="s", role="system", content="Be kind.", created_at=1.0),
    Message(id="d", role="developer", content="And brief.", created_at=1.0),
    Message(
        id="u",
        role="user",
        content=["Look", {"type": "image_content", "id": "i", "image": PIXEL, "inference_detail": "low"}],
        created_at=2.0,
        extra={"participant": {"identity": "anna", "device": None}},
        interrupted=True,
    ),
    FunctionCall(id="c", call_id="1", name="f", arguments="{}", group_id="g", created_at=3.0),
    FunctionCallOutput(id="o", call_id="1", name="f", output="ok", created_at=4.0),
    FunctionCallOutput(id="e", call_id="2", output="no", is_error=True, created_at=4.0),
    AgentHandoff(id="h", old_agent_id=None, new_agent_id="clerk", created_at=5.0),
    Message(id="r/1", role="assistant", content="One.", created_at=6.0),
    Message(id="r/2", role="assistant", content="Two.", created_at=7.0),
)


def read_back(rows: list[Row]) -> ChatContext:
    """Return what LiveKit reads of an export of these rows."""

    async def collect() -> bytes:
        return b"".join([piece async for piece in ChatContextForm().write(stream(rows))])

    return ChatContext.from_dict(json.loads(asyncio.run(collect())))


def test_livekit_reads_every_kind_of_item() -> None:
    """In order, with ids and times; what LiveKit would write of it is what was said."""
    items = read_back(rows_of(*ITEMS)).items
    assert [item.id for item in items] == ["s", "d", "u", "c", "o", "e", "h", "r/1", "r_2"]
    assert [item.created_at for item in items] == [item.created_at for item in ITEMS]
    seen = items[2]
    assert isinstance(seen, ChatMessage)
    assert seen.text_content == "Look"
    assert seen.interrupted
    picture = next(part for part in seen.content if isinstance(part, ImageContent))
    assert (picture.image, picture.inference_detail, picture.id) == (PIXEL, "low", "i")
    assert isinstance(items[6], LiveKitHandoff)


def test_nothing_that_anybody_stores_makes_livekit_refuse_the_rest() -> None:
    """Whatever is in the archive beside what LiveKit knows."""
    strange: list[dict[str, Any]] = [
        {"type": "message", "id": "1", "role": "robot", "content": ["x"]},
        {"type": "message", "id": "2", "role": "user", "content": [7]},
        {"type": "message", "id": "3", "role": "user", "content": [{"type": "image_content", "image": {"url": 1}}]},
        {
            "type": "message",
            "id": "4",
            "role": "user",
            "content": [{"type": "audio_content", "frame": 1, "transcript": "said"}],
        },
        {
            "type": "message",
            "id": "5",
            "role": "user",
            "content": [{"type": "image_content", "image": "x", "mime_type": 1}],
        },
        {
            "type": "message",
            "id": "6",
            "role": "user",
            "content": "x",
            "metrics": 7,
            "hash": 1,
            "transcript_confidence": "x",
        },
        {"type": "message", "id": "7", "role": "user", "content": None},
        {"type": "function_call", "id": "8", "call_id": "", "name": "f", "arguments": "{}"},
        {"type": "function_call", "id": "9", "call_id": "9", "name": "f", "arguments": {}},
        {"type": "function_call_output", "id": "10", "call_id": "9", "output": "x", "is_error": "no"},
        {"type": "agent_handoff", "id": "11"},
        {"type": "agent_config_update", "id": "12", "instructions": 7},
        {"type": "vote", "id": "13"},
    ]
    rows = rows_of(
        Message(id="first", role="user", content="Hello"),
        DataMessage(topic="t", kind="packet", size=0),
        OtherItem.model_validate({"type": "vote", "id": "v", "created_at": 1.0}),
    )
    values = item_row(1, Message(role="user", content="x")).values
    rows += [Row(ITEM, {**values, "data": json.dumps(fields).encode()}) for fields in strange]
    rows.append(item_row(2, Message(id="last", role="assistant", content="Bye")))
    read = read_back(rows)
    assert [item.id for item in read.items] == ["first", "3", "4", "5", "6", "last"]
    assert [item.text_content or "" for item in read.items if isinstance(item, ChatMessage)] == [
        "Hello",
        "",
        "said",
        "",
        "x",
        "Bye",
    ]
