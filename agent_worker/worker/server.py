"""The worker process: LiveKit's `AgentServer`, with a supervisor beside it.

A worker has job processes, each of which is one call. They are forked from a server process that has
imported everything already, and have joined Ray before they get a call.
"""

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import uuid4

from livekit.agents import AgentServer, JobContext, JobProcess
from livekit.agents.voice.room_io import RoomOptions

from agent_worker.call.attach import attach
from agent_worker.call.opening import open_conversation
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import voice_session
from agent_worker.failures import Failures
from agent_worker.settings import (
    CallSettings,
    LanguageModelSettings,
    LiveKitSettings,
    SpeechSettings,
    TakeoverSettings,
    WorkerSettings,
    instance_from_environment,
)
from agent_worker.tenure.conversation import AGENT
from agent_worker.tenure.role import AGENT_ROLE, attribute_name
from agent_worker.worker.health import Health, HealthServer
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.supervisor import Supervisor
from agent_worker.worker.takeover import Takeover
from conversation_actors import ConversationClient, HeartbeatRecord, Heartbeats, InvalidInputError, Settings

logger = logging.getLogger(__name__)

Entrypoint = Callable[[JobContext], Awaitable[None]]

PRELOADED = [
    *("ray", "agent_worker.call.attach", "agent_worker.example.pipeline", "conversation_actors.runtime"),
    # imported by the OpenAI client at its first request: half a second in a call that has just been taken over
    *(
        "openai.resources.chat",
        "openai.resources.audio",
        "openai.pagination",
        "pydantic.v1",
        "anyio._backends._asyncio",
    ),
]
"""Imported once, in the process that the job processes are forked from: they share the memory."""
_SETUP_SECONDS = 15.0
_PARENT_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_DEVELOPMENT_CALLS = 20


async def answer_call(ctx: JobContext) -> None:
    """The entrypoint of the example agent: what a team's own looks like."""
    connecting = asyncio.ensure_future(ctx.connect())
    conversation = await open_conversation(ctx)
    await connecting
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    agent = SupportAgent.of(conversation.items)
    await attach(session, agent, conversation, room=ctx.room)
    # a page that is reloaded is the same person on the same call
    await session.start(agent=agent, room=ctx.room, room_options=RoomOptions(close_on_disconnect=False))


def prepare_process(_process: JobProcess) -> None:
    """Join Ray before there is a call. Never raises: the call itself tries again, and can do without.

    A SIGTERM to all of a worker's processes (systemd's default) must not end the calls: only the worker
    decides that, and tells its jobs by itself.
    """
    with contextlib.suppress(ValueError):  # not the main thread: LiveKit runs jobs in threads on some systems
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        asyncio.run(_join_cluster())
    except Exception as error:  # noqa: BLE001  # LiveKit would throw the process away, and try for ever
        logger.warning("not connected to Ray yet", extra={"reason": f"{type(error).__name__}: {error}"})


async def _join_cluster() -> None:
    async with asyncio.timeout(_SETUP_SECONDS), ConversationClient(Settings()):
        logger.debug("joined the cluster")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is made of."""

    is_development: bool = False
    entrypoint: Entrypoint = answer_call
    instance: str = field(default_factory=lambda: instance_from_environment() or uuid4().hex)
    livekit: LiveKitSettings = field(default_factory=LiveKitSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    takeover: TakeoverSettings = field(default_factory=TakeoverSettings)


def make_server(options: WorkerOptions) -> AgentServer:
    """LiveKit's server, with everything set. Raises `InvalidInputError` where settings are missing."""
    url, key, secret = options.livekit.require()
    is_development, settings = options.is_development, options.worker
    most_calls = settings.most_calls or (_DEVELOPMENT_CALLS if is_development else None)
    server = AgentServer(
        setup_fnc=prepare_process,
        num_idle_processes=settings.idle_processes,
        initialize_process_timeout=60.0,
        load_threshold=settings.job_threshold,
        drain_timeout=int(settings.drain.total_seconds()),
        preload_modules=PRELOADED,
        ws_url=url,
        api_key=key,
        api_secret=secret,
        host=settings.host,
        port=0 if is_development else settings.port,
    )
    if most_calls is not None:
        server.load_fnc = functools.partial(_load_by_calls, most_calls)
    server.rtc_session(
        options.entrypoint,
        agent_name=options.livekit.agent_name,
    )
    return server


