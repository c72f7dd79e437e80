"""A personal assistant for typed words, which forgets on request: what leaves its context leaves Redis as well.

Run `agent-worker dev examples/assistant.py` with `OPENAI_API_KEY`, open the page that it names, and type; with
`--offline` it needs no account, and knows a few sentences only. Tell it something, have it forget that, and kill the
job's process: the next assistant has the rest of the talk, and no key in Redis has the words that were taken back.
"""

import os
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, JobContext, cli, function_tool, room_io
from livekit.agents.llm import ChatItem
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
LETTERS = Path(os.environ.get("LETTERS", "letters.txt"))
"""What the assistant has sent: a stand-in for a mailbox."""


class Assistant(Agent):
    """Writes letters, and keeps a secret by forgetting it."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are a discreet personal assistant. Be brief.")

    async def on_enter(self) -> None:
        """Greet by words of the model's: once, however many jobs the talk takes."""
        await self.session.generate_reply(instructions="Greet, and ask what is to be done.")

    @function_tool
    async def send_letter(self, to: str, text: str) -> str:
        """Send a letter. Its call is durable before it runs: a successor never sends it a second time unknowing."""
        with LETTERS.open("a") as file:  # noqa: ASYNC230  # one line to a local file
            file.write(f"{to}: {text}\n")
        return f"The letter to {to} is sent."

    @function_tool
    async def forget(self, topic: str) -> str:
        """Forget every message that mentions a topic. Name the topic and not the secret: this call is kept."""
        await self.update_chat_ctx(ChatContext([_without(topic, item) for item in self.chat_ctx.items]))
        return "It is forgotten."


def _without(topic: str, item: ChatItem) -> ChatItem:
    """Return the item, or if it mentions the topic an item with its words replaced.

    An item that is left out would not reach the first words of a talk.
    """
    if item.type != "message" or item.role == "system" or topic not in (item.text_content or ""):
        return item
    return item.model_copy(update={"content": ["[forgotten]"]})


@server.rtc_session()
async def serve(ctx: JobContext) -> None:
    """Serve one person."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1-mini"))
    await attach(session, ctx)
    # typed words only; examples/support.py has a voice
    options = room_io.RoomOptions(audio_input=False, audio_output=False)
    await session.start(agent=Assistant(), room=ctx.room, room_options=options)


if __name__ == "__main__":
    cli.run_app(server)
