"""The stand-in of OpenAI's Realtime API enforces what OpenAI publishes; each rule's place is named at its test.

"Reference" is OpenAI's API reference, part Realtime, "Client events" or "Server events", by the name of the event;
"Guide" is OpenAI's guide "Realtime conversations", by its section. The texts and codes of errors that stand in neither
are those that its users quote.
"""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from agent_worker.offline import OfflineServer, encode
from agent_worker.offline.realtime_behaviour import SESSION_LIMIT, RealtimeBehaviour
from agent_worker.offline.realtime_items import heard_until
from agent_worker.offline.realtime_options import RATE
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.offline.tones import Decoder, EventKind
from tests.support.sessions.fake_conversation import FunctionScript

PATIENCE = 5.0
Event = dict[str, Any]
_numbers = itertools.count(1)


class Line:
    """A client, without a plugin."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Open."""
        self.socket = socket
        self.known: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> str:
        """Send an event, and return its id."""
        event_id = f"mine_{next(_numbers)}"
        await self.socket.send_json({"type": kind, "event_id": event_id, **fields})
        return event_id

    async def hear(self, *kinds: str) -> Event:
        """The next event of one of these types; what comes before it is `known` too."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event: Event = await self.socket.receive_json()
                self.known.append(event)
                if event["type"] in kinds:
                    return event

    async def refusal(self, kind: str, **fields: Any) -> Event:
        """Send something that is refused; the error names it, and the session goes on."""
        event_id = await self.send(kind, **fields)
        error: Event = (await self.hear("error"))["error"]
        assert error["event_id"] == event_id
        assert error["type"] == "invalid_request_error"
        return error

    async def create(self, item_id: str, text: str = "Hello.", **fields: Any) -> Event:
        """Add a message of the user."""
        await self.send("conversation.item.create", item=message(item_id, text), **fields)
        return await self.hear("conversation.item.added")

    async def say(self, text: str) -> None:
        """Speak."""
        sound = encode(text, sample_rate=RATE).tobytes() + bytes(RATE // 5)
        for start in range(0, len(sound), 9600):
            piece = base64.b64encode(sound[start : start + 9600]).decode()
            await self.send("input_audio_buffer.append", audio=piece)

    def types(self) -> list[str]:
        """What kinds of events came, in order."""
        return [one["type"] for one in self.known]


def message(item_id: str, text: str = "Hello.", role: str = "user") -> Event:
    """An item."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"id": item_id, "type": "message", "role": role, "content": [{"type": kind, "text": text}]}


Connect = Callable[..., Any]


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Begin a session; `decide` is the model."""
    async with aiohttp.ClientSession() as http:

        @asynccontextmanager
        async def connecting(
            decide: Callable[[ChatRequest], Reply] = lambda _request: Reply("Yes."), **behaviour: Any
        ) -> AsyncIterator[tuple[Line, OfflineServer]]:
            async with OfflineServer(FunctionScript(decide), behaviour=RealtimeBehaviour(**behaviour)) as server:
                url = f"{server.base_url}/realtime?model=gpt-realtime".replace("http", "ws", 1)
                async with http.ws_connect(url, headers={"Authorization": "Bearer any"}) as socket:
                    line = Line(socket)
                    await line.hear("session.created")
                    yield line, server

        yield connecting


async def test_a_key_is_wanted(connect: Connect) -> None:
    """Guide, "Realtime API with WebSocket": the connection is authorised as every request is."""
    async with connect() as (_, server), aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{server.base_url}/realtime".replace("http", "ws", 1))
        assert refused.value.status == 401


@pytest.mark.parametrize("name", ["item.id", "item.call_id"])
async def test_an_id_has_at_most_32_characters(connect: Connect, name: str) -> None:
    """The API's own error: "string too long. Expected a string with maximum length 32"."""
    item = message("x") if name == "item.id" else {"id": "x", "type": "function_call", "name": "t", "arguments": "{}"}
    item = {**item, name.removeprefix("item."): "a" * 33}
    async with connect() as (line, _):
        error = await line.refusal("conversation.item.create", item=item)
        assert (error["code"], error["param"]) == ("string_above_max_length", name)
        assert "maximum length 32, but got a string with length 33" in error["message"]
        assert (await line.create("a" * 32))["item"]["id"] == "a" * 32


async def test_an_id_is_made_of_letters_digits_underscores_and_dashes(connect: Connect) -> None:
    """The API's own error: "Expected an ID that contains letters, numbers, underscores, or dashes"."""
    async with connect() as (line, _):
        error = await line.refusal("conversation.item.create", item=message("item_1/fnc_0"))
        assert "letters, numbers, underscores, or dashes" in error["message"]


