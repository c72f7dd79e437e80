"""An application's own server, unchanged: run by our command line, and by LiveKit's with a watcher beside it."""

import asyncio
import json
import os
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import jwt
import pytest

from conversation_actors import ConversationClient
from tests.e2e import application
from tests.e2e.calls import UTTERANCE, hear, turn
from tests.e2e.scene import Scene
from tests.support.caller import Caller
from tests.support.livekit_server import LiveKitServer
from tests.support.processes import kill
from tests.support.programs import Program
from tests.support.servers import free_port, wait_until
from tests.support.workers import REPOSITORY

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


class Application:
    """The application's surroundings in one test: what it noted, and where it listens."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        """`scene` has a LiveKit server of the test's own: rooms of other tests would get this agent too."""
        self.scene = scene
        self.notes_path = directory / "notes"
        self.port, self.prometheus = free_port(), free_port()
        self.environment: Mapping[str, str] = {
            **scene.environment,
            **scene.models.environment,
            **scene.server.env,
            application.NOTES: str(self.notes_path),
            application.PORT: str(self.port),
            application.PROMETHEUS: str(self.prometheus),
        }

    def notes(self, what: str) -> list[dict[str, Any]]:
        """What was noted of one kind, in order."""
        lines = self.notes_path.read_text().splitlines() if self.notes_path.exists() else []
        return [told for told in map(json.loads, lines) if told["what"] == what]

    def process(self, *command: str, **variables: str) -> Program:
        """A process of this application, which ends behind the test; it is not started yet."""
        directory = self.scene.directory / f"process-{len(self.scene.workers)}"
        made = Program(directory, {**self.environment, **variables}, *command)
        self.scene.workers.append(made)
        return made

    def caller(self) -> Caller:
        """Somebody who joins a room, and asks for no agent."""
        return Caller(self.scene.server, room=self.scene.room)


@pytest.fixture
async def apart(scene: Scene, own_livekit_server: LiveKitServer, tmp_path: Path) -> AsyncIterator[Application]:
    """The application, on a LiveKit server of its own, as a tenant of its own."""
    settings = scene.settings.model_copy(update={"tenant": uuid4().hex})
    environment = {**scene.environment, "CONVERSATION_TENANT": settings.tenant}
    async with ConversationClient(settings) as client:
        own = replace(scene, server=own_livekit_server, settings=settings, client=client, environment=environment)
        yield Application(own, tmp_path)


async def fetched(url: str) -> str:
    """What a server on this machine answers."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_an_application_without_a_name(apart: Application) -> None:
    """LiveKit dispatches it by itself, and all that is its own is used; when its agent dies the next one is called."""
    worker = apart.process("-m", "agent_worker", "work", "tests.e2e.application:server")
    await asyncio.to_thread(worker.start)
    async with apart.caller() as caller:
        await hear(caller, application.OPENING, after=caller.joined_at)
        [agent] = caller.agents
        assert caller.attributes[agent.identity]["desk"] == "one"
        [job] = apart.notes("job")
        assert (job["desk"], job["has_joined"], job["agent_name"]) == ("front", True, "")
        assert [one["pid"] for one in apart.notes("setup")].count(job["pid"]) == 1
        assert apart.notes("load")
        assert "lk_agents" in await fetched(f"http://127.0.0.1:{apart.prometheus}/metrics")
        told = json.loads(await fetched(f"http://127.0.0.1:{apart.port}/worker"))
        assert (told.get("agent_name", ""), told["active_jobs"]) == ("", 1)
        assert json.loads(await fetched(worker.health_url))["jobs"] == 1
        await turn(caller, 0)
        await apart.scene.settled()
        holder, pid = await apart.scene.agent()
        killed = kill(pid)
        await apart.scene.heard_again(caller, killed, holder, "job of an application without a name killed")
        await turn(caller, 1)
        kept = await apart.scene.stored()
    kept.assert_nothing_lost(range(2))
    assert [one["agent_name"] for one in apart.notes("job")] == ["", ""]

    async def has_ended() -> bool:
        return bool(apart.notes("session end"))

    await wait_until(has_ended, "the session to end", patience=UTTERANCE)


async def test_a_deploy_of_an_application_without_a_name(apart: Application) -> None:
    """SIGTERM with another worker up: the call goes over to it, though LiveKit cannot be asked for it by a name."""
    free = {application.PORT: "0", application.PROMETHEUS: "0", "AGENT_HEALTH_PORT": "0"}
    old, new = (apart.process("-m", "agent_worker", "start", "tests.e2e.application", **free) for _ in range(2))
    await asyncio.to_thread(old.start)
    async with apart.caller() as caller:
        await hear(caller, application.OPENING, after=caller.joined_at)
        await turn(caller, 0)
        await apart.scene.settled()
        holder, pid = await apart.scene.agent()
        await asyncio.to_thread(new.start)
        old.terminate()
        _, successor = await apart.scene.agent(other_than=holder)
        assert successor != pid
        await turn(caller, 1)
        kept = await apart.scene.stored()
    kept.assert_nothing_lost(range(2))
    assert await old.wait_ended() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_livekits_own_command_line(apart: Application, how: signal.Signals) -> None:
    """The same file, run by LiveKit; a watcher follows its agent when it dies, and when it hangs."""
    worker = apart.process(str(REPOSITORY / "tests" / "e2e" / "application.py"), "start")
    watcher = apart.process("-m", "agent_worker", "watch").launch()
    await asyncio.to_thread(worker.start)

    async def watches() -> bool:
        return "health url=" in watcher.log()

    await wait_until(watches, "the watcher to watch", patience=UTTERANCE)
    async with apart.caller() as caller:
        await hear(caller, application.OPENING, after=caller.joined_at)
        await turn(caller, 0)
        await apart.scene.settled()
        holder, pid = await apart.scene.agent()
        ended = time.monotonic()
        os.kill(pid, how)
        await apart.scene.heard_again(caller, ended, holder, f"{how.name}, LiveKit's own command line")
        await turn(caller, 1)
        kept = await apart.scene.stored()
    kept.assert_nothing_lost(range(2))
    assert json.loads(await fetched(watcher.health_url))["ok"]
    watcher.terminate()
    assert await watcher.wait_ended() == 0


async def test_the_page_of_an_application_without_a_name(apart: Application) -> None:
    """Its address is told when the worker is registered; a token asks for no agent, and one comes."""
    told = apart.process(
        "-m", "agent_worker", "dev", "--offline", "tests.e2e.application", AGENT_PAGE_PORT="0"
    ).launch()
    found: list[re.Match[str]] = []

    async def is_told() -> bool:
        assert told.process.poll() is None, told.log()
        found.extend(re.finditer(r"Talk to the agent: (http://\S+/)#key=(\S+)", told.log()))
        return bool(found)

    await wait_until(is_told, "the page's address", patience=90)
    assert told.log().index("registered worker") < told.log().index("Talk to the agent")
    address, key = found[0].groups()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{address}token", json={"room": f"page-{secrets.token_hex(4)}"}) as answer,
    ):
        ticket = await answer.json()
    assert "roomConfig" not in jwt.decode(ticket["token"], options={"verify_signature": False})
    async with apart.caller() as caller:
        await hear(caller, application.OPENING, after=caller.joined_at)
    told.terminate()
    assert await told.wait_ended() == 0
