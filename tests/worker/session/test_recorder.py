"""Recording: everything that enters a real session's history is in the conversation, and nothing breaks the call."""

import asyncio
import logging
from typing import Any

import pytest
from livekit.agents import (
    Agent,
    ConversationItemAddedEvent,
    LanguageCode,
    RunContext,
    UserInputTranscribedEvent,
    function_tool,
)
from livekit.agents.llm import (
    AgentConfigUpdate,
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCallOutput,
    ImageContent,
)

from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.offline.transcript import Transcript
from agent_worker.session.recorder import Recorder
from agent_worker.session.serialise import SHORTENED
from conversation_actors import Message
from tests.support.sessions.fake_conversation import FakeConversation, FunctionScript
from tests.worker.conftest import Say, SessionFactory, Starter


def _as_livekit_stores(items: list[ChatItem]) -> dict[str, dict[str, Any]]:
    stored = ChatContext(items).to_dict(
        exclude_image=False, exclude_audio=False, exclude_timestamp=False, exclude_config_update=True
    )
    return {item["id"]: item for item in stored["items"]}


async def test_a_whole_call_is_recorded(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """After 26 turns with tools the conversation holds exactly the session's history, field by field."""
    conversation = FakeConversation()
    async with started(server, SupportAgent(), conversation) as (session, attached):
        for turn in transcript.turns:
            assert await say(session, turn.user) == turn.reply
    stored = {item.id: item.to_dict() for item in conversation.items}
    assert stored == _as_livekit_stores(session.history.items)
    assert len(conversation.history) == len(stored), "an item was sent twice although nothing changed"
    assert attached.recorder.refused == 0


async def test_a_tool_call_is_recorded_before_its_tool_ends(started: Starter, say: Say) -> None:
    """While the tool runs, its call is there without an output: a crash now can be told to the next agent."""
    conversation = FakeConversation()
    seen: list[list[str]] = []

    class Slow(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="x")

        @function_tool
        async def measure(self) -> str:
            """Look at what is stored while this tool runs."""
            seen.append([item.type for item in conversation.items][-1:])
            return "done"

    def decide(request: ChatRequest) -> Reply:
        done = any(message["role"] == "tool" for message in request.messages)
        return Reply("Finished.") if done else Reply("", (RequestedCall("c1", "measure", "{}"),))

    async with OfflineServer(FunctionScript(decide)) as server, started(server, Slow(), conversation) as (session, _):
        assert await say(session, "Go") == "Finished."
    assert seen == [["function_call"]]
    kinds = [item.type for item in conversation.items]
    assert kinds == ["agent_handoff", "message", "function_call", "function_call_output", "message"]


async def test_what_a_tool_reports_from_the_background_is_recorded(started: Starter, say: Say) -> None:
    """A tool that goes on after a first update puts its result into the history late, without an event of its own."""
    conversation = FakeConversation()
    release = asyncio.Event()

    class Background(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="x")

        @function_tool
        async def search(self, context: RunContext[None]) -> str:
            """Search for long."""
            await context.update("searching")
            await release.wait()
            return "found it"

    def decide(request: ChatRequest) -> Reply:
        outputs = [str(message["content"]) for message in request.messages if message["role"] == "tool"]
        if not outputs:
            return Reply("", (RequestedCall("c1", "search", "{}"),))
        return Reply("It is found." if "found it" in outputs[-1] else "I am searching.")

    async with (
        OfflineServer(FunctionScript(decide)) as server,
        started(server, Background(), conversation) as (session, _),
    ):
        answered = asyncio.Event()

        def on_item(event: ConversationItemAddedEvent) -> None:
            if isinstance(event.item, ChatMessage) and event.item.text_content == "It is found.":
                answered.set()

        session.on("conversation_item_added", on_item)
        session.generate_reply(user_input="Search")
        release.set()
        await asyncio.wait_for(answered.wait(), 20)
    assert {item.id for item in conversation.items} == set(_as_livekit_stores(session.history.items))
    assert any(item.to_dict().get("call_id") == "c1_final" for item in conversation.items)


async def test_an_unserialisable_extra_does_not_kill_the_reply(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider's bytes and foreign objects cost only themselves; the message is recorded, the answer comes."""
    conversation = FakeConversation()
    async with started(server, SupportAgent(), conversation) as (session, _):

        def poison(event: ConversationItemAddedEvent) -> None:
            if isinstance(event.item, ChatMessage):
                event.item.extra |= {"good": {"a": 1}, "signature": b"\xff\xfe", "object": object()}

        # before the recorder's handler, as a plugin would have it when it makes the message
        session._events["conversation_item_added"] = {
            poison: None,
            **dict.fromkeys(session._events["conversation_item_added"]),
        }
        assert await say(session, transcript.turns[0].user) == transcript.turns[0].reply
    messages = [item.to_dict() for item in conversation.items if item.type == "message"]
    assert [message["extra"] for message in messages] == [{"good": {"a": 1}}, {"good": {"a": 1}}]
    assert [message["content"] for message in messages] == [[transcript.turns[0].user], [transcript.turns[0].reply]]
    assert transcript.turns[0].reply not in caplog.text


async def test_a_full_outbox_does_not_break_the_call(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused items are counted and logged without a word of the transcript; the answer comes from local history."""
    conversation = FakeConversation()
    conversation.full = True
    caplog.set_level(logging.INFO)
    async with started(server, SupportAgent(), conversation) as (session, attached):
        for turn in transcript.turns[:3]:
            assert await say(session, turn.user) == turn.reply
    assert attached.recorder.refused == len(_as_livekit_stores(session.history.items)) + 2  # calls: at start and end
    ours = [record for record in caplog.records if record.name.startswith("agent_worker")]
    assert {record.getMessage() for record in ours} == {"an item could not be recorded"}
    assert {record.__dict__["reason"] for record in ours} == {"OverloadedError: the outbox is full"}


class _BrokenConversation(FakeConversation):
    def record(self, item: Any) -> None:
        raise TypeError(item)


async def test_a_type_error_does_not_reach_livekit(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """LiveKit lets exactly this exception out of a handler, and the turn would have no answer."""
    async with started(server, SupportAgent(), _BrokenConversation()) as (session, attached):
        assert await say(session, transcript.turns[0].user) == transcript.turns[0].reply
    assert attached.recorder.refused == 3


async def _recorder(new_session: SessionFactory, server: OfflineServer, conversation: FakeConversation) -> Recorder:
    return Recorder(await new_session(server), conversation)


async def test_instructions_and_configuration_are_not_recorded(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """System prompts, config updates and LiveKit's reserved ids belong to the agent."""
    conversation = FakeConversation()
    (await _recorder(new_session, server, conversation)).record(
        [
            ChatMessage(role="system", content=["secret prompt"]),
            ChatMessage(role="developer", content=["secret prompt"]),
            ChatMessage(id="lk.agent_task.instructions", role="assistant", content=["secret prompt"]),
            AgentConfigUpdate(instructions="secret prompt"),
        ]
    )
    assert conversation.items == ()


async def test_an_item_that_is_too_large_is_shortened(server: OfflineServer, new_session: SessionFactory) -> None:
    """A tool's output keeps its beginning and says that it was cut: its call must not look interrupted."""
    conversation = FakeConversation(item_bytes=4096)
    big = FunctionCallOutput(call_id="c1", name="t", output="ü" * 100_000, is_error=False)
    image = ImageContent(image="data:image/png;base64," + "A" * 100_000)
    said = ChatMessage(role="user", content=["Look at this", image])
    recorder = await _recorder(new_session, server, conversation)
    recorder.record([big, said])
    output, message = (item.to_dict() for item in conversation.items)
    assert output["output"].endswith(SHORTENED)
    assert len(output["output"]) > 1000
    assert output["call_id"] == "c1"
    assert message["content"][0] == "Look at this"
    assert message["content"][1].startswith("[picture left out")
    assert recorder.refused == 0


async def test_text_that_is_no_unicode_and_numbers_that_are_none(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """A lone surrogate is replaced, a NaN in the metrics costs that one measurement; the words stay."""
    conversation = FakeConversation()
    half = ChatMessage(role="assistant", content=["half \ud83d here"])
    timed = ChatMessage(role="assistant", content=["fine"], metrics={"llm_node_ttft": float("nan"), "e2e_latency": 0.5})
    (await _recorder(new_session, server, conversation)).record([half, timed])
    assert [item.to_dict()["content"] for item in conversation.items] == [["half ? here"], ["fine"]]
    assert conversation.items[1].to_dict()["metrics"] == {"e2e_latency": 0.5}


async def test_a_stopped_recorder_records_no_more(
    server: OfflineServer, transcript: Transcript, started: Starter, say: Say
) -> None:
    """After `stop` the session goes on alone."""
    conversation = FakeConversation()
    async with started(server, SupportAgent(), conversation) as (session, attached):
        before = conversation.items
        attached.recorder.stop()
        await say(session, transcript.turns[0].user)
    assert conversation.items == before


# Who said it


async def test_each_user_message_names_its_speaker(
    server: OfflineServer, transcript: Transcript, new_session: SessionFactory
) -> None:
    """Each user message names its speaker, in the session and in the conversation; nobody else's does."""
    conversation, said = FakeConversation(), ["phone", None]
    session = await new_session(server)

    def speaker(_message: ChatMessage) -> dict[str, Any]:
        return {"identity": "anna", "device": said.pop(0), "sid": "not kept"}

    recorder = Recorder(session, conversation, speaker=speaker).start()
    await session.start(SupportAgent(), record=False)
    for turn in transcript.turns[:2]:
        await session.run(user_input=turn.user)
    messages = [item for item in conversation.items if isinstance(item, Message)]
    expected = [{"identity": "anna", "device": "phone"}, None, {"identity": "anna", "device": None}, None]
    assert [one.participant for one in messages if one.role == "user"] == expected[::2]
    assert {one.participant for one in messages if one.role == "assistant"} == {None}
    assert {item.id: item.to_dict() for item in conversation.items} == _as_livekit_stores(session.history.items)
    recorder.record_again(is_afresh=False)
    assert len(conversation.history) == len(conversation.items)
    assert said == []


@pytest.mark.parametrize("kind", ["raises", "unknown", "none"])
async def test_a_message_of_an_unknown_speaker_is_recorded(
    kind: str, server: OfflineServer, transcript: Transcript, new_session: SessionFactory
) -> None:
    """The message is recorded all the same, and the answer comes."""
    given: dict[str, Any] = {"unknown": {"device": "phone"}, "none": None}
    conversation = FakeConversation()
    session = await new_session(server)
    Recorder(session, conversation, speaker=lambda _message: given[kind]).start()
    await session.start(SupportAgent(), record=False)
    await session.run(user_input=transcript.turns[0].user)
    messages = [item for item in conversation.items if isinstance(item, Message)]
    assert [(one.text, one.participant) for one in messages] == [
        (transcript.turns[0].user, None),
        (transcript.turns[0].reply, None),
    ]


async def test_a_message_is_recorded_with_the_language_that_was_heard(
    server: OfflineServer, new_session: SessionFactory
) -> None:
    """As the recogniser tells it; a recogniser that tells something else costs nothing but that."""
    conversation = FakeConversation()
    session = await new_session(server)
    Recorder(session, conversation).start()
    for text, language in (("Hello", LanguageCode("en-US")), ("Again", None)):
        heard = UserInputTranscribedEvent(transcript=text, is_final=True, language=language)
        session.emit("user_input_transcribed", heard)
        session.emit("user_input_transcribed", None)  # type: ignore[arg-type]  # what no recogniser tells
        session._conversation_item_added(ChatMessage(role="user", content=[text]))
    said = [item for item in conversation.items if isinstance(item, Message)]
    assert [(one.text, one.extra.get("language")) for one in said] == [("Hello", "en-US"), ("Again", None)]


@pytest.mark.parametrize("provider", ["openai", "openai.responses", "google", "anthropic", "aws", "mistralai"])
def test_models_are_not_told_who_said_it(provider: Any) -> None:
    """A request is the same, to every provider that LiveKit has a format for."""
    said = ChatMessage(role="user", content=["Hello"])
    named = said.model_copy(
        update={"extra": {"participant": {"identity": "anna", "device": "phone"}, "language": "en"}}
    )
    answer = ChatMessage(role="assistant", content=["Hi"])
    requests = [ChatContext([one, answer]).to_provider_format(provider)[0] for one in (said, named)]
    assert requests[0] == requests[1]
    assert "Hello" in str(requests[1])