def _load_by_calls(most_calls: int, server: AgentServer) -> float:
    """A machine that is busy with something else would get no calls: LiveKit's server asks the least loaded."""
    return len(server.active_jobs) / most_calls


async def run_worker(options: WorkerOptions) -> None:
    """Work until SIGTERM or SIGINT; then give the calls over, and end; at a second one, at once.

    Raises `InvalidInputError`.
    """
    server = make_server(options)
    store = Settings()
    store.require_redis_url()
    call = CallSettings()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with Heartbeats(store) as heartbeats, Rooms(options.livekit) as rooms:
        takeover = Takeover(
            heartbeats,
            rooms,
            options.takeover,
            linger=call.linger,
            give_up=functools.partial(_give_up, store),
        )
        failures = Failures()
        supervisor = Supervisor(
            server,
            heartbeats,
            takeover,
            rooms,
            instance=options.instance,
            settings=options.takeover,
            named_by_participants=call.participant_identity,
            failures=failures,
        )
        health = Health(
            heartbeats,
            rooms,
            store,
            jobs=lambda: len(server.active_jobs),
            draining=lambda: server.draining,
            failures=lambda: failures.counts,
        )
        port = 0 if options.is_development else options.worker.health_port
        async with HealthServer(health, host=options.worker.host, port=port) as listening:
            logger.info("health", extra={"url": f"{listening.url}/health"})
            await _run_until((stop, hurry), server, supervisor, options, failures)


async def _run_until(
    told: tuple[asyncio.Event, asyncio.Event],
    server: AgentServer,
    supervisor: Supervisor,
    options: WorkerOptions,
    failures: Failures,
) -> None:
    """Work until `told` to stop; drain until told again, to hurry.

    A worker that can serve, or watch, no longer ends with what ended that, and its parent starts it again. What else
    goes wrong in the background is counted in `failures`, and tried again.
    """
    stop, hurry = told
    serving = asyncio.create_task(server.run(devmode=options.is_development))
    watching = asyncio.create_task(supervisor.run())
    looking = failures.until_done("orphaned", lambda: _stop_when_orphaned(stop), pause=_PARENT_SECONDS)
    orphaned = asyncio.create_task(looking)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() or watching.done():
            await (serving if serving.done() else watching)
        await _drain(server, supervisor, hurry, failures)
    finally:
        for task in (watching, orphaned, stopping):
            task.cancel()
        await server.aclose()
        await asyncio.gather(serving, watching, orphaned, stopping, return_exceptions=True)


async def _drain(server: AgentServer, supervisor: Supervisor, hurry: asyncio.Event, failures: Failures) -> None:
    """Take no more jobs; let those that run go over to other workers, or come to their end.

    Successors are asked for until the end, whatever goes wrong with that meanwhile.
    """
    giving_over = asyncio.create_task(failures.until_done("give_over", supervisor.give_over, pause=_RETRY_SECONDS))
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


async def _stop_when_orphaned(stop: asyncio.Event) -> None:
    """A worker whose parent is gone has nobody to start it again: it ends in order."""
    if instance_from_environment() is None:
        return
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # there is no event for this
        await asyncio.sleep(_PARENT_SECONDS)
    logger.error("the parent process is gone")
    stop.set()


async def _give_up(store: Settings, record: HeartbeatRecord, attempts: int) -> None:
    """Say in the conversation that no agent comes any more."""
    async with ConversationClient(store) as client:
        conversation = await client.open(record.conversation_id)
        told = {"holder": None, "state": "given up", "attempts": attempts, "at": time.time()}
        await conversation.set_attributes({attribute_name(AGENT, record.role or AGENT_ROLE): told})
        await conversation.aclose()
    logger.error("a call is given up", extra={"conversation_id": record.conversation_id, "attempts": attempts})


def entrypoint_named(name: str) -> Entrypoint:
    """The function that ``package.module:function`` names. Raises `InvalidInputError`."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        message = f"entrypoint: {name!r} is not there ({error}); give it as package.module:function"
        raise InvalidInputError(message, field="entrypoint") from error
    if not callable(found):
        message = f"entrypoint: {name!r} is not a function"
        raise InvalidInputError(message, field="entrypoint")
    entrypoint: Entrypoint = found
    return entrypoint
