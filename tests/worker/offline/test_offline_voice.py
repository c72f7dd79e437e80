"""The offline server's speech and transcription, as LiveKit's real OpenAI and Deepgram plugins speak to them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import numpy as np
import openai
import pytest
import pytest_asyncio
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError, stt, utils
from livekit.plugins import deepgram
from livekit.plugins import openai as openai_plugin

from agent_worker.offline import KEPT_REQUESTS, OfflineServer, TranscriptScript, encode
from agent_worker.offline.speech import MAX_INPUT_CHARACTERS, SAMPLE_RATE
from agent_worker.offline.tones import SYMBOL_SECONDS, seconds
from agent_worker.offline.transcript import Transcript

SENTENCE = "Your order, A-1024, comes on Friday — zwischen 9 und 12!"
RATE = 16_000
ONCE = APIConnectOptions(max_retry=0, timeout=10)
LISTEN = {"encoding": "linear16", "sample_rate": str(RATE), "interim_results": "true", "vad_events": "true"}
TOKEN = {"Authorization": "Token any"}
BEARER = {"Authorization": "Bearer any"}
SPEECH = {"model": "tts-1", "input": "Hello", "voice": "ash", "response_format": "pcm"}

UPGRADE = (
    "GET /v1/listen?{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token any\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

Kind = stt.SpeechEventType
Message = dict[str, Any]


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client, for what the plugins do not do."""
    async with aiohttp.ClientSession() as session:
        yield session


@asynccontextmanager
async def _voice(server: OfflineServer, model: str = "tts-1", **options: Any) -> AsyncIterator[openai_plugin.TTS]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0, **options) as client:
        yield openai_plugin.TTS(model=model, voice="ash", client=client, response_format="pcm")


async def _said(voice: openai_plugin.TTS, text: str) -> list[rtc.AudioFrame]:
    async with voice.synthesize(text, conn_options=ONCE) as stream:
        return [event.frame async for event in stream]


async def _heard(server: OfflineServer, frames: list[rtc.AudioFrame], key: str = "any") -> list[stt.SpeechEvent]:
    """Everything Deepgram's plugin says about this sound."""
    ear = deepgram.STT(api_key=key, base_url=server.deepgram_url)
    async with ear.stream(conn_options=ONCE) as stream:
        for frame in frames:
            stream.push_frame(frame)
        stream.end_input()
        return [event async for event in stream if event.type is not Kind.RECOGNITION_USAGE]


def _finals(events: list[stt.SpeechEvent]) -> list[str]:
    return [event.alternatives[0].text for event in events if event.type is Kind.FINAL_TRANSCRIPT]


def _bare(word: str) -> str:
    return word.casefold().strip(",!")


def _frame(samples: Any, rate: int = RATE) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate, 1, len(samples))


async def _until(socket: aiohttp.ClientWebSocketResponse, *, final: bool = True) -> list[Message]:
    """What the server says up to a final result."""
    messages: list[Message] = []
    while not messages or messages[-1].get("is_final", False) is not final:
        messages.append(await socket.receive_json(timeout=10))
    return messages


def _text(message: Message) -> str:
    return str(message["channel"]["alternatives"][0]["transcript"])


@pytest.mark.parametrize("model", ["tts-1", "gpt-4o-mini-tts"])
async def test_what_one_plugin_says_the_other_hears(server: OfflineServer, model: str) -> None:
    """Letter by letter, at 24 kHz out and 16 kHz in, whether the sound came bare or in events."""
    async with utils.http_context.open(), _voice(server, model=model) as voice:
        frames = await _said(voice, SENTENCE)
        events = await _heard(server, frames)

    assert sum(frame.duration for frame in frames) == pytest.approx(seconds(SENTENCE), abs=0.05)
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == (Kind.START_OF_SPEECH, Kind.END_OF_SPEECH)
    assert kinds.count(Kind.INTERIM_TRANSCRIPT) == len(SENTENCE) // 10
    assert _finals(events) == [SENTENCE]
    assert list(server.spoken) == list(server.heard) == [SENTENCE]


