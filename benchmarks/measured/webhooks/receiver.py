"""A receiver of webhooks that notes how late each of them is, in a thread of its own."""

import asyncio
import base64
import json
import threading
import time
from datetime import datetime
from types import TracebackType
from typing import Self

from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, no less").decode()
_TURN = "turn.completed"


class Receiver:
    """Runs while the block does. What it has noted is of the time since it was cleared."""

    def __init__(self) -> None:
        """Listen to nothing yet."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lags: dict[str, float] = {}
        self._arrivals: list[float] = []
        self._port = 0

    def __enter__(self) -> Self:
        """Listen on a port of its own."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Listen no more."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def variables(self) -> dict[str, str]:
        """What an archiver is told, so that it delivers to this receiver."""
        return {
            "CONVERSATION_WEBHOOK_URL": f"http://127.0.0.1:{self._port}/hook",
            "CONVERSATION_WEBHOOK_SECRET": SECRET,
            "CONVERSATION_WEBHOOK_PRIVATE_NETWORKS": "true",
        }

    @property
    def turns(self) -> int:
        """How many turns have arrived; repeats do not count."""
        return len(self._lags)

    @property
    def lags(self) -> list[float]:
        """Milliseconds from each turn, by its owner's clock, to its first arrival."""
        return list(self._lags.values())

    @property
    def rate(self) -> float:
        """Turns per second, from the first to the last one that has arrived."""
        return (len(self._arrivals) - 1) / (self._arrivals[-1] - self._arrivals[0])

    def clear(self) -> None:
        """Forget what has arrived."""
        self._lags, self._arrivals = {}, []

    async def _listen(self) -> None:
        application = web.Application()
        application.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    async def _take(self, request: web.Request) -> web.Response:
        now, event = time.time(), json.loads(await request.read())
        name = request.headers["webhook-id"]
        if event["type"] == _TURN and name not in self._lags:
            self._lags[name] = (now - datetime.fromisoformat(event["timestamp"]).timestamp()) * 1000
            self._arrivals.append(now)
        return web.Response()
