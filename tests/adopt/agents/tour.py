"""An audio tour through a castle: each room has a guide of its own, all of one class."""

from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, JobContext, cli, function_tool, room_io
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)

SIGHTS = {"the armoury": "the suit of armour of 1540", "the kitchen": "a spit for a whole ox"}


class Guide(Agent):
    """Shows one room."""

    def __init__(self, place: str, chat_ctx: ChatContext | None = None) -> None:
        """Know the room, and what has been talked about so far."""
        super().__init__(instructions=f"You are the guide to {place}.", chat_ctx=chat_ctx or ChatContext.empty())
        self._place = place

    def saved_state(self) -> dict[str, Any]:
        """What another process needs to make this guide again."""
        return {"place": self._place}

    @function_tool
    async def main_sight(self) -> str:
        """Say what is to be seen here."""
        return f"In {self._place} you see {SIGHTS[self._place]}."

    @function_tool
    async def go_to(self, place: str) -> tuple[Agent, str]:
        """Go on to another room.

        Args:
            place: Which one.
        """
        return Guide(place, self.chat_ctx.copy(exclude_instructions=True)), f"Welcome to {place}."


@server.rtc_session()
async def tour(ctx: JobContext) -> None:
    """Guide one visitor."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx, agents={"guide": lambda saved: Guide(**saved)})
    await session.start(
        agent=Guide("the armoury"),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
