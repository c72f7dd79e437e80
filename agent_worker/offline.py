"""A local server that speaks OpenAI's streaming chat-completions protocol, for the real OpenAI plugin.

It is bundled so that demos and tests run without an account and without a network. It is not a model: it
answers from a `Script`, by default a transcript file, deterministically and from the request alone.

    python -m agent_worker.offline --transcript tests/data/transcript.json

prints one line of JSON with its base URL and ends on SIGTERM. It listens on the loopback interface only;
any bearer key is accepted, a missing one is not. ``GET /requests`` shows the requests it got, newest last.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from agent_worker.protocol import (
    CompletionRequest,
    RequestRefusedError,
    chunks,
    completion,
    read_request,
)
from agent_worker.script import Reply, Script, TranscriptScript
from agent_worker.transcript import load
from conversation_actors.errors import InvalidInputError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAX_BODY_BYTES = 16 << 20
KEPT_REQUESTS = 256
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o-mini")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OfflineServer:
    """The server, from ``async with`` to its end. `requests` are the accepted request bodies, the last 256."""

    def __init__(self, script: Script, *, port: int = 0, chunk_pause: timedelta = timedelta(0)) -> None:
        """`port` 0 takes a free one. `chunk_pause` stretches a streamed answer, so that it can be interrupted."""
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._script = script
        self._port = port
        self._chunk_pause = chunk_pause.total_seconds()
        self._numbers = itertools.count(1)
        self._accepted = 0
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_openai])
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/requests", self._show_requests)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    @property
    def base_url(self) -> str:
        """What OpenAI's clients take as ``base_url``. Raises `RuntimeError` before the server listens."""
        if not self._runner.addresses:
            message = "the server is not running"
            raise RuntimeError(message)
        return f"http://{HOST}:{self._runner.addresses[0][1]}/v1"

    @property
    def accepted(self) -> int:
        """How many completion requests were accepted, also those no longer kept."""
        return self._accepted

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; answers under way get one second."""
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        _require_key(request)
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

    async def _models(self, request: web.Request) -> web.Response:
        _require_key(request)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "offline"} for name in MODELS]
        return web.json_response({"object": "list", "data": models})

    async def _show_requests(self, _request: web.Request) -> web.Response:
        return web.json_response({"accepted": self._accepted, "requests": list(self.requests)})


def _require_key(request: web.Request) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        raise RequestRefusedError(401, message)


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


async def _serve(script: Script, port: int, chunk_pause: timedelta) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with OfflineServer(script, port=port, chunk_pause=chunk_pause) as server:
        print(json.dumps({"base_url": server.base_url, "pid": os.getpid()}), flush=True)  # noqa: T201  # the interface
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT. Returns the exit code; 2 for a bad transcript."""
    parser = argparse.ArgumentParser(
        prog="python -m agent_worker.offline", description="An offline stand-in for OpenAI."
    )
    parser.add_argument("--transcript", type=Path, required=True, help="the call to follow (JSON)")
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--chunk-pause", type=float, default=0.0, metavar="SECONDS", help="between streamed chunks")
    chosen = parser.parse_args(arguments)
    if not 0.0 <= chosen.chunk_pause < float("inf"):
        parser.error("--chunk-pause: must be zero or more seconds")
    try:
        script = TranscriptScript(load(chosen.transcript))
        asyncio.run(_serve(script, chosen.port, timedelta(seconds=chosen.chunk_pause)))
    except (InvalidInputError, OSError, OverflowError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