async def test_an_item_stands_behind_one_that_is_there(connect: Connect) -> None:
    """At the end, at the beginning or behind an id.

    Reference, conversation.item.create, previous_item_id: "If the ID cannot be found, an error will be returned and the
    item will not be added".
    """
    async with connect() as (line, server):
        assert (await line.create("b"))["previous_item_id"] is None
        assert (await line.create("d"))["previous_item_id"] == "b"
        assert (await line.create("a", "First", previous_item_id="root"))["previous_item_id"] is None
        assert (await line.create("c", previous_item_id="b"))["previous_item_id"] == "b"
        error = await line.refusal("conversation.item.create", item=message("e"), previous_item_id="nobody")
        assert error["param"] == "previous_item_id"
        error = await line.refusal("conversation.item.create", item=message("f"), previous_item_id="e")
        assert error["param"] == "previous_item_id"
        await line.send("response.create")
        await line.hear("response.done")
        assert len(server.responses[0].messages) == 4
        assert server.responses[0].messages[0]["content"] == "First"


async def test_an_id_is_given_once(connect: Connect) -> None:
    """Reference, conversation.item.create: ids are unique; the code is the one that clients look for."""
    async with connect() as (line, _):
        await line.create("a")
        error = await line.refusal("conversation.item.create", item=message("a"))
        assert error["code"] == "item_create_duplicate_item_id"


async def test_content_is_of_its_role(connect: Connect) -> None:
    """User messages have input parts, the assistant's have output text.

    Reference, conversation.item.create: "it cannot populate assistant audio messages".
    """
    wrong = {"id": "a", "type": "message", "role": "assistant", "content": [{"type": "input_text", "text": "x"}]}
    sound = {"id": "a", "type": "message", "role": "assistant", "content": [{"type": "output_audio", "audio": ""}]}
    async with connect() as (line, _):
        for item in (wrong, sound):
            error = await line.refusal("conversation.item.create", item=item)
            assert error["param"] == "item.content[0].type"
        await line.send("conversation.item.create", item=message("a", role="assistant"))
        await line.hear("conversation.item.done")


async def test_an_output_needs_its_call(connect: Connect) -> None:
    """The API's own error: "Tool call ID … not found in conversation"."""
    async with connect() as (line, _):
        output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
        error = await line.refusal("conversation.item.create", item=output)
        assert error["code"] == "invalid_tool_call_id"


async def test_an_item_is_deleted_once(connect: Connect) -> None:
    """Reference, conversation.item.delete: "unless the item does not exist … the server will respond with an error"."""
    async with connect() as (line, _):
        await line.create("a")
        await line.send("conversation.item.delete", item_id="a")
        assert (await line.hear("conversation.item.deleted"))["item_id"] == "a"
        assert (await line.refusal("conversation.item.delete", item_id="a"))["param"] == "item_id"


async def test_one_response_at_a_time(connect: Connect) -> None:
    """Reference, response.create: "Only one Response can write to the default Conversation at a time"."""
    async with connect(lambda _request: Reply("A long answer. " * 40)) as (line, _):
        await line.send("response.create", response={"metadata": {"client_event_id": "1"}})
        created = await line.hear("response.created")
        assert created["response"]["metadata"] == {"client_event_id": "1"}
        error = await line.refusal("response.create")
        assert error["code"] == "conversation_already_has_active_response"
        assert created["response"]["id"] in error["message"]
        await line.send("response.cancel")
        done = await line.hear("response.done")
        assert done["response"]["status"] == "cancelled"
        assert (await line.refusal("response.cancel"))["code"] == "response_cancel_not_active"


async def test_a_response_in_sound(connect: Connect) -> None:
    """Guide, "Lifecycle events for audio": the order of events; the sound is that of the text."""
    async with connect(lambda _request: Reply("Good morning.")) as (line, server):
        await line.send("response.create")
        await line.hear("response.done")
        kinds = list(dict.fromkeys(line.types()[1:]))
        assert kinds == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio_transcript.done",
            "response.output_audio.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
        told = [one["delta"] for one in line.known if one["type"] == "response.output_audio_transcript.delta"]
        assert "".join(told) == "Good morning."
        sound = b"".join(
            base64.b64decode(one["delta"]) for one in line.known if one["type"] == "response.output_audio.delta"
        )
        assert _understood(sound) == ["Good morning."]
        assert list(server.spoken) == ["Good morning."]


