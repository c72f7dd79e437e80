"""The server: OpenAI's chat, speech and Realtime API, and Deepgram's live transcription, on one loopback port."""

import asyncio
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from aiohttp import WSCloseCode, web

from agent_worker.listening import Listening
from agent_worker.offline.chat import CompletionRequest, chunks, completion, read_request
from agent_worker.offline.listening import listen
from agent_worker.offline.realtime import RealtimeConnection, realtime
from agent_worker.offline.realtime_behaviour import RealtimeBehaviour, RealtimeRequest
from agent_worker.offline.refusals import RequestRefusedError, read_body, require_key
from agent_worker.offline.script import ChatRequest, Reply, Script
from agent_worker.offline.speech import SpeechRequest, speak

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAX_BODY_BYTES = 16 << 20
KEPT_REQUESTS = 256
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o-mini", "gpt-4o-mini-tts", "tts-1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OfflineServer:
    """The server, which runs inside its ``async with`` block.

    The last 256 of each of these are kept, newest last: `requests`, the accepted bodies of chat requests; `spoken`, the
    texts of speech requests and what realtime models say; `heard`, the final transcripts that are not empty, including
    those of utterances that broke off; `responses`, the input of each response of a realtime session.
    """

    def __init__(
        self,
        script: Script,
        *,
        port: int = 0,
        chunk_pause: timedelta = timedelta(0),
        behaviour: RealtimeBehaviour | None = None,
    ) -> None:
        """Prepare the server; nothing listens yet.

        `port` 0 takes a free port. `chunk_pause` is the time between the chunks of a streamed answer, so that the
        answer can be interrupted. `behaviour` is that of realtime sessions.
        """
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self.spoken: deque[str] = deque(maxlen=KEPT_REQUESTS)
        self.heard: deque[str] = deque(maxlen=KEPT_REQUESTS)
        self.responses: deque[RealtimeRequest] = deque(maxlen=KEPT_REQUESTS)
        self.behaviour = replace(behaviour or RealtimeBehaviour(), heard=self.heard.append, spoken=self.spoken.append)
        """The behaviour of realtime sessions that begin from now on."""
        self._script = script
        self._chunk_pause = chunk_pause.total_seconds()
        self._numbers = itertools.count(1)
        self._accepted = 0
        self._connections: set[web.WebSocketResponse] = set()
        self._sessions: set[RealtimeConnection] = set()
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_openai])
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/audio/speech", self._speak)
        app.router.add_get("/v1/listen", self._listen)
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/requests", self._show_requests)
        app.on_shutdown.append(self._hang_up)
        self._listening = Listening(app, host=HOST, port=port, patience=1.0)

    @property
    def base_url(self) -> str:
        """The ``base_url`` for OpenAI's clients. Raises `RuntimeError` before the server listens."""
        return f"http://{HOST}:{self._listening.port}/v1"

    @property
    def deepgram_url(self) -> str:
        """The ``base_url`` for Deepgram's plugin. Raises `RuntimeError` before the server listens."""
        return f"{self.base_url}/listen"

    @property
    def accepted(self) -> int:
        """The number of completion requests that were accepted, including those no longer kept."""
        return self._accepted

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken."""
        await self._listening.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening. Answers that are under way get one second."""
        await self._listening.__aexit__(kind, error, trace)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        require_key(request.headers)
        body = await request.read()
        wanted = read_request(body)
        self.requests.append(json.loads(body))
        self._accepted += 1
        reply = self._script.reply(wanted.to_chat())
        identity, created = f"chatcmpl-offline-{next(self._numbers)}", int(time.time())
        if wanted.stream:
            return await self._stream(request, identity, wanted, reply)
        return web.json_response(completion(identity, created, wanted, reply))

    async def _stream(
        self, request: web.Request, identity: str, wanted: CompletionRequest, reply: Reply
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            for chunk in chunks(identity, int(time.time()), wanted, reply):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                if self._chunk_pause:
                    await asyncio.sleep(self._chunk_pause)
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except ConnectionResetError:
            # an interrupted agent hangs up in the middle of an answer; that is what barge-in looks like from here
            logger.debug("the client hung up during an answer")
        return response

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        require_key(request.headers)
        wanted = read_body(SpeechRequest, await request.read())
        self.spoken.append(wanted.input)
        return await speak(request, wanted)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        return await listen(request, self._connections, self.heard.append)

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        return await realtime(request, self._connections, self.respond, self.behaviour, sessions=self._sessions)

    async def respond(self, request: RealtimeRequest) -> Reply:
        """Keep the request in `responses`, and return what the script answers."""
        self.responses.append(request)
        wanted = ChatRequest(request.messages, frozenset(request.tools), tools_allowed=request.tools_allowed)
        return self._script.reply(wanted)

    async def expire(self) -> None:
        """End every realtime session as if its time were up."""
        for session in list(self._sessions):
            await session.expire()

    async def hang_up(self) -> None:
        """End every WebSocket connection, as a provider does that goes away for a moment."""
        for connection in list(self._connections):
            await connection.close(code=WSCloseCode.GOING_AWAY)

    async def _hang_up(self, _app: web.Application) -> None:
        await self.hang_up()

    async def _models(self, request: web.Request) -> web.Response:
        require_key(request.headers)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "offline"} for name in MODELS]
        return web.json_response({"object": "list", "data": models})

    async def _show_requests(self, _request: web.Request) -> web.Response:
        shown = {
            "accepted": self._accepted,
            "requests": list(self.requests),
            "spoken": list(self.spoken),
            "heard": list(self.heard),
        }
        return web.json_response(shown)


@web.middleware
async def _errors_as_openai(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestRefusedError as error:
        return web.json_response(error.body, status=error.status)
    except web.HTTPException as error:
        refused = RequestRefusedError(error.status, error.text or error.reason)
        return web.json_response(refused.body, status=error.status)
    except Exception:
        logger.exception("the script failed")
        refused = RequestRefusedError(500, "The server had an error while processing your request.")
        return web.json_response(refused.body, status=500)
