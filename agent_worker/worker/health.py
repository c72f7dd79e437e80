"""``GET /health``: whether what a worker needs can be reached."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from agent_worker.listening import Listening
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.rooms import Rooms
from conversation_actors import Heartbeats, Settings, check_cluster
from conversation_actors.errors import ConversationError, OperatorError, RetryableError

logger = logging.getLogger(__name__)

_WELL = "ok"


class HealthPortError(ConversationError):
    """The port of the health endpoint is somebody else's. It may be free later."""


class Health:
    """Asks Ray, Redis and LiveKit, all at once, each for at most three seconds, and at most once a second.

    What it tells names no host, port or URL, as it is told to everybody who can reach it. The worker's log has the
    reasons with their addresses.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        rooms: Rooms,
        settings: Settings,
        *,
        jobs: Callable[[], int],
        draining: Callable[[], bool],
        failures: Callable[[], Mapping[str, int]] = dict,
        timing: Timing = TIMING,
    ) -> None:
        """`jobs`: calls of this worker; `draining`: whether it takes no more; `failures`: what was swallowed so far."""
        self._checks: dict[str, Callable[[], Awaitable[object]]] = {
            "ray": lambda: check_cluster(settings),
            "redis": lambda: heartbeats.find("health"),
            "livekit": rooms.check,
        }
        self._jobs, self._draining, self._failures, self._timing = jobs, draining, failures, timing
        self._look: asyncio.Task[dict[str, str]] | None = None
        self._looked = 0.0
        self._logged: dict[str, str] = {}

    async def report(self) -> dict[str, Any]:
        """``{"ok": bool, "ray" | "redis" | "livekit": "ok" or what is wrong, "jobs": int, "draining": bool, …}``.

        ``"failures"`` counts, by background task, what went wrong in it since the worker began. They are no reason to
        be unwell.
        """
        told = await self._answers()
        is_well = all(answer == _WELL for answer in told.values())
        failures = dict(self._failures())
        return {"ok": is_well, **told, "jobs": self._jobs(), "draining": self._draining(), "failures": failures}

    async def _answers(self) -> dict[str, str]:
        """The answers, by whom they are of: those of the look that is under way, or of one a moment ago."""
        look = self._look
        if look is None or (look.done() and time.monotonic() - self._looked >= self._timing.health_fresh):
            look = self._look = asyncio.create_task(self._ask_all())
        return await asyncio.shield(look)  # others may wait for it too

    async def _ask_all(self) -> dict[str, str]:
        answers = await asyncio.gather(*(self._ask(name) for name in self._checks))
        self._looked = time.monotonic()
        return dict(zip(self._checks, answers, strict=True))

    async def _ask(self, name: str) -> str:
        try:
            async with asyncio.timeout(self._timing.health):
                await self._checks[name]()
        except TimeoutError as error:
            answer, reason = f"no answer in {self._timing.health:g} s", str(error)
        except Exception as error:  # noqa: BLE001  # a check that is broken is no good sign either, and hides no other
            answer, reason = _told(error), str(error)
        else:
            answer, reason = _WELL, ""
        self._log(name, answer, reason)
        return answer

    def _log(self, name: str, answer: str, reason: str) -> None:
        """Log what has changed since the last look."""
        if answer == self._logged.get(name, _WELL):
            return
        self._logged[name] = answer
        if answer == _WELL:
            logger.info("a health check is well again", extra={"check": name})
        else:
            logger.warning("a health check fails", extra={"check": name, "reason": reason or answer})


def _told(error: Exception) -> str:
    """The kind of a trouble, without its text: that may name hosts."""
    match error:
        case RetryableError():
            what = "cannot be reached"
        case OperatorError():
            what = "a person has to look"
        case ConversationError():
            what = "refuses"
        case _:
            what = "fails"
    return f"{what} ({type(error).__name__})"


class HealthServer:
    """Serves a `Health`, from ``async with`` to its end: 200 where all is well, else 503."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        """`port` 0 takes a free one."""
        self._health, self._host, self._port = health, host, port
        app = web.Application()
        app.router.add_get("/health", self._answer)
        self._listening = Listening(app, host=host, port=port)

    @property
    def url(self) -> str:
        """Where it listens. Raises `RuntimeError` before it does."""
        return f"http://{self._host}:{self._listening.port}"

    async def __aenter__(self) -> Self:
        """Listen. Raises `HealthPortError` if the port is taken."""
        try:
            await self._listening.__aenter__()
        except OSError as error:
            message = f"health_port: {self._port} cannot be listened on ({error.strerror}); set AGENT_HEALTH_PORT"
            raise HealthPortError(message) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._listening.__aexit__(kind, error, trace)

    async def _answer(self, _request: web.Request) -> web.Response:
        report = await self._health.report()
        return web.json_response(report, status=200 if report["ok"] else 503)
