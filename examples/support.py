"""Telephone support with a voice and two tools: when the agent dies, nothing is asked again, and nothing is done twice.

Run `agent-worker dev examples/support.py --offline`, open the page that it names, and ask where order A-1042 is;
without `--offline` it needs `OPENAI_API_KEY` and `DEEPGRAM_API_KEY`. Move the delivery to Friday, kill the job's
process, and ask again: the next agent says that it is back, and knows the order, the day and the whole talk.
"""

import json
import os
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool
from livekit.agents.llm import ToolError
from livekit.plugins import deepgram, openai

from agent_worker import attach

server = AgentServer(num_idle_processes=1)
ORDERS = {"A-1042": "a brass reading lamp", "A-1043": "a green glass shade"}
DELIVERIES = Path(os.environ.get("DELIVERIES", "deliveries.jsonl"))
"""What was changed: the shop's own record, which outlives every process."""


class Support(Agent):
    """Answers about orders."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(
            instructions="You are the telephone support of a lamp shop. Be brief. "
            "If the outcome of a tool is unknown, say so, and look the order up before you use the tool again."
        )

    async def on_enter(self) -> None:
        """Greet: once in a call, however many agents it takes."""
        await self.session.say("Lamp shop, good morning.")

    @function_tool
    async def look_up_order(self, order_id: str) -> str:
        """Tell what an order is, and when it comes."""
        return f"Order {order_id}: {_article(order_id)}, arriving on {_days().get(order_id, 'Wednesday')}."

    @function_tool
    async def reschedule_delivery(self, order_id: str, day: str) -> str:
        """Move the delivery of an order to another day of the week."""
        _article(order_id)
        _note({"order": order_id, "day": day})
        return f"Order {order_id} now arrives on {day}."


def _article(order_id: str) -> str:
    if order_id not in ORDERS:
        message = f"There is no order {order_id}."
        raise ToolError(message)
    return ORDERS[order_id]


def _days() -> dict[str, str]:
    lines = DELIVERIES.read_text().splitlines() if DELIVERIES.exists() else []
    changes = [json.loads(line) for line in lines]
    return {change["order"]: change["day"] for change in changes}


def _note(change: dict[str, str]) -> None:
    with DELIVERIES.open("a") as file:
        file.write(json.dumps(change) + "\n")


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    session: AgentSession[None] = AgentSession(
        stt=deepgram.STT(base_url=os.environ.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com/v1/listen")),
        llm=openai.LLM(model="gpt-4.1-mini"),
        tts=openai.TTS(model="tts-1", response_format="pcm"),
        # the recogniser tells when somebody speaks and has finished: no detector of voices is loaded
        vad=None,
        turn_handling={
            "turn_detection": "stt",
            "interruption": {"mode": "vad"},
            "endpointing": {"min_delay": 0.1, "max_delay": 0.5},
        },
    )
    await attach(session, ctx)
    await session.start(agent=Support(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