def _understood(sound: bytes) -> list[str]:
    decoder = Decoder(RATE)
    events = [*decoder.feed(np.frombuffer(sound, "<i2")), *decoder.finish()]
    return [one.text for one in events if one.kind is EventKind.FINISHED]


async def test_a_response_in_writing(connect: Connect) -> None:
    """Reference, session, output_modalities: ``["text"]`` "can be used to make the model respond with text only"."""
    async with connect(lambda _request: Reply("Good morning.")) as (line, _):
        await line.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        await line.hear("session.updated")
        await line.send("response.create")
        await line.hear("response.done")
        told = [one["delta"] for one in line.known if one["type"] == "response.output_text.delta"]
        assert "".join(told) == "Good morning."
        assert "response.output_audio.delta" not in line.types()


async def test_a_function_call(connect: Connect) -> None:
    """Guide, "Function calling": the call is an item of the response; its output is given by the client."""

    def decide(request: ChatRequest) -> Reply:
        if request.messages[-1]["role"] == "tool":
            return Reply("Done: " + request.messages[-1]["content"])
        return Reply("One moment.", (RequestedCall("call_1", "find", "{}"),))

    tool = {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}}
    async with connect(decide) as (line, server):
        await line.send("session.update", session={"type": "realtime", "tools": [tool], "instructions": "Find it."})
        await line.create("a")
        await line.send("response.create")
        output = (await line.hear("response.done"))["response"]["output"]
        assert [one["type"] for one in output] == ["message", "function_call"]
        assert (output[1]["call_id"], output[1]["name"], output[1]["arguments"]) == ("call_1", "find", "{}")
        await line.send(
            "conversation.item.create", item={"type": "function_call_output", "call_id": "call_1", "output": "here"}
        )
        await line.send("response.create")
        await line.hear("response.done")
        assert server.spoken[-1] == "Done: here"
        assert [one["role"] for one in server.responses[-1].messages] == ["system", "user", "assistant", "tool"]


async def test_instructions_of_one_response_take_the_place_of_the_sessions(connect: Connect) -> None:
    """Reference, response.create: "they will override the Session's configuration for this Response only"."""
    async with connect() as (line, server):
        await line.send("session.update", session={"type": "realtime", "instructions": "You sell lamps."})
        for wanted in ({"instructions": "Greet."}, {}):
            await line.send("response.create", response=wanted)
            await line.hear("response.done")
        assert [one.messages[0]["content"] for one in server.responses] == ["Greet.", "You sell lamps."]


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": "gpt-realtime-mini"}, "session.model"),
        ({"output_modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format"),
        ({"tools": [{"type": "function", "name": "a tool"}]}, "session.tools[0].name"),
    ],
)
async def test_what_a_session_is_not_set_to(connect: Connect, changed: Event, param: str) -> None:
    """An update that is refused changes nothing.

    Reference, session.update: "any field except for ``voice`` and ``model``"; session: "It is not possible to request
    both ``text`` and ``audio`` at the same time", "Only a 24kHz sample rate is supported".
    """
    async with connect() as (line, _):
        error = await line.refusal("session.update", session={"type": "realtime", **changed})
        assert error["param"] == param
        await line.send("session.update", session={"type": "realtime", "instructions": "x"})
        told = (await line.hear("session.updated"))["session"]
        assert (told["instructions"], told["model"], told["output_modalities"]) == ("x", "gpt-realtime", ["audio"])


async def test_a_voice_is_chosen_before_it_is_heard(connect: Connect) -> None:
    """Reference, session.update: "``voice`` can be updated only if there have been no other audio outputs yet"."""
    cedar = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    async with connect() as (line, _):
        await line.send("session.update", session=cedar)
        await line.hear("session.updated")
        await line.send("response.create")
        await line.hear("response.done")
        marin = {"type": "realtime", "audio": {"output": {"voice": "marin"}}}
        assert (await line.refusal("session.update", session=marin))["code"] == "cannot_update_voice"
        await line.send("session.update", session=cedar)
        await line.hear("session.updated")


