"""Histories for people and for LiveKit, from an archive's rows."""

import asyncio
import json
from typing import Any

from conversation_actors.archive.rows import GAP, ITEM, LIFE, Row
from conversation_actors.items import AgentHandoff, DataMessage, FunctionCall, FunctionCallOutput, Message, OtherItem
from conversation_actors.transfer.chat_context import ChatContextForm
from conversation_actors.transfer.exporting import Form
from conversation_actors.transfer.markdown import MarkdownForm
from tests.support.archived_rows import item_row, rows_of, stream


def written(form: Form, rows: list[Row]) -> str:
    """Return what a form makes of rows."""

    async def collect() -> bytes:
        return b"".join([piece async for piece in form.write(stream(rows))])

    return asyncio.run(collect()).decode()


def test_a_chat_context_has_what_livekit_has_words_for() -> None:
    """Messages, calls, outputs and handoffs, in their order; the rest is counted."""
    form = ChatContextForm()
    said = Message(id="m", role="user", content=["Look", {"type": "vote"}], created_at=1.0, extra={"a": 1})
    sent = DataMessage(topic="t", kind="packet", size=1, text="x")
    other = OtherItem.model_validate({"type": "agent_config_update", "id": "c", "created_at": 1.0})
    items: list[dict[str, Any]] = json.loads(
        written(form, rows_of(said, FunctionCall(call_id="c", name="f", arguments="{}"), sent, other))
    )["items"]
    assert [item["type"] for item in items] == ["message", "function_call"]
    assert items[0] == {
        "id": "m",
        "type": "message",
        "role": "user",
        "interrupted": False,
        "extra": {"a": 1},
        "created_at": 1.0,
        "content": ["Look"],
    }
    assert form.left_out == 3
    assert json.loads(written(ChatContextForm(), [])) == {"items": []}


def test_an_item_that_cannot_be_read_costs_no_other() -> None:
    """LiveKit would refuse the whole history for it."""
    form = ChatContextForm()
    broken = Row(
        ITEM, {**item_row(1, Message(role="user", content="x")).values, "data": b'{"type":"message","id":"b"}'}
    )
    told = json.loads(written(form, [broken, *rows_of(Message(role="user", content="Hello"))]))
    assert [item["content"] for item in told["items"]] == [["Hello"]]
    assert form.left_out == 1


def test_markdown_says_who_said_what_and_what_is_missing() -> None:
    """All that is known, in the order in which it came; times are the world's."""
    rows = rows_of(
        Message(role="user", content="Where is it?", created_at=0.0, extra={"participant": {"identity": "anna"}}),
        FunctionCall(call_id="c", name="look_up", arguments='{"a": 1}', created_at=1.0),
        FunctionCallOutput(call_id="c", name="look_up", output="here", created_at=2.0),
        AgentHandoff(old_agent_id="a", new_agent_id="b", created_at=3.0),
        Message(
            role="assistant", content=["On its\nway", {"type": "image_content", "image": "data:image/jpeg;base64,AA"}]
        ),
        DataMessage(topic="files", kind="byte_stream", size=9, name="a.pdf", created_at=4.0),
    )
    rows.insert(1, Row(GAP, {"from_seq": 3, "to_seq": 4, "reason": "given up", "noted_at": 1.0}))
    told = written(MarkdownForm("support_42"), rows)
    assert told.startswith("# support\\_42\n\n## 1970-01-01 00:01:40 UTC to 1970-01-01 00:01:42 UTC\n")
    assert "\n**user · anna** · 1970-01-01 00:00:00 UTC\n\n> Where is it?\n" in told
    assert "*Missing: entries 3 to 4 (given up).*" in told
    assert '**tool call** `look\\_up` · 1970-01-01 00:00:01 UTC\n\n> {"a": 1}\n' in told
    assert "> On its\n> way\n> [image_content]\n" in told
    assert "*Agent: a → b*" in told
    assert "(a.pdf, 9 bytes)" in told


def test_words_become_no_structure() -> None:
    """What people say stays in its quotation, and moves no terminal; an unreadable item is named."""
    rows = rows_of(Message(role="user", content="# Title\n\n---\r\n<b>\x1b[2J"))
    rows.append(Row(ITEM, {**rows[-1].values, "data": b"\xff"}))
    told = written(MarkdownForm("# <x>"), rows)
    life = next(index for index, line in enumerate(told.splitlines()) if line.startswith("Life"))
    for line in told.splitlines()[life + 1 :]:
        assert not line or line.startswith(("> ", ">", "**user**", "*An item that cannot be read.*")), line
    assert "\x1b" not in told
    assert LIFE == "life"
