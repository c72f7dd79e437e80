"""A call with a back end: it adds to a turn what it knows, in time, and whatever it does, the call goes on."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, UserInputTranscribedEvent, stt
from livekit.agents.llm import ChatContext, ChatMessage
from livekit.agents.voice.io import AudioInput
from livekit.plugins import deepgram

from agent_worker.call import backend as call_backend
from agent_worker.call.linking import Linking
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, text_of
from agent_worker.session.turn_context import is_turn_context
from conversation_actors.backend.client import BackendClient
from conversation_actors.backend.exchange import Exchange
from conversation_actors.settings import BackendSettings
from tests.support.backends import broken, dripping, hanging, knowing, misfit, serving, settings_of
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, Running, texts, user
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
from tests.support.sessions.fakes_realtime import FakeRealtime

ASKED = "Where is my order?"
SHORT = 0.02
"""A budget for answers that never come."""
NEVER_OVER = 600.0
"""One that no test waits for."""


class Silence(AudioInput):
    """A microphone."""

    def __init__(self) -> None:
        """Nothing is said."""
        super().__init__(label="silence")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.02)
        return rtc.AudioFrame(bytes(640), 16000, 1, 320)


class Listener(Agent):
    """An agent that is spoken to: it hears what a test `hears`, as a recogniser understands it."""

    def __init__(self) -> None:
        """Nothing is said yet."""
        super().__init__(instructions="You sell lamps.", stt=deepgram.STT(api_key="any"), turn_detection="stt")
        self._said: asyncio.Queue[stt.SpeechEvent] = asyncio.Queue()
        self.seen: list[list[str]] = []
        """What was in the context of each turn when the application was asked about it."""

    def hears(self, text: str) -> None:
        """Hear a turn of somebody."""
        self._put(stt.SpeechEventType.START_OF_SPEECH, "")
        self._put(stt.SpeechEventType.FINAL_TRANSCRIPT, text)
        self._put(stt.SpeechEventType.END_OF_SPEECH, "")

    def begins_to_hear(self, text: str) -> None:
        """Hear a part of a turn."""
        self._put(stt.SpeechEventType.INTERIM_TRANSCRIPT, text)

    def _put(self, kind: stt.SpeechEventType, text: str) -> None:
        words = stt.SpeechData(language="en", text=text)  # type: ignore[arg-type]
        self._said.put_nowait(stt.SpeechEvent(type=kind, alternatives=[words] if text else []))

    async def stt_node(self, audio: Any, _settings: Any) -> Any:
        """Understand what is said."""
        assert audio is not None
        while True:
            yield await self._said.get()

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        """Look at what is known."""
        assert new_message.text_content
        self.seen.append([item.text_content or "" for item in turn_ctx.items if is_turn_context(item)])


def answer_to(text: str) -> str:
    """What the model says."""
    return f"Answer to: {text}"


class Model:
    """A language model that notes what it is asked."""

    def __init__(self) -> None:
        """Nothing was asked."""
        self.asked: list[list[tuple[str, str]]] = []

    def __call__(self, request: ChatRequest) -> Reply:
        """Answer the last question; LiveKit may ask it twice, and the first time before it is whole."""
        self.asked.append([(str(one["role"]), text_of(one)) for one in request.messages])
        return Reply(answer_to(text_of(request.messages[-1])))


Talk = Callable[..., Any]


@pytest.fixture
def model() -> Model:
    """The agent's model."""
    return Model()


