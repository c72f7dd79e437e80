"""A treasury's voice assistant: words that ask for money to be moved never reach the model."""

import os

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, ChatMessage, JobContext, StopResponse, cli
from livekit.plugins import deepgram, openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)


class Treasurer(Agent):
    """Talks about money, and moves none."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You tell the employees of a company about its accounts.")

    async def on_user_turn_completed(self, _turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        """Refuse what must not be done on the telephone."""
        if "transfer" in (new_message.text_content or "").lower():
            raise StopResponse


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Talk to one employee."""
    session: AgentSession[None] = AgentSession(
        llm=openai.LLM(model="gpt-4.1"),
        stt=deepgram.STT(base_url=os.environ["LISTEN_URL"]),
        tts=openai.TTS(model="tts-1", response_format="pcm"),
        vad=None,
        turn_handling={
            "turn_detection": "stt",
            "interruption": {"mode": "vad"},
            "endpointing": {"min_delay": 0.1, "max_delay": 0.5},
        },
        aec_warmup_duration=None,
    )
    await attach(session, ctx)
    await session.start(agent=Treasurer(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
