"""A language model for tests: a server in a thread that keeps every request it gets, and answers by a shape's rules.

It refuses what OpenAI refuses. Nothing of an answer depends on earlier requests, so that an agent that has lost
something is answered as somebody who never had it.
"""

import asyncio
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import psutil
from aiohttp import WSCloseCode, web

from agent_worker.offline.chat import CompletionRequest, chunks, read_request
from agent_worker.offline.listening import listen
from agent_worker.offline.realtime import realtime
from agent_worker.offline.realtime_behaviour import RealtimeBehaviour, RealtimeRequest
from agent_worker.offline.refusals import RequestRefusedError, read_body, require_key
from agent_worker.offline.script import Reply
from agent_worker.offline.speech import SpeechRequest, speak
from tests.support.servers import HOST

_LINE = re.compile(r"Say exactly this(, and nothing else| first): ([^\n]*)")
_LOOK_SECONDS = 0.01
_STARTED = 10.0
Message = Mapping[str, Any]


class Rules(Protocol):
    """How a shape's model answers."""

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Decide the answer to the messages of one request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a completion, as it came."""

    at: float
    shape: str
    pid: int
    """Of the process that asked: the job's."""
    messages: list[dict[str, Any]]
    tools: dict[str, Any]
    """The whole definition of each tool, by name."""
    reply: Reply
    refusal: str = ""
    line: str = ""
    """What a realtime model was told to say, word for word."""

    @property
    def instructions(self) -> str:
        """The first message, which says what the agent is."""
        return str(self.messages[0]["content"])

    @property
    def last_words(self) -> str:
        """What the caller said last; nothing where the caller has said nothing."""
        return last_words(self.messages)


def last_words(messages: Sequence[Message]) -> str:
    """What the last message of a user says."""
    return next((str(one["content"]) for one in reversed(messages) if one["role"] == "user"), "")


@dataclass(slots=True)
class _Kept:
    asked: list[Asked] = field(default_factory=list)
    held: set[str] = field(default_factory=set)


class Model:
    """The server, as a context manager. Each shape has a base URL, and rules, of its own."""

    def __init__(self) -> None:
        """Nothing listens before it is entered."""
        self.rules: dict[str, Rules] = {}
        self._kept = _Kept()
        self._numbers = itertools.count(1)
        self._connections: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/{shape}/v1/chat/completions", self._complete)
        app.router.add_post("/{shape}/v1/audio/speech", self._speak)
        app.router.add_get("/{shape}/v1/listen", self._listen)
        # where the plugin looks for it under a base URL of more than one part
        app.router.add_get("/{shape}/v1", self._realtime)
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_STARTED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(_STARTED)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STARTED)
        self._loop.close()

    async def _start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()

    def environment(self, shape: str) -> dict[str, str]:
        """The variables that point a worker's plugins here."""
        base = f"http://{HOST}:{self._runner.addresses[0][1]}/{shape}/v1"
        return {
            "OPENAI_BASE_URL": base,
            "OPENAI_API_KEY": "adopted",
            "DEEPGRAM_API_KEY": "adopted",
            "DEEPGRAM_BASE_URL": f"{base}/listen",
            "LISTEN_URL": f"{base}/listen",
        }

    def asked(self, shape: str, *, since: float = 0.0) -> list[Asked]:
        """The requests of a shape's agents from a moment on, in the order they came."""
        return [one for one in list(self._kept.asked) if one.shape == shape and one.at >= since]

    @contextmanager
    def held(self, words: str) -> Iterator[None]:
        """Keep everybody waiting who asks about these words, for as long as the context lasts."""
        self._kept.held.add(words)
        try:
            yield
        finally:
            self._kept.held.discard(words)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        at, body, shape = time.monotonic(), await request.read(), request.match_info["shape"]
        pid = await asyncio.to_thread(_asker, request)
        try:
            require_key(request.headers)
            wanted = read_request(body)
            told = json.loads(body)
            messages = [_plain(one) for one in told["messages"]]
            _refuse_empty(messages)
        except RequestRefusedError as error:
            self._kept.asked.append(Asked(at, shape, pid, [], {}, Reply(), refusal=str(error)))
            return web.json_response(error.body, status=error.status)
        tools = {one["function"]["name"]: one["function"] for one in told.get("tools") or []}
        reply = self.rules[shape].reply(messages)
        self._kept.asked.append(Asked(at, shape, pid, messages, tools, reply))
        while last_words(messages) in self._kept.held:  # noqa: ASYNC110  # the test is in another thread
            await asyncio.sleep(_LOOK_SECONDS)
        return await self._stream(request, wanted, reply)

    async def _stream(self, request: web.Request, wanted: CompletionRequest, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            for chunk in chunks(f"chatcmpl-{next(self._numbers)}", int(time.time()), wanted, reply):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except ConnectionResetError:
            pass  # who asked has died, or was interrupted
        return response

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        return await speak(request, read_body(SpeechRequest, await request.read()))

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        return await listen(request, self._connections, lambda _text: None)

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        """Talk to a realtime model; each response that is asked for is a request like any other."""
        shape, pid = request.match_info["shape"], await asyncio.to_thread(_asker, request)

        async def answer(asked: RealtimeRequest) -> Reply:
            messages, line = list(asked.messages), _line(asked.instructions)
            reply = Reply(line)
            if not line or "Then answer" in asked.instructions:
                answered = self.rules[shape].reply(messages)
                reply = Reply(f"{line} {answered.text}".strip(), answered.calls)
            self._kept.asked.append(Asked(time.monotonic(), shape, pid, messages, dict(asked.tools), reply, line=line))
            while last_words(messages) in self._kept.held:  # noqa: ASYNC110  # the test is in another thread
                await asyncio.sleep(_LOOK_SECONDS)
            return reply

        return await realtime(request, self._connections, answer, RealtimeBehaviour())

    async def _hang_up(self, _app: web.Application) -> None:
        for connection in list(self._connections):
            await connection.close(code=WSCloseCode.GOING_AWAY)


def _line(instructions: str) -> str:
    """What a realtime model is told to say word for word; empty where it is told no such thing."""
    found = _LINE.search(instructions)
    return found[2] if found else ""


def _asker(request: web.Request) -> int:
    """Find the process at the other end of a connection; 0 where it is gone already."""
    assert request.transport is not None
    port = request.transport.get_extra_info("peername")[1]
    for one in psutil.net_connections(kind="tcp4"):
        if one.laddr and one.laddr.port == port and one.pid is not None:
            return one.pid
    return 0


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its text as one string, and without fields that say nothing."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] if part.get("type") == "text" else str(part) for part in content)
    return {name: value for name, value in {**message, "content": content}.items() if value is not None}


def _refuse_empty(messages: Sequence[Message]) -> None:
    for index, one in enumerate(messages):
        # a tool may have nothing to say
        if not one.get("content") and not one.get("tool_calls") and one["role"] != "tool":
            raise RequestRefusedError(400, "a message is empty", param=f"messages.[{index}].content")
