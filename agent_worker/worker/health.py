"""``GET /health``: whether what a worker needs can be reached."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from agent_worker.worker.rooms import Rooms
from conversation_actors import Heartbeats, Settings, check_cluster
from conversation_actors.errors import ConversationError

_SECONDS = 3.0


class HealthPortError(ConversationError):
    """The port of the health endpoint is somebody else's. It may be free later."""


class Health:
    """Asks Ray, Redis and LiveKit, all at once, each for at most three seconds."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        rooms: Rooms,
        store: Settings,
        *,
        jobs: Callable[[], int],
        draining: Callable[[], bool],
        failures: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`jobs`: calls of this worker; `draining`: whether it takes no more; `failures`: what was swallowed so far."""
        self._checks: dict[str, Callable[[], Awaitable[object]]] = {
            "ray": lambda: check_cluster(store),
            "redis": lambda: heartbeats.find("health"),
            "livekit": rooms.check,
        }
        self._jobs, self._draining, self._failures = jobs, draining, failures

    async def report(self) -> dict[str, Any]:
        """``{"ok": bool, "ray" | "redis" | "livekit": "ok" or what is wrong, "jobs": int, "draining": bool, …}``.

        ``"failures"`` counts, by background task, what went wrong in it since the worker began. They are no reason to
        be unwell.
        """
        answers = await asyncio.gather(*(_answer(check) for check in self._checks.values()))
        told = dict(zip(self._checks, answers, strict=True))
        is_well = all(answer == "ok" for answer in answers)
        failures = dict(self._failures())
        return {"ok": is_well, **told, "jobs": self._jobs(), "draining": self._draining(), "failures": failures}


async def _answer(check: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer in {_SECONDS:g} s"
    except ConversationError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # a check that is broken is no good sign either, and hides no other
        return type(error).__name__
    return "ok"


class HealthServer:
    """Serves a `Health`, from ``async with`` to its end: 200 where all is well, else 503."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        """`port` 0 takes a free one."""
        self._health, self._host, self._port = health, host, port
        app = web.Application()
        app.router.add_get("/health", self._answer)
        self._runner = web.AppRunner(app, access_log=None)

    @property
    def url(self) -> str:
        """Where it listens. Raises `RuntimeError` before it does."""
        if not self._runner.addresses:
            message = "the server is not running"
            raise RuntimeError(message)
        return f"http://{self._host}:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        """Listen. Raises `HealthPortError` if the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            message = f"health_port: {self._port} cannot be listened on ({error.strerror}); set AGENT_HEALTH_PORT"
            raise HealthPortError(message) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        report = await self._health.report()
        return web.json_response(report, status=200 if report["ok"] else 503)
