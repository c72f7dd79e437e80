"""A teller who takes payments: a card's number is needed once, and nobody is to read it afterwards."""

import re

from livekit.agents import Agent, AgentServer, AgentSession, ChatContext, JobContext, cli, function_tool, room_io
from livekit.agents.llm import ChatItem
from livekit.plugins import openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
CARD = re.compile(r"\d{4} \d{4} \d{4} \d{4}")


def without_card(item: ChatItem) -> ChatItem:
    """The item, if it tells of a card a copy that does not."""
    if item.type != "message":
        return item
    content = [CARD.sub("[card number]", part) if isinstance(part, str) else part for part in item.content]
    return item.model_copy(update={"content": content})


class Teller(Agent):
    """Takes payments."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are a teller and take payments by card.")

    @function_tool
    async def charge_card(self) -> str:
        """Charge the card that was named last."""
        await self.update_chat_ctx(ChatContext([without_card(item) for item in self.chat_ctx.items]))
        return "The card is charged."

    @function_tool
    async def forget_name(self) -> str:
        """Forget the customer's name."""
        items = self.chat_ctx.items
        named = {item.id for item in items if item.type == "message" and "Orlova" in (item.text_content or "")}
        await self.update_chat_ctx(ChatContext([item for item in items if item.id not in named]))
        return "I do not know you."


@server.rtc_session()
async def take_payments(ctx: JobContext) -> None:
    """Serve one customer."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1"))
    await attach(session, ctx)
    await session.start(
        agent=Teller(), room=ctx.room, room_options=room_io.RoomOptions(audio_input=False, audio_output=False)
    )


if __name__ == "__main__":
    cli.run_app(server)
