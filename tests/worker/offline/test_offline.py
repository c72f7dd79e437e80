"""The offline server: OpenAI's protocol as the real client and the real plugin speak it."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from agent_worker.offline import KEPT_REQUESTS, MAX_BODY_BYTES, OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.offline.transcript import Transcript
from tests.support.sessions.fake_conversation import FunctionScript

TOOLS: Any = [{"type": "function", "function": {"name": "look_up_order", "parameters": {"type": "object"}}}]
ARGUMENTS = '{"order_id": "A-1024", "note": "ünïcode"}'


@pytest_asyncio.fixture
async def client(server: OfflineServer) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, pointed at the server."""
    async with _client(server) as connected:
        yield connected


def _client(server: OfflineServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0)


async def _post(server: OfflineServer, body: bytes | str | io.BytesIO, key: str | None = "any") -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.base_url}/chat/completions", data=body, headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_an_answer_streams_in_pieces_and_ends_with_usage(
    client: openai.AsyncOpenAI, transcript: Transcript
) -> None:
    """Words come one by one; then the finish reason; then, because it was asked for, a chunk with the usage."""
    turn = transcript.turns[0]
    stream = await client.chat.completions.create(
        model="gpt-4.1",
        messages=[{"role": "user", "content": turn.user}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == turn.reply
    assert len(pieces) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(turn.user.split())


async def test_no_usage_is_streamed_unless_asked_for(client: openai.AsyncOpenAI) -> None:
    """Every chunk has a choice then."""
    stream = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    assert all([chunk.choices async for chunk in stream])


async def test_tool_calls_stream_in_pieces() -> None:
    """Two parallel calls: the head of each with its id and name, then its arguments in pieces."""
    calls = (RequestedCall("c1", "look_up_order", ARGUMENTS), RequestedCall("c2", "look_up_order", "{}"))
    async with (
        OfflineServer(FunctionScript(lambda _: Reply("One moment.", calls))) as server,
        _client(server) as client,
    ):
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], tools=TOOLS, stream=True
        )
        heads: list[tuple[int, str | None]] = []
        arguments = {0: "", 1: ""}
        finish = None
        async for chunk in stream:
            finish = chunk.choices[0].finish_reason
            for call in chunk.choices[0].delta.tool_calls or []:
                assert call.function is not None
                if call.id:
                    heads.append((call.index, call.id))
                arguments[call.index] += call.function.arguments or ""
    assert heads == [(0, "c1"), (1, "c2")]
    assert arguments == {0: ARGUMENTS, 1: "{}"}
    assert finish == "tool_calls"


async def test_an_answer_comes_whole_without_streaming(client: openai.AsyncOpenAI, transcript: Transcript) -> None:
    """Text and tool calls in one body."""
    messages: Any = [{"role": "user", "content": transcript.turns[0].user}]
    answer = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == transcript.turns[0].reply
    messages += [{"role": "assistant", "content": transcript.turns[0].reply}]
    messages += [{"role": "user", "content": [{"type": "text", "text": transcript.turns[1].user}]}]
    answer = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert json.loads(call.function.arguments) == {"order_id": "A-1024"}
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """LiveKit's plugin warms its connection up with this request."""
    assert "gpt-4.1" in [model.id async for model in client.models.list()]


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_a_missing_key_is_refused(server: OfflineServer, key: str | None) -> None:
    """401 with OpenAI's error body; nothing is recorded."""
    status, body = await _post(server, json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}), key)
    assert status == 401
    assert "API key" in body["error"]["message"]
    assert not server.requests


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "could not parse"),
        (b"\xff\xfe{}", "could not parse"),
        (b"[" * 50_000, "could not parse"),
        (b"[]", "Invalid"),
        (b"{}", "model"),
        (b'{"model": "m", "messages": []}', "messages"),
        (b'{"model": "m", "messages": "hello"}', "messages"),
        (b'{"model": "m", "messages": [{"role": "robot", "content": "x"}]}', "messages[0].role"),
        (b'{"model": "m", "messages": [{"role": "user", "content": 3}]}', "messages[0].content"),
        (b'{"model": "m", "messages": [{"role": "user"}], "stream": "perhaps"}', "stream"),
        (b'{"model": "m", "messages": [{"role": "user"}], "tools": [{"type": "function"}]}', "tools[0].function"),
        (b'{"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}', "role 'tool'"),
    ],
)
async def test_a_bad_request_is_refused_by_field(server: OfflineServer, body: bytes, told: str) -> None:
    """400, the message names the field, and the client library raises its own type for it."""
    status, answer = await _post(server, body)
    assert status == 400
    assert told in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert not server.requests


