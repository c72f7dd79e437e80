"""Records the call of the stand-in agent with the installed livekit-agents.

usage: python -m tests.support.recorded_call FILE

The files in tests/data/calls are restored under every version that the matrix installs.
"""

import asyncio
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import text_session
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import TranscriptScript
from agent_worker.offline.transcript import load
from agent_worker.settings import LanguageModelSettings
from tests.support.sessions.fake_conversation import FakeConversation

TRANSCRIPT = Path(__file__).parents[1] / "data" / "transcript.json"


async def recorded() -> dict[str, Any]:
    """Hold the whole call in text, and return the version of livekit-agents and the items as they are stored."""
    transcript = load(TRANSCRIPT)
    conversation = FakeConversation()
    async with OfflineServer(TranscriptScript(transcript)) as server:
        settings = LanguageModelSettings(base_url=server.base_url, api_key=None)
        async with text_session(settings) as session:
            agent = SupportAgent()
            await attach(session, agent, conversation)
            await session.start(agent, record=False)
            for turn in transcript.turns:
                await session.run(user_input=turn.user)
    items = [item.to_dict() for item in conversation.items]
    return {"livekit-agents": metadata.version("livekit-agents"), "items": items}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(recorded()), ensure_ascii=False, indent=1) + "\n")
