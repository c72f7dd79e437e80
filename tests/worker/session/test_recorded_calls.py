"""Calls that other versions of livekit-agents recorded, restored under the one that is installed."""

import json
from pathlib import Path
from typing import Any

import pytest
from livekit.agents.llm import ChatContext

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.transcript import Transcript
from agent_worker.session.restoration import restore
from agent_worker.session.serialise import to_fields
from conversation_actors.items import item_from_dict
from tests.support.recorded_call import recorded
from tests.support.sessions.fake_conversation import FakeConversation
from tests.worker.conftest import SessionFactory

CALLS = sorted((Path(__file__).parents[2] / "data" / "calls").glob("livekit-*.json"))
OWN_TO_EACH_CALL = ("id", "call_id", "group_id", "created_at", "metrics", "extra", "arguments")
"""Fields with ids and times of their own, or whose spaces are the vendor's."""


def load_call(path: Path) -> list[dict[str, Any]]:
    """Return the items as they are stored."""
    items: list[dict[str, Any]] = json.loads(path.read_text())["items"]
    return items


def as_conversation(items: list[dict[str, Any]]) -> FakeConversation:
    """Return a conversation that has them."""
    conversation = FakeConversation()
    for item in items:
        conversation.record(item_from_dict(item))
    return conversation


def essence(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item without what differs from call to call."""
    return {name: value for name, value in item.items() if name not in OWN_TO_EACH_CALL}


def test_there_are_calls_of_the_oldest_and_of_the_newest_version() -> None:
    """Two directions: the old one's under the new, and the new one's under the old."""
    assert [path.stem for path in CALLS] == ["livekit-1.6.5", "livekit-1.8.9"]


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.stem)
async def test_a_call_of_another_version_comes_back(
    path: Path, transcript: Transcript, server: OfflineServer, new_session: SessionFactory
) -> None:
    """Item by item, in the session's history, but for fields that this version does not know; all is heard."""
    items = load_call(path)
    session, agent = await new_session(server), SupportAgent()
    restored = await restore(session, agent, as_conversation(items))
    assert (restored.unreadable, restored.left_out, restored.interrupted_calls) == (0, 0, ())
    back = {item.id: item for item in session.history.items}
    in_order = sorted(items, key=lambda item: float(item["created_at"]))
    assert list(back) == [item["id"] for item in in_order]
    for item in in_order:
        fields, known = to_fields(back[item["id"]]), set(type(back[item["id"]]).model_fields) - {"metrics"}
        assert fields.pop("metrics", {}).items() <= item.get("metrics", {}).items()
        assert {name: fields.get(name) for name in item if name in known} == {
            name: value for name, value in item.items() if name in known
        }
    spoken = _spoken(agent.chat_ctx)
    assert [text for text in spoken if text in {turn.user for turn in transcript.turns}] == [
        turn.user for turn in transcript.turns
    ]
    assert {turn.reply for turn in transcript.turns} <= set(spoken)


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.stem)
async def test_a_call_of_another_version_goes_on(
    path: Path, transcript: Transcript, server: OfflineServer, new_session: SessionFactory
) -> None:
    """Killed before its last turn there, it gives here the answer that it would have given."""
    items = load_call(path)
    last = max(number for number, item in enumerate(items) if item.get("role") == "user")
    session, agent = await new_session(server), SupportAgent()
    await attach(session, agent, as_conversation(items[:last]))
    await session.start(agent, record=False)
    await session.run(user_input=transcript.turns[-1].user)
    assert _spoken(session.history)[-1] == transcript.turns[-1].reply


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.stem)
async def test_this_version_records_the_same(path: Path) -> None:
    """The same kinds of items with the same words, in the same order: what is stored does not depend on the version."""
    now, then = [essence(item) for item in (await recorded())["items"]], [essence(item) for item in load_call(path)]
    assert [(item["type"], item.get("role"), _words(item)) for item in now] == [
        (item["type"], item.get("role"), _words(item)) for item in then
    ]


def _words(item: dict[str, Any]) -> object:
    return item.get("content") or item.get("output") or item.get("name")


def _spoken(context: ChatContext) -> list[str]:
    return [message.text_content or "" for message in context.messages() if message.role in {"user", "assistant"}]
