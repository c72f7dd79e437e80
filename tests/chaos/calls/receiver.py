"""A receiver of webhooks, and a back end, in a process that misbehaves now and then: `receiver PORT JOURNAL SHARE`.

It writes a line for each request, before it answers. Whatever it does then, or whoever kills it, the line is there.
"""

import asyncio
import json
import os
import random
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from conversation_actors.backend.models import DELIVERIES
from conversation_actors.destinations import BACKEND_NAME
from tests.support.receivers import SECRET

BEGUN = "taking webhooks"
BASE, TOKEN = "/back", "the-back-ends-token"
WEBHOOKS = "webhooks"
LATE_SECONDS = 2.5
"""Longer than a deliverer waits for an answer here."""
_BEHAVIOURS = ("500", "410", "cut", "late")


def open_socket(port: int) -> socket.socket:
    """Bind to a port which another process may share: whoever keeps it bound keeps strangers from it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


class Receiver:
    """Takes requests; a `share` of them it refuses, or takes without an answer that arrives."""

    def __init__(self, journal: int, share: float) -> None:
        """Write to the file descriptor `journal`."""
        self._journal, self._share = journal, share
        self._dice = random.Random()

    async def take_webhook(self, request: web.Request) -> web.StreamResponse:
        """Verify a webhook, and take it."""
        event = Webhook(SECRET).verify(await request.read(), dict(request.headers))
        return await self._take(request, WEBHOOKS, request.headers["webhook-id"], event["type"], event["data"])

    async def take_delivery(self, request: web.Request) -> web.StreamResponse:
        """Hold what a back end is sent against the document, and take it."""
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        body = await request.read()
        DELIVERIES[request.path.removeprefix(BASE)].model_validate_json(body)
        told = json.loads(body)
        return await self._take(request, BACKEND_NAME, request.headers["Idempotency-Key"], told["type"], told)

    async def _take(
        self, request: web.Request, to: str, key: str, kind: str, data: Mapping[str, Any]
    ) -> web.StreamResponse:
        """Write down what becomes of a request, and answer as was written."""
        answer = self._dice.choice(_BEHAVIOURS) if self._dice.random() < self._share else "ok"
        line = {"to": to, "id": key, "type": kind, "data": data, "answer": answer}
        os.write(self._journal, json.dumps(line).encode() + b"\n")  # at once, and whole, though others write too
        if answer.isdigit():
            return web.Response(status=int(answer))
        if answer == "cut" and request.transport is not None:
            request.transport.abort()
        if answer == "late":
            await asyncio.sleep(LATE_SECONDS)
        return web.Response()


async def main(port: int, path: Path, share: float) -> None:
    """Take webhooks until killed."""
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    application = web.Application(client_max_size=32 << 20)
    receiver = Receiver(journal, share)
    application.router.add_post("/hook", receiver.take_webhook)
    application.router.add_post(BASE + "/{path:.*}", receiver.take_delivery)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, open_socket(port)).start()
    sys.stderr.write(f"{BEGUN}\n")
    sys.stderr.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
