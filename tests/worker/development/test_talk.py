"""The talking process: holds the call, is killed anywhere, and goes on without a word twice."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import APIError

from agent_worker.development.talk import Report, TalkOptions, talk, watch
from agent_worker.offline import OfflineServer
from agent_worker.offline.refusals import RequestRefusedError
from agent_worker.offline.script import ChatRequest, Reply
from agent_worker.offline.transcript import Transcript
from agent_worker.settings import LanguageModelSettings
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import Item
from tests.support.sessions.fake_conversation import FakeConversation, FakeEntry, FunctionScript
from tests.worker.conftest import SessionFactory

Lines = list[dict[str, Any]]
Talker = Callable[..., Any]


@pytest.fixture
def hold(server: OfflineServer, new_session: SessionFactory, transcript: Transcript) -> Talker:
    """Run `talk` on a conversation, and give back the lines it printed."""

    async def run(conversation: FakeConversation, on: OfflineServer = server, **options: Any) -> Lines:
        out = io.StringIO()
        await talk(conversation, await new_session(on), transcript, TalkOptions(**options), Report(out))
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return run


def _texts(items: tuple[Item, ...], role: str) -> list[str]:
    said = [item.to_dict() for item in items if item.type == "message"]
    return ["".join(message["content"]) for message in said if message["role"] == role]


def _assert_whole(conversation: FakeConversation, transcript: Transcript) -> None:
    """Every turn was said once and answered once, every tool was called once."""
    assert _texts(conversation.items, "user") == [turn.user for turn in transcript.turns]
    answers = _texts(conversation.items, "assistant")
    for turn in transcript.turns:
        assert answers.count(turn.reply) == 1
    calls = [item for item in conversation.items if item.type == "function_call"]
    outputs = [item for item in conversation.items if item.type == "function_call_output"]
    assert len(calls) == len(outputs) == sum(len(step.calls) for turn in transcript.turns for step in turn.steps)


async def test_the_whole_call_is_told_line_by_line(hold: Talker, transcript: Transcript) -> None:
    """Start, words, tools, acknowledgements with ids, finish: each a line with its time."""
    conversation = FakeConversation()
    lines = await hold(conversation)
    _assert_whole(conversation, transcript)
    assert [line["event"] for line in lines[:4]] == ["started", "handoff", "user", "assistant"]
    acknowledged = [line for line in lines if line["event"] == "acknowledged"]
    assert [line["turn"] for line in acknowledged] == list(range(len(transcript.turns)))
    ids = [identity for line in acknowledged for identity in line["ids"]]
    assert sorted(ids) == sorted(item.id for item in conversation.items)
    assert lines[-1]["event"] == "finished"
    assert lines[-1]["items"] == len(conversation.items)
    assert sum(line["event"] == "tool_call" for line in lines) == 12
    assert all(isinstance(line["at"], float) for line in lines)


async def test_a_second_process_goes_on_after_the_last_answer(
    hold: Talker, server: OfflineServer, transcript: Transcript
) -> None:
    """After nine turns a new process speaks the tenth; the model is asked once for each turn and tool round."""
    conversation = FakeConversation()
    await hold(conversation, turns=9)
    lines = await hold(conversation)
    assert next(line for line in lines if line["event"] == "user")["text"] == transcript.turns[9].user
    assert lines[0]["messages"] == 20
    _assert_whole(conversation, transcript)
    assert server.accepted == len(transcript.turns) + sum(len(turn.steps) for turn in transcript.turns)


async def test_a_turn_without_answer_is_continued(hold: Talker, server: OfflineServer, transcript: Transcript) -> None:
    """Killed anywhere in a turn with a tool: its words are not said again, and what was done is not done again."""
    whole = FakeConversation()
    await hold(whole, turns=3)
    cuts = [len(whole.items) - left for left in range(4)]
    kinds = []
    for cut in cuts:
        conversation = FakeConversation()
        for item in whole.items[:cut]:
            conversation.record(item)
        kinds.append(conversation.items[-1].type)
        lines = await hold(conversation)
        assert _texts(conversation.items, "user") == [turn.user for turn in transcript.turns]
        continuing = [line["turn"] for line in lines if line["event"] == "continuing"]
        assert continuing == ([] if cut == len(whole.items) else [2])
        wrong = [text for text in _texts(conversation.items, "assistant") if "lost the thread" in text]
        assert not wrong
        if kinds[-1] != "function_call":
            _assert_whole(conversation, transcript)
    assert kinds == ["message", "function_call_output", "function_call", "message"]


async def test_an_interrupted_call_is_said_and_not_repeated(hold: Talker, transcript: Transcript) -> None:
    """Killed while a delivery was being moved: the new agent says that it does not know, and does not move it again."""
    whole, conversation = FakeConversation(), FakeConversation()
    await hold(whole, turns=7)
    last_call = max(index for index, item in enumerate(whole.items) if item.type == "function_call")
    for item in whole.items[: last_call + 1]:
        conversation.record(item)
    lines = await hold(conversation)
    assert lines[0]["interrupted_calls"] == 1
    answer = next(line for line in lines if line["event"] == "assistant")
    assert "don't know whether it went through" in answer["text"]
    names = [item.to_dict()["name"] for item in conversation.items if item.type == "function_call"]
    assert names.count("reschedule_delivery") == 3
    assert _texts(conversation.items, "assistant")[-1] == transcript.turns[-1].reply


async def test_nothing_is_said_when_all_was_said(hold: Talker, server: OfflineServer) -> None:
    """A finished call stays as it is."""
    conversation = FakeConversation()
    await hold(conversation)
    asked, said = server.accepted, _texts(conversation.items, "user")
    lines = await hold(conversation)
    assert server.accepted == asked
    assert _texts(conversation.items, "user") == said
    assert lines[-1]["turns"] == 0


async def test_the_last_turn_is_continued_too(hold: Talker, transcript: Transcript) -> None:
    """Also the goodbye gets its answer."""
    whole, conversation = FakeConversation(), FakeConversation()
    await hold(whole)
    for item in whole.items[:-1]:
        conversation.record(item)
    await hold(conversation, turns=1)
    _assert_whole(conversation, transcript)


async def test_a_turn_can_be_chosen(hold: Talker, transcript: Transcript) -> None:
    """`first_turn` goes before what the history says."""
    conversation = FakeConversation()
    await hold(conversation, first_turn=4, turns=2)
    assert _texts(conversation.items, "user") == [turn.user for turn in transcript.turns[4:6]]


async def test_the_call_goes_on_while_the_store_is_away(hold: Talker) -> None:
    """What is not acknowledged is said to be pending, and is acknowledged with a later turn."""
    conversation = FakeConversation()
    conversation.store_is_away = True
    lines = await hold(conversation, turns=2)
    waiting = [line for line in lines if line["event"] == "not_acknowledged"]
    assert [line["pending"] for line in waiting] == [3, 7 + 1]
    assert waiting[0]["reason"] == "Redis does not answer"


async def test_a_refusing_model_ends_the_talk(new_session: SessionFactory, transcript: Transcript) -> None:
    """LiveKit's error is raised; the user's words are recorded, so the next process continues the turn."""

    def decide(_: ChatRequest) -> Reply:
        raise RequestRefusedError(400, "no")

    conversation = FakeConversation()
    async with OfflineServer(FunctionScript(decide)) as broken:
        session = await new_session(broken)
        with pytest.raises(APIError):
            await talk(conversation, session, transcript, TalkOptions(), Report(io.StringIO()))
    assert _texts(conversation.items, "user") == [transcript.turns[0].user]


async def test_a_watcher_prints_items_as_they_come(transcript: Transcript) -> None:
    """Each new or changed item once, with the position it came at."""
    conversation = FakeConversation()
    conversation.record(Item(type="note", id="old"))

    out = io.StringIO()

    async def entries(*, after_seq: int) -> Any:
        for identity in ("a", "b"):
            conversation.record(Item(type="note", id=identity))
            after_seq += 1
            yield FakeEntry(after_seq)

    conversation.watch = entries  # type: ignore[method-assign]  # it grows while it is watched
    await watch(conversation, Report(out))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line.get("seq"), line.get("item", {}).get("id")) for line in lines] == [
        ("watching", 1, None),
        ("item", 2, "a"),
        ("item", 3, "b"),
    ]


def test_a_missing_key_is_one_clear_sentence() -> None:
    """Only a server on this machine needs none."""
    with pytest.raises(InvalidInputError, match="set OPENAI_API_KEY"):
        LanguageModelSettings(base_url="https://api.openai.com/v1", api_key=None).require_key()
    for url in ("http://127.0.0.1:9/v1", "http://localhost:9/v1", "http://[::1]:9/v1"):
        assert LanguageModelSettings(base_url=url, api_key=None).require_key() == "offline"


async def test_a_greeting_is_said_first_and_acknowledged(hold: Talker, transcript: Transcript) -> None:
    """It is an item like all others, before the turns; also where no turn is left."""
    conversation = FakeConversation()
    lines = await hold(conversation, greeting="Welcome back.", turns=1)
    assert _texts(conversation.items, "assistant")[0] == "Welcome back."
    assert _texts(conversation.items, "user") == [transcript.turns[0].user]
    greeting = next(line for line in lines if line["event"] == "assistant")
    acknowledged = next(line for line in lines if line["event"] == "acknowledged")
    assert greeting["text"] == "Welcome back."
    assert greeting["id"] in acknowledged["ids"]