async def test_words_have_their_times(server: OfflineServer) -> None:
    """Each word once, in order, as long as it took to say it; certain, because the checksum was right."""
    async with utils.http_context.open():
        events = await _heard(server, [_frame(encode(SENTENCE, sample_rate=RATE))])
    (data,) = (event.alternatives[0] for event in events if event.type is Kind.FINAL_TRANSCRIPT)

    assert data.confidence == 1.0
    # the plugin of livekit-agents 1.6 passes the words on without their punctuation and capitals
    assert [_bare(str(word)) for word in data.words or []] == [_bare(word) for word in SENTENCE.split()]
    times = [time for word in data.words or [] for time in (word.start_time, word.end_time) if isinstance(time, float)]
    assert len(times) == 2 * len(SENTENCE.split())
    assert times == sorted(times)
    assert data.start_time == pytest.approx(0.12, abs=0.03)
    assert times[-1] == pytest.approx(0.12 + len(SENTENCE.encode()) * SYMBOL_SECONDS, abs=0.03)


async def test_two_callers_do_not_hear_each_other(server: OfflineServer) -> None:
    """Both speak and listen at the same time, on connections of their own."""
    async with utils.http_context.open(), _voice(server) as voice:
        said = ["I am the first caller.", "And I, the second one, say something else."]
        sounds = await asyncio.gather(*(_said(voice, text) for text in said))
        events = await asyncio.gather(*(_heard(server, frames) for frames in sounds))

    assert [_finals(each) for each in events] == [[text] for text in said]
    assert sorted(server.heard) == sorted(said)


async def test_one_stream_hears_many_utterances(server: OfflineServer) -> None:
    """With and without silence in between."""
    said = ["One.", "Two!", "Three?"]
    pause = np.zeros(RATE // 2, np.int16)
    sound = np.concatenate(
        [part for text in said for part in (encode(text, sample_rate=RATE), pause[: 99 * len(text)])]
    )
    async with utils.http_context.open():
        assert _finals(await _heard(server, [_frame(sound)])) == said


async def test_an_utterance_that_breaks_off_is_heard_as_far_as_it_went(server: OfflineServer) -> None:
    """A final transcript with less confidence, an end of speech, and the next utterance is whole."""
    cut = encode("this is never said to its end", sample_rate=RATE)[: RATE * 8 // 10]
    sound = np.concatenate([cut, np.zeros(RATE * 18 // 10, np.int16), encode("the next one", sample_rate=RATE)])
    async with utils.http_context.open():
        events = await _heard(server, [_frame(sound)])

    broken, whole = _finals(events)
    assert (broken[:-1], whole) == ("this is never"[: len(broken) - 1], "the next one")
    assert len(broken) >= 13
    (data, _) = (event.alternatives[0] for event in events if event.type is Kind.FINAL_TRANSCRIPT)
    assert data.confidence == 0.5
    assert [event.type for event in events].count(Kind.END_OF_SPEECH) == 2
    assert list(server.heard) == [broken, whole]


async def test_sound_that_is_no_code_has_no_transcript(server: OfflineServer) -> None:
    """Noise is not speech to it, nor would a voice be."""
    noise = np.random.default_rng(1).normal(0, 8000, 2 * RATE).astype(np.int16)
    async with utils.http_context.open():
        assert await _heard(server, [_frame(noise)]) == []
    assert not server.heard


async def test_plugins_without_a_key_are_refused(server: OfflineServer) -> None:
    """401 from both, as an error; nothing is recorded."""
    async with utils.http_context.open(), _voice(server, default_headers={"Authorization": "Basic any"}) as voice:
        with pytest.raises(APIStatusError) as speech:
            await _said(voice, "Hello")
        # in livekit-agents 1.6 Deepgram's plugin lets aiohttp's own error through
        with pytest.raises((APIStatusError, aiohttp.WSServerHandshakeError), match="401"):
            await _heard(server, [_frame(encode("Hello", sample_rate=RATE))], key=" ")
    assert speech.value.status_code == 401
    assert not server.spoken
    assert not server.heard


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"input": ""}, "input"),
        ({"input": "x" * (MAX_INPUT_CHARACTERS + 1)}, "input"),
        ({"input": None}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"response_format": "mp3"}, "response_format"),
        ({"response_format": None}, "response_format"),
        ({"speed": 9}, "speed"),
        ({"stream_format": "video"}, "stream_format"),
        ({"voice": None}, "voice"),
        ({"model": ""}, "model"),
    ],
)
async def test_a_bad_speech_request_is_refused_by_field(
    server: OfflineServer, http: aiohttp.ClientSession, change: Message, told: str
) -> None:
    """400 with OpenAI's error body; nothing is recorded."""
    body = json.dumps({**SPEECH, **change})
    async with http.post(f"{server.base_url}/audio/speech", data=body, headers=BEARER) as response:
        error = (await response.json())["error"]
    assert (response.status, error["type"], error["param"]) == (400, "invalid_request_error", told)
    assert not server.spoken


