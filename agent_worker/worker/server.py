"""The worker process: LiveKit's `AgentServer`, with a failure detector beside it.

A worker has job processes, each of which is one call. They are forked from a server process that has
imported everything already, and have joined Ray before they get a call.
"""

import asyncio
import functools
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from livekit.agents import AgentServer
from livekit.agents.job import RunningJobInfo

from agent_worker.environment import instance_from_environment, registration_from_environment
from agent_worker.failures import Failures
from agent_worker.settings import CallSettings, LiveKitSettings, RoomSettings, TakeoverSettings, WorkerSettings
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.application import Entrypoint, begin
from agent_worker.worker.failure_detector import FailureDetector, JobSource
from agent_worker.worker.health import Health, HealthServer
from agent_worker.worker.no_successor import say_given_up, say_nobody_there
from agent_worker.worker.preparation import Preparation
from agent_worker.worker.registration import Registrar
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.takeover import Takeover
from conversation_actors import Heartbeats, Settings

logger = logging.getLogger(__name__)

PRELOADED = ("ray", "agent_worker.call.attach", "conversation_actors.runtime")
"""Imported once, in the process that the job processes are forked from: they share the memory."""
_SETUP_SECONDS = 15.0
_DEVELOPMENT_CALLS = 20


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is made of."""

    is_development: bool = False
    application: AgentServer | None = None
    """The application's own server; None: one of ours."""
    entrypoint: Entrypoint | None = None
    """The session function of a server of ours, which is made when there is no `application`."""
    preloaded: Sequence[str] = ()
    """What a server of ours imports beside `PRELOADED`."""
    instance: str = field(default_factory=lambda: instance_from_environment() or uuid4().hex)
    livekit: LiveKitSettings = field(default_factory=LiveKitSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    takeover: TakeoverSettings = field(default_factory=TakeoverSettings)
    timing: Timing = TIMING


def make_server(options: WorkerOptions) -> AgentServer:
    """LiveKit's server, with everything set. Raises `InvalidInputError` if settings are missing."""
    if options.application is None:
        return _own_server(options)
    return _fitted(options.application, options)


def _fitted(server: AgentServer, options: WorkerOptions) -> AgentServer:
    """Take the application's server as it is, with our preparation beside its own, on the settings' LiveKit server."""
    url, key, secret = options.livekit.require()
    server.update_options(ws_url=url, api_key=key, api_secret=secret)
    server.setup_fnc = Preparation(server.setup_fnc)
    if "drain" in options.worker.model_fields_set:
        server.update_options(drain_timeout=int(options.worker.drain.total_seconds()))
    if options.worker.most_calls is not None and server.load_fnc is None:
        server.load_fnc = functools.partial(_load_by_calls, options.worker.most_calls)
    return server


def _own_server(options: WorkerOptions) -> AgentServer:
    url, key, secret = options.livekit.require()
    is_development, settings = options.is_development, options.worker
    most_calls = settings.most_calls or (_DEVELOPMENT_CALLS if is_development else None)
    server = AgentServer(
        setup_fnc=Preparation(patience=_SETUP_SECONDS),
        num_idle_processes=settings.idle_processes,
        initialize_process_timeout=60.0,
        load_threshold=settings.job_threshold,
        drain_timeout=int(settings.drain.total_seconds()),
        preload_modules=[*PRELOADED, *options.preloaded],
        ws_url=url,
        api_key=key,
        api_secret=secret,
        host=settings.host,
        port=0 if is_development else settings.port,
    )
    if most_calls is not None:
        server.load_fnc = functools.partial(_load_by_calls, most_calls)
    if options.entrypoint is not None:
        server.rtc_session(options.entrypoint, agent_name=options.livekit.agent_name)
    return server


def _load_by_calls(most_calls: int, server: AgentServer) -> float:
    """Return the load by calls alone: a busy machine would get none, as LiveKit's server asks the least loaded."""
    return len(server.active_jobs) / most_calls


async def run_worker(options: WorkerOptions) -> None:
    """Work until SIGTERM or SIGINT; then give the calls over, and end; at a second one, at once.

    Raises `InvalidInputError`.
    """
    server = make_server(options)
    if (file := registration_from_environment()) is not None:
        is_ours = options.application is None
        name = options.livekit.agent_name if is_ours else None
        Registrar(server, Path(file), agent_name=name, otherwise=options.livekit.given_agent_name).start()
    failures, told = Failures(), _told_to_stop()
    async with _detecting(server, options, failures, draining=lambda: server.draining) as detector:
        await _run_until(told, server, detector, options, failures)


async def run_watcher(options: WorkerOptions) -> None:
    """Follow agents that die anywhere, until SIGTERM or SIGINT; take no calls. Raises `InvalidInputError`."""
    failures, (stop, _) = Failures(), _told_to_stop()
    async with _detecting(_NoJobs(), options, failures, draining=lambda: False) as detector:
        watching, stopping = asyncio.create_task(detector.run()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
        finally:
            for task in (watching, stopping):
                task.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)


class _NoJobs:
    """A `JobSource` that never has any."""

    active_jobs: Sequence[RunningJobInfo] = ()


def _told_to_stop() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first SIGTERM or SIGINT sets, and what the next one does."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop, hurry


@asynccontextmanager
async def _detecting(
    jobs: JobSource, options: WorkerOptions, failures: Failures, *, draining: Callable[[], bool]
) -> AsyncIterator[FailureDetector]:
    """Give a failure detector that is ready to run, beside the health endpoint."""
    settings = Settings()
    settings.require_redis_url(shared_by="agent-worker")
    call = CallSettings()
    RoomSettings()  # jobs read them: a mistake is told here, and not in each call
    async with Heartbeats(settings) as heartbeats, Rooms(options.livekit, timing=options.timing) as rooms:
        takeover = Takeover(
            heartbeats,
            rooms,
            options.takeover,
            linger=call.linger,
            give_up=functools.partial(say_given_up, settings),
            leave=functools.partial(say_nobody_there, settings),
            timing=options.timing,
        )
        detector = FailureDetector(
            jobs,
            heartbeats,
            takeover,
            rooms,
            instance=options.instance,
            settings=options.takeover,
            named_by_participants=call.participant_identity,
            failures=failures,
            timing=options.timing,
        )
        health = Health(
            heartbeats,
            rooms,
            settings,
            jobs=lambda: len(jobs.active_jobs),
            draining=draining,
            failures=lambda: failures.counts,
            timing=options.timing,
        )
        port = 0 if options.is_development else options.worker.health_port
        async with HealthServer(health, host=options.worker.host, port=port) as listening:
            logger.info("health", extra={"url": f"{listening.url}/health"})
            yield detector


async def _run_until(
    told: tuple[asyncio.Event, asyncio.Event],
    server: AgentServer,
    detector: FailureDetector,
    options: WorkerOptions,
    failures: Failures,
) -> None:
    """Work until `told` to stop; drain until told again, to hurry.

    A worker that can serve, or watch, no longer ends with what ended that, and its supervisor starts it again. What
    else goes wrong in the background is counted in `failures`, and tried again.
    """
    stop, hurry = told
    serving = await begin(server, is_development=options.is_development)
    watching = asyncio.create_task(detector.run())
    pause = options.timing.supervisor_look
    looking = failures.until_done("orphaned", lambda: _stop_when_orphaned(stop, pause=pause), pause=pause)
    orphaned = asyncio.create_task(looking)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() or watching.done():
            await (serving if serving.done() else watching)
        await _drain(server, detector, hurry, failures, retry=options.timing.server_retry)
    finally:
        for task in (watching, orphaned, stopping):
            task.cancel()
        await server.aclose()
        await asyncio.gather(serving, watching, orphaned, stopping, return_exceptions=True)


async def _drain(
    server: AgentServer, detector: FailureDetector, hurry: asyncio.Event, failures: Failures, *, retry: float
) -> None:
    """Take no more jobs; let those that run go over to other workers, or come to their end.

    Successors are asked for until the end, whatever goes wrong with that meanwhile.
    """
    giving_over = asyncio.create_task(failures.until_done("give_over", detector.give_over, pause=retry))
    draining, hurrying = asyncio.create_task(server.drain()), asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done() or draining.exception() is not None:
            logger.warning("calls are still going on; they leave this worker now, and others are asked to follow")
        if draining.done() and (error := draining.exception()) is not None:
            failures.count("drain", error)
    finally:
        for task in (giving_over, draining, hurrying):
            task.cancel()
        await asyncio.gather(giving_over, draining, hurrying, return_exceptions=True)


async def _stop_when_orphaned(stop: asyncio.Event, *, pause: float) -> None:
    """End in order when the supervisor is gone: nobody would start this worker again."""
    if instance_from_environment() is None:
        return
    supervisor = os.getppid()
    while os.getppid() == supervisor:  # noqa: ASYNC110  # there is no event for this
        await asyncio.sleep(pause)
    logger.error("the supervisor process is gone")
    stop.set()