@pytest.mark.parametrize("followed_by", [[], [{"role": "user", "content": "Well?"}]])
async def test_a_tool_call_without_output_is_refused(client: openai.AsyncOpenAI, followed_by: Any) -> None:
    """As OpenAI does, with the id; a restored history must therefore not have any."""
    call = {"id": "call_7", "type": "function", "function": {"name": "look_up_order", "arguments": "{}"}}
    messages: Any = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}, *followed_by]
    with pytest.raises(openai.BadRequestError, match="did not have response messages: call_7"):
        await client.chat.completions.create(model="m", messages=messages)


async def test_other_errors_have_openais_shape_too(server: OfflineServer) -> None:
    """An unknown path, a wrong method and a body that is too large are JSON, not a page."""
    status, body = await _post(server, io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))
    assert (status, body["error"]["type"]) == (413, "invalid_request_error")
    async with aiohttp.ClientSession() as http, http.get(f"{server.base_url}/nothing") as response:
        assert response.status == 404
        assert "error" in await response.json()


async def test_a_failing_script_is_a_server_error() -> None:
    """500 with the same shape; the next request is answered."""
    fail = True

    def decide(_: ChatRequest) -> Reply:
        if fail:
            message = "broken"
            raise RuntimeError(message)
        return Reply("fine")

    async with OfflineServer(FunctionScript(decide)) as server:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})
        status, answer = await _post(server, body)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        fail = False
        assert (await _post(server, body))[0] == 200


async def test_requests_are_shown_and_bounded(server: OfflineServer) -> None:
    """Other processes read over HTTP what the model was sent; the oldest are forgotten, the count is not."""
    for number in range(KEPT_REQUESTS + 3):
        await _post(server, json.dumps({"model": "m", "messages": [{"role": "user", "content": str(number)}]}))
    url = server.base_url.removesuffix("/v1") + "/requests"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        shown = await response.json()
    assert shown["accepted"] == KEPT_REQUESTS + 3 == server.accepted
    assert len(shown["requests"]) == KEPT_REQUESTS
    assert shown["requests"][-1]["messages"][0]["content"] == str(KEPT_REQUESTS + 2)


async def test_it_runs_alone_and_ends_on_sigterm(transcript_path: Path) -> None:
    """One line of JSON with the two URLs, exit code 0, nothing on stderr."""
    program = [sys.executable, "-m", "agent_worker.offline", "--json", "--transcript", str(transcript_path)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, stdout=pipe, stderr=pipe, cwd=transcript_path.parents[2])
    assert process.stdout is not None
    line = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    async with openai.AsyncOpenAI(base_url=line["base_url"], api_key="any") as client:
        assert [model.id async for model in client.models.list()]
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, errors) == (0, b"")
    assert line["pid"] == process.pid
    assert line["deepgram_url"] == f"{line['base_url']}/listen"


async def test_a_bad_transcript_is_one_line_and_exit_code_2(tmp_path: Path, transcript_path: Path) -> None:
    """No traceback for a mistake in a file."""
    (tmp_path / "bad.json").write_text("{")
    program = [sys.executable, "-m", "agent_worker.offline", "--transcript", str(tmp_path / "bad.json")]
    process = await asyncio.create_subprocess_exec(
        *program, stderr=asyncio.subprocess.PIPE, cwd=transcript_path.parents[2]
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert b"line 1" in errors
    assert errors.count(b"\n") == 1
