"""``python -m agent_worker dev``: a worker, the caller's page, and with ``--offline`` the models, on one machine."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from agent_worker.development.agent_calls import AgentCalls
from agent_worker.development.page import PageServer
from agent_worker.development.reception import Reception
from agent_worker.development.stored_lines import StoredConversations
from agent_worker.offline.running import models
from agent_worker.settings import LiveKitSettings, WorkerSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.summons import Vacancy, summon
from agent_worker.worker.supervisor import Supervisor
from agent_worker.worker.takeover import Deceased
from conversation_actors import Heartbeats, InvalidInputError, Settings

_NEW_SECONDS = 10.0


async def develop(arguments: list[str], instance: str, *, offline: Path | None, write: Callable[[str], object]) -> int:
    """Run until SIGTERM or SIGINT; returns the worker's exit code. `offline`: the transcript to follow.

    The page's address is written when the worker is registered: a room that is created before gets no agent by
    automatic dispatch, and only then it is known by which name an application's agent is asked for.
    """
    livekit, worker, store = LiveKitSettings(), WorkerSettings(), Settings()
    url, key, secret = livekit.require()
    async with (
        Heartbeats(store) as heartbeats,
        Rooms(livekit) as rooms,
        StoredConversations(store) as conversations,
        models(offline) as environment,
    ):
        reception = Reception(url, write)

        async def bring_agent(room: str) -> None:
            await ensure_agent(room, page.agent_name, heartbeats, rooms)

        calls = AgentCalls(bring_agent, lambda: reception.is_open)
        page = PageServer(
            url,
            key,
            secret,
            livekit.agent_name,
            key=secrets.token_urlsafe(16),
            open_tokens=worker.open_tokens,
            host=worker.host,
            port=worker.page_port,
            on_join=calls.joining,
            on_missing=calls.missing,
            read=conversations.read,
        )
        try:
            await page.__aenter__()
        except OSError as error:
            message = f"page_port: {worker.page_port} cannot be listened on ({error.strerror}); set AGENT_PAGE_PORT"
            raise InvalidInputError(message, field="page_port") from error
        try:
            async with reception.following(page, calls) as variables:
                return await Supervisor(arguments, instance, {**environment, **variables}).run()
        finally:
            await page.__aexit__(None, None, None)


async def ensure_agent(room: str, agent_name: str, heartbeats: Heartbeats, rooms: Rooms) -> bool:
    """Call an agent to a room that exists and has none; whether one was called.

    A room that does not exist gets its agent by the token that creates it.
    """
    occupants = await rooms.occupants(room)
    if not occupants.exists:
        return False
    record = await heartbeats.find(room)
    if record is not None and record.is_alive:
        return False
    newest = time.time() - _NEW_SECONDS
    dead = None if record is None else record.holder
    if any(agent.joined_at > newest for agent in occupants.agents) and dead is None:
        return False
    before = None if record is None else Deceased.of(record)
    assignment = Assignment(conversation_id=room, replaces=dead, reason=None if dead is None else RestartReason.UNKNOWN)
    vacancy = Vacancy(room, agent_name, before.original if before else None)
    await summon(heartbeats, rooms, vacancy, assignment)
    return True