@pytest.mark.parametrize("transcripts", ["early", "late"])
async def test_what_is_heard(connect: Connect, transcripts: str) -> None:
    """The server finds the turn and answers it.

    Reference, response.create: "When in Server VAD mode, the server will create Responses automatically";
    conversation.item.input_audio_transcription.completed: "this event may come before or after the Response events".
    """
    async with connect(lambda request: Reply(request.messages[-1]["content"] + "!"), transcripts=transcripts) as (
        line,
        server,
    ):
        transcription = {"model": "gpt-4o-mini-transcribe"}
        audio = {"input": {"transcription": transcription, "turn_detection": {"type": "semantic_vad"}}}
        await line.send("session.update", session={"type": "realtime", "audio": audio})
        await line.say("Good morning")
        await line.hear("response.done")
        if transcripts == "late":
            assert "conversation.item.input_audio_transcription.completed" not in line.types()
            await line.hear("conversation.item.input_audio_transcription.completed")
        known = {one["type"]: one for one in line.known}
        item_id = known["input_audio_buffer.speech_started"]["item_id"]
        for kind in ("speech_stopped", "committed"):
            assert known[f"input_audio_buffer.{kind}"]["item_id"] == item_id
        transcript = known["conversation.item.input_audio_transcription.completed"]
        assert (transcript["item_id"], transcript["transcript"]) == (item_id, "Good morning")
        assert list(server.heard) == ["Good morning"]
        assert list(server.spoken) == ["Good morning!"]


async def test_who_speaks_interrupts(connect: Connect) -> None:
    """Reference, turn_detection, interrupt_response: it interrupts a response "when a VAD start event occurs"."""
    async with connect(lambda _request: Reply("A long answer. " * 200)) as (line, _):
        await line.send("response.create")
        await line.hear("response.output_audio.delta")
        await line.say("Stop")
        done = (await line.hear("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")


async def test_too_little_sound_is_no_turn(connect: Connect) -> None:
    """Without turn detection the client commits.

    Reference, input_audio_buffer.commit: it "will produce an error if the input audio buffer is empty", and "will not
    create a response".
    """
    async with connect() as (line, server):
        error = await line.refusal("input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"
        await line.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await line.say("Good morning")
        await line.send("input_audio_buffer.commit")
        await line.hear("conversation.item.added")
        await line.send("response.create")
        await line.hear("response.done")
        assert server.responses[0].messages[-1] == {"role": "user", "content": "Good morning"}
        assert len(server.responses) == 1


async def test_what_was_not_heard_is_forgotten(connect: Connect) -> None:
    """Only the assistant's words, and not behind their end.

    Reference, conversation.item.truncate: it "will delete the server-side text transcript to ensure there is not text
    in the context that hasn't been heard by the user".
    """
    text = "One two three four five."
    async with connect(lambda _request: Reply(text)) as (line, server):
        await line.create("a")
        await line.send("response.create")
        [item] = (await line.hear("response.done"))["response"]["output"]
        truncate = {"content_index": 0, "item_id": item["id"], "audio_end_ms": 600}
        for wrong in ({"item_id": "a"}, {"audio_end_ms": 60_000}):
            [param] = wrong
            error = await line.refusal("conversation.item.truncate", **{**truncate, **wrong})
            assert error["param"] == param
        await line.send("conversation.item.truncate", **truncate)
        await line.hear("conversation.item.truncated")
        await line.send("response.create")
        await line.hear("response.done")
        assert server.responses[-1].messages[-1]["content"] == heard_until(text, 0.6) == "One two t"


async def test_a_session_ends(connect: Connect) -> None:
    """With the error session_expired: "Your session hit the maximum duration of 60 minutes.".

    Guide, "Session lifecycle events", and OpenAI's "Developer notes on the Realtime API": "Realtime sessions can now
    last up to 60 minutes".
    """
    assert timedelta(minutes=60) == SESSION_LIMIT
    async with connect(session_limit=timedelta(seconds=0.05)) as (line, _):
        error = (await line.hear("error"))["error"]
        assert error["code"] == "session_expired"
        assert (await line.socket.receive()).type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize("sent", ["{", "[]", '{"type": "conversation.item.retrieve.all"}', '{"type": null}'])
async def test_nonsense_is_refused(connect: Connect, sent: str) -> None:
    """Reference, error: "Most errors are recoverable and the session will stay open"."""
    async with connect() as (line, _):
        await line.socket.send_str(sent)
        await line.hear("error")
        await line.create("a")


async def test_a_script_that_fails_fails_the_response(connect: Connect) -> None:
    """Reference, response.done: a response that fails says so in its status, and the session goes on."""

    def decide(request: ChatRequest) -> Reply:
        if request.messages[-1]["content"] == "Fail":
            raise RuntimeError
        return Reply("Yes.")

    async with connect(decide) as (line, _):
        await line.create("a", "Fail")
        await line.send("response.create")
        assert (await line.hear("response.done"))["response"]["status"] == "failed"
        await line.create("b")
        await line.send("response.create")
        assert (await line.hear("response.done"))["response"]["status"] == "completed"
