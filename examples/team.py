"""A team in one call: a receptionist hands over to an adviser, and fetches an interpreter, who has a role of its own.

Run `agent-worker start examples/team.py:desk` and `agent-worker start examples/team.py:interpreters`, each twice, with
`OPENAI_API_KEY` and LiveKit's variables, and type in a room of that server. Kill the process of either agent: the
adviser comes back as the adviser, who still knows whose bill it is, and the interpreter is followed by an interpreter.
"""

from livekit import api
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, get_job_context, room_io
from livekit.plugins import openai

from agent_worker import attach

desk = AgentServer(num_idle_processes=1, port=0)
interpreters = AgentServer(num_idle_processes=1, port=0)
INTERPRETER = "interpreter"
# typed words only; examples/support.py has a voice
TEXT = room_io.RoomOptions(audio_input=False, audio_output=False)


class Receptionist(Agent):
    """Finds out what a call is about."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are the receptionist of an energy company. Find out who calls, and why.")

    @function_tool
    async def fetch_interpreter(self) -> str:
        """Ask an interpreter to join the call."""
        ctx = get_job_context()
        wanted = api.CreateAgentDispatchRequest(agent_name=INTERPRETER, room=ctx.room.name)
        await ctx.api.agent_dispatch.create_dispatch(wanted)
        return "An interpreter joins us."

    @function_tool
    async def hand_over(self, customer: str, bill: str) -> Agent:
        """Hand the caller over to the adviser."""
        return Adviser(customer, bill)


class Adviser(Agent):
    """Knows the bills."""

    def __init__(self, customer: str, bill: str) -> None:
        """Know whose bill it is."""
        super().__init__(instructions=f"You are an adviser. {customer} calls about bill {bill}.")
        self._known = {"customer": customer, "bill": bill}

    async def on_enter(self) -> None:
        """Take the caller over."""
        await self.session.generate_reply(instructions="Introduce yourself as the adviser.")

    @function_tool
    async def amount_due(self) -> str:
        """Look up what is still to be paid."""
        return f"Bill {self._known['bill']} of {self._known['customer']} is open with 84 euros."

    def saved_state(self) -> dict[str, str]:
        """Tell what another process needs to make this adviser again."""
        return self._known


class Interpreter(Agent):
    """Says in Danish what the caller says."""

    def __init__(self) -> None:
        """Say what it is."""
        super().__init__(instructions="You are an interpreter. Say in Danish what the caller says, and nothing else.")


@desk.rtc_session()
async def answer(ctx: JobContext) -> None:
    """Answer one caller."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1-mini"))
    await attach(session, ctx, agents={"adviser": lambda saved: Adviser(**saved)})
    await session.start(agent=Receptionist(), room=ctx.room, room_options=TEXT)


@interpreters.rtc_session(agent_name=INTERPRETER)
async def interpret(ctx: JobContext) -> None:
    """Interpret for one caller, beside the agent of the call."""
    session: AgentSession[None] = AgentSession(llm=openai.LLM(model="gpt-4.1-mini"))
    await attach(session, ctx, role=INTERPRETER)
    await session.start(agent=Interpreter(), room=ctx.room, room_options=TEXT)


if __name__ == "__main__":
    cli.run_app(desk)
