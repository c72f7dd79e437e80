"""An application's file as people write them: a server with everything of its own, and no name for its agent.

It is run by our command line (``start tests.e2e.application``) and by LiveKit's (``python application.py start``).
"""

import json
import os
from pathlib import Path
from typing import Any

import ray
from livekit.agents import AgentServer, JobContext, JobProcess, JobRequest, cli

from agent_worker import attach, open_conversation
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import voice_session
from agent_worker.settings import LanguageModelSettings, SpeechSettings

OPENING = "Front desk, good morning."
NOTES, PROMETHEUS, PORT, NAME = "APPLICATION_NOTES", "APPLICATION_PROMETHEUS", "APPLICATION_PORT", "APPLICATION_NAME"


def note(what: str, **told: Any) -> None:
    """Write down what has run, and in which process."""
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(json.dumps({"what": what, "pid": os.getpid(), **told}) + "\n")


def load(server: AgentServer) -> float:
    """What this application calls its load."""
    note("load")
    return len(server.active_jobs) / 10


def prewarm(process: JobProcess) -> None:
    """Prepare a process."""
    note("setup")
    process.userdata["desk"] = "front"


server = AgentServer(
    load_fnc=load,
    port=int(os.environ.get(PORT, "0")),
    prometheus_port=int(os.environ.get(PROMETHEUS, "0")),
    num_idle_processes=1,
    host="127.0.0.1",
)
server.setup_fnc = prewarm


async def take(request: JobRequest) -> None:
    """Take a job under a name of its own."""
    await request.accept(name="Front desk", attributes={"desk": "one"})


async def session_ended(_ctx: JobContext) -> None:
    """Close the books."""
    note("session end")


class FrontDesk(SupportAgent):
    """Has the tools of the written call, and speaks first."""

    async def on_enter(self) -> None:
        """Greet."""
        self.session.say(OPENING)


@server.rtc_session(agent_name=os.environ.get(NAME, ""), on_request=take, on_session_end=session_ended)
async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    note("job", desk=ctx.proc.userdata["desk"], has_joined=ray.is_initialized(), agent_name=ctx.job.agent_name)
    conversation = await open_conversation(ctx)
    session = voice_session(LanguageModelSettings(), SpeechSettings())
    agent = FrontDesk()
    await attach(session, agent, conversation, room=ctx.room)
    await session.start(agent=agent, room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