async def test_openais_own_client_gets_the_sound_in_pieces(server: OfflineServer) -> None:
    """The longest text begins at once, and need not be taken whole: an interrupted agent hangs up."""
    async with (
        openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="ash", input="x" * MAX_INPUT_CHARACTERS, response_format="pcm"
        ) as answer,
    ):
        assert answer.headers["content-type"] == "audio/pcm"
        first = await anext(aiter(answer.iter_bytes()))
    assert 0 < len(first) < seconds("x" * MAX_INPUT_CHARACTERS) * SAMPLE_RATE
    assert server.spoken[0] == "x" * MAX_INPUT_CHARACTERS


async def test_events_carry_the_same_sound(server: OfflineServer, http: aiohttp.ClientSession) -> None:
    """``stream_format`` sse: base64 deltas, then the usage."""
    url = f"{server.base_url}/audio/speech"
    async with http.post(url, json={**SPEECH, "stream_format": "sse"}, headers=BEARER) as response:
        lines = (await response.text()).split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    sound = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert sound == encode("Hello", sample_rate=SAMPLE_RATE).tobytes()
    assert (events[-1]["type"], events[-1]["usage"]["input_tokens"]) == ("speech.audio.done", 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoding": "opus"}, "encoding"),
        ({"encoding": None}, "encoding"),
        ({"sample_rate": "fast"}, "sample_rate"),
        ({"sample_rate": "7999"}, "sample_rate"),
        ({"sample_rate": None}, "sample_rate"),
        ({"channels": "0"}, "channels"),
        ({"interim_results": "perhaps"}, "interim_results"),
    ],
)
async def test_a_bad_listening_request_is_refused_by_field(
    server: OfflineServer, http: aiohttp.ClientSession, change: Message, told: str
) -> None:
    """400 before the connection is a websocket, with Deepgram's error body."""
    query = {name: value for name, value in {**LISTEN, **change}.items() if value is not None}
    async with http.get(server.deepgram_url, params=query, headers=TOKEN) as response:
        error = await response.json()
    assert (response.status, error["err_code"]) == (400, "INVALID_QUERY_PARAMETER")
    assert error["err_msg"].startswith(f"{told}:")
    assert error["request_id"]


@pytest.mark.parametrize("key", ["", "Token ", "Bearer any", "any"])
async def test_listening_takes_a_token_only(server: OfflineServer, http: aiohttp.ClientSession, key: str) -> None:
    """401 with Deepgram's error body."""
    async with http.get(server.deepgram_url, params=LISTEN, headers={"Authorization": key}) as response:
        assert (response.status, (await response.json())["err_code"]) == (401, "INVALID_AUTH")