@pytest.fixture
def talk(answer: Answer, world: World, model: Model, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Have a listener answer a call that has a back end, and listen to Alice."""
    alice = FakeParticipant("alice")
    # no room is real here, in which LiveKit would link her
    monkeypatch.setattr(Linking, "linked", alice)

    @asynccontextmanager
    async def talking(backend: BackendSettings, agent: Agent | None = None) -> AsyncIterator[Running]:
        world.backend = backend
        async with (
            OfflineServer(FunctionScript(model)) as server,
            answer(
                FakeRoom(alice),
                agent=agent or Listener(),
                on=server,
                microphone=Silence(),
                greeting="",
            ) as running,
        ):
            running.session.update_options(endpointing_opts={"min_delay": 0.0, "max_delay": 0.05})
            yield running

    return talking


async def said(running: Running, text: str) -> None:
    """Say something, and hear the answer to it."""
    agent = running.session.current_agent
    assert isinstance(agent, Listener)
    agent.hears(text)
    await until(lambda: answer_to(text) in running.heard.lines)
    await running.is_known(answer_to(text))


async def test_the_model_is_told_what_the_back_end_knows_for_this_turn_only(talk: Talk, model: Model) -> None:
    """Nobody keeps it: no agent, no session, no conversation."""
    told = "Order 42 is on its way."
    async with (
        serving(context=knowing(told)) as backend,
        talk(settings_of(backend.url, context=True)) as running,
    ):
        heard: list[UserInputTranscribedEvent] = []
        running.session.on("user_input_transcribed", heard.append)
        running.session.current_agent.begins_to_hear("Where is")
        await until(lambda: bool(heard))
        await said(running, ASKED)
        assert model.asked[-1][-2:] == [("system", told), ("user", ASKED)]
        backend.replies["/v1/context"] = knowing()
        await said(running, "Thank you.")
        assert sum(told in str(one) for one in model.asked) == 1  # of LiveKit's two requests of a turn, the last
        agent, conversation = running.session.current_agent, running.call
        assert isinstance(agent, Listener)
        assert agent.seen == [[told], []]
        await conversation.flush()
        kept = (agent.chat_ctx.items, running.session.history.items, conversation.items, conversation.attributes)
        assert all(told not in str(one) for one in kept)
        ids = {item.to_dict()["content"][0]: item.id for item in conversation.items if item.type == "message"}
        assert backend.bodies("/v1/context")[0] == {
            "conversation_id": "c",
            "tenant": conversation.tenant,
            "identity": "alice",
            "text": ASKED,
            "item_id": ids[ASKED],
        }
        assert backend.bodies("/v1/transcriptions") == []
        assert conversation.failures.counts == {}


@pytest.mark.parametrize(
    ("reply", "budget"), [(hanging, SHORT), (dripping, SHORT), (broken, NEVER_OVER), (misfit, NEVER_OVER)]
)
async def test_a_turn_goes_on_without_what_does_not_come(talk: Talk, model: Model, reply: Any, budget: float) -> None:
    """Each time is counted, and the next turn asks again. What is refused is not waited for."""
    settings = partial(settings_of, context=True, budget=budget)
    async with serving(context=reply) as backend, talk(settings(backend.url)) as running:
        await said(running, ASKED)
        assert running.call.failures.counts == {"context": 1}
        await said(running, "Hello?")
        assert running.call.failures.counts == {"context": 2}
        assert all(role != "system" for role, _ in model.asked[-1][1:])
        assert texts(running.call.items) == [ASKED, answer_to(ASKED), "Hello?", answer_to("Hello?")]


async def test_a_turn_does_not_wait_for_a_connection(talk: Talk) -> None:
    """The back end's host does not answer."""
    with unanswered() as url:
        async with talk(settings_of(url, context=True, budget=SHORT)) as running:
            await said(running, ASKED)
            assert running.call.failures.counts == {"context": 1}


async def test_a_turn_does_not_wait_for_a_name(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers where the back end is."""
    may_end = threading.Event()

    def look_up(_host: str, _port: int) -> Sequence[str]:
        may_end.wait()
        return []

    def client(settings: BackendSettings, tenant: str) -> BackendClient:
        return BackendClient(settings, tenant, exchange=Exchange(settings, lookup=look_up))

    monkeypatch.setattr(call_backend, "BackendClient", client)
    try:
        async with talk(settings_of("http://backend.example", context=True, budget=SHORT)) as running:
            for text in (ASKED, "Hello?"):
                await said(running, text)
            assert running.call.failures.counts == {"context": 2}
    finally:
        may_end.set()


async def test_a_model_that_hears_by_itself_gets_no_context(talk: Talk) -> None:
    """LiveKit gives it none of a turn's own: nobody is asked, and nobody waits."""
    agent = Agent(instructions="You sell lamps.", llm=FakeRealtime("Hello."))
    async with (
        serving(context=knowing("Order 42.")) as backend,
        talk(settings_of(backend.url, context=True), agent) as running,
    ):
        turn_ctx = ChatContext.empty()
        await running.session.current_agent.on_user_turn_completed(turn_ctx, new_message=user(ASKED))
        assert (turn_ctx.items, backend.asked) == ([], [])


async def test_the_back_end_is_told_what_is_heard_before_it_is_final(talk: Talk) -> None:
    """And asked for no context, which the settings do not want."""
    async with serving() as backend, talk(settings_of(backend.url, interim=True)) as running:
        running.session.current_agent.begins_to_hear("Where is")
        await until(lambda: bool(backend.asked))
        await said(running, ASKED)
        (told,) = backend.bodies("/v1/transcriptions")
        assert datetime.fromisoformat(told.pop("at")) <= datetime.now(UTC)
        assert told["life"]
        assert told == {
            "type": "transcription.interim",
            "conversation_id": "c",
            "life": running.call.life,
            "call_id": None,
            "tenant": running.call.tenant,
            "seq": None,
            "truncated": False,
            "item_id": None,
            "text": "Where is",
            "identity": "alice",
            "language": "en",
            "final": False,
        }
        assert backend.bodies("/v1/context") == []


async def test_a_call_goes_on_while_nobody_takes_what_is_heard(talk: Talk) -> None:
    """The back end hangs: one request waits for it, and nothing else."""
    async with serving(transcriptions=hanging) as backend, talk(settings_of(backend.url, interim=True)) as running:
        running.session.current_agent.begins_to_hear("Where")
        await until(lambda: bool(backend.asked))
        for text in ("Where is", "Where is my"):
            running.session.current_agent.begins_to_hear(text)
        await said(running, ASKED)
        assert len(backend.asked) == 1
        assert texts(running.call.items) == [ASKED, answer_to(ASKED)]


async def test_a_call_whose_settings_want_neither_has_nothing_of_a_back_end(talk: Talk) -> None:
    """It is sent what is stored by others."""
    async with serving(context=knowing("Order 42.")) as backend, talk(settings_of(backend.url)) as running:
        running.session.current_agent.begins_to_hear("Where is")
        await said(running, ASKED)
        assert backend.asked == []


@contextmanager
def unanswered() -> Iterator[str]:
    """Yield the URL of a host that answers no attempt to connect: its queue is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting: list[socket.socket] = []
        try:
            for _ in range(8):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
                waiting.append(one)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()