async def test_listening_speaks_deepgrams_protocol(server: OfflineServer, http: aiohttp.ClientSession) -> None:
    """Start, interims, final, then metadata and a close; a sample may be split between two messages."""
    sound = encode("twenty characters ok", sample_rate=RATE).tobytes()
    async with http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN) as socket:
        await socket.send_str('{"type": "KeepAlive"}')
        for start in range(0, len(sound), 1001):
            await socket.send_bytes(sound[start : start + 1001])
        started, *interims, final = await _until(socket)
        await socket.send_str('{"type": "CloseStream"}')
        metadata = await socket.receive_json(timeout=10)
        assert (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    assert (started["type"], started["channel"]) == ("SpeechStarted", [0])
    assert [_text(each) for each in interims] == ["twenty cha", "twenty characters ok"]
    assert not any(each["is_final"] or each["speech_final"] for each in interims)
    assert (_text(final), final["speech_final"], final["from_finalize"]) == ("twenty characters ok", True, False)
    assert metadata["type"] == "Metadata"
    assert metadata["request_id"] == final["metadata"]["request_id"]
    assert metadata["duration"] == pytest.approx(len(sound) / 2 / RATE)


async def test_only_what_was_asked_for_is_sent(server: OfflineServer, http: aiohttp.ClientSession) -> None:
    """Without events and interim results there are final ones; two channels are mixed."""
    query = {"encoding": "linear16", "sample_rate": str(RATE), "channels": "2"}
    sound = np.repeat(encode("only the final result", sample_rate=RATE), 2)
    sound[1::2] = 0
    async with http.ws_connect(server.deepgram_url, params=query, headers=TOKEN) as socket:
        await socket.send_bytes(sound.tobytes())
        assert [_text(each) for each in await _until(socket)] == ["only the final result"]


async def test_finalize_answers_without_waiting(server: OfflineServer, http: aiohttp.ClientSession) -> None:
    """What was understood so far is final at once; the stream goes on."""
    sound = encode("not to the end", sample_rate=RATE)
    async with http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN) as socket:
        await socket.send_bytes(sound[: RATE // 2].tobytes())
        await socket.send_str('{"type": "Finalize"}')
        final = (await _until(socket))[-1]
        assert final["from_finalize"]
        assert "not to the end".startswith(_text(final)[:-1])
        await socket.send_bytes(sound.tobytes())
        assert _text((await _until(socket))[-1]) == "not to the end"


@pytest.mark.parametrize("message", ["{", "[]", "{}", '{"type": "Sing"}', '{"type": []}', "[" * 50_000])
async def test_an_unknown_message_ends_the_connection(
    server: OfflineServer, http: aiohttp.ClientSession, message: str
) -> None:
    """With a policy violation, not with a traceback."""
    async with http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN) as socket:
        await socket.send_str(message)
        assert (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize("answered", [False, True])
async def test_a_connection_that_vanishes_leaves_nothing(
    server: OfflineServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, *, answered: bool
) -> None:
    """As that of an agent that is killed, before or after the server's answer; nobody else notices."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server.base_url).port)
    writer.write(UPGRADE.format(urlencode(LISTEN)).encode())
    await writer.drain()
    if answered:
        assert b"101" in await reader.readline()
        # the head of a frame whose rest never comes
        writer.write(bytes([0x82, 0xFE, 0x03]))
        await writer.drain()
    writer.transport.abort()
    async with http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN) as socket:
        await socket.send_bytes(encode("I am still here", sample_rate=RATE).tobytes())
        assert _text((await _until(socket))[-1]) == "I am still here"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_open_connection_does_not_keep_the_server_from_ending(transcript: Transcript) -> None:
    """It is told that the server is going away."""
    async with aiohttp.ClientSession() as http:
        async with asyncio.timeout(10), OfflineServer(TranscriptScript(transcript)) as server:
            socket = await http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN)
            await socket.send_bytes(encode("going", sample_rate=RATE).tobytes())
            assert _text((await _until(socket))[-1]) == "going"
        message = await socket.receive(timeout=10)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)


async def test_what_was_said_and_heard_is_shown_and_bounded(server: OfflineServer, http: aiohttp.ClientSession) -> None:
    """Other processes read it over HTTP; newest last, the oldest forgotten."""
    for number in range(KEPT_REQUESTS + 2):
        body = {**SPEECH, "input": str(number)}
        async with http.post(f"{server.base_url}/audio/speech", json=body, headers=BEARER) as response:
            await response.read()
    async with http.ws_connect(server.deepgram_url, params=LISTEN, headers=TOKEN) as socket:
        for text in ("first", "second"):
            await socket.send_bytes(encode(text, sample_rate=RATE).tobytes())
            await _until(socket)
    async with http.get(server.base_url.removesuffix("/v1") + "/requests") as response:
        shown = await response.json()
    assert (len(shown["spoken"]), shown["spoken"][-1]) == (KEPT_REQUESTS, str(KEPT_REQUESTS + 1))
    assert shown["heard"] == ["first", "second"]
    assert shown["accepted"] == 0
