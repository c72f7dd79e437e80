"""What is taken out of the context of an agent with a realtime model leaves its provider and the conversation."""

from typing import Literal

import aiohttp
import pytest

from agent_worker.offline import OfflineServer
from agent_worker.offline.realtime_behaviour import RealtimeBehaviour
from agent_worker.offline.script import Reply
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, Running, crash, texts
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom
from tests.support.sessions.realtime_calls import Concierge, Loudspeaker, Microphone, obedient, reconnecting

CARD = "My card is 4711"


def _answers(said: str) -> Reply:
    return Reply("Thank you." if said == CARD else f"You said {said}.")


async def _forget_the_card(running: Running) -> None:
    agent = running.session.current_agent
    context = agent.chat_ctx.copy()
    context.items = [item for item in context.items if item.type != "message" or item.text_content != CARD]
    await agent.update_chat_ctx(context)
    await until(lambda: CARD not in texts(running.call.items))
    await running.call.flush()


@pytest.mark.parametrize("transcripts", ["early", "late"])
async def test_a_card_number_is_gone_for_the_provider_too(
    answer: Answer, http: aiohttp.ClientSession, transcripts: Literal["early", "late"]
) -> None:
    """Also when its session is begun anew, and for the next agent and its provider."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    behaviour = RealtimeBehaviour(transcripts=transcripts)
    async with OfflineServer(obedient(_answers), behaviour=behaviour) as models:
        async with answer(
            FakeRoom(alice), agent=Concierge(models, http), greeting="", output=Loudspeaker(), microphone=microphone
        ) as running:
            await running.is_known("Good evening.")
            microphone.say(CARD)
            await running.is_known("Thank you.")
            await running.is_known(CARD)
            await running.session_is_calm()
            await _forget_the_card(running)
            async with reconnecting(running):
                await models.expire()
            microphone.say("Hello")
            await running.is_known("You said Hello.")
            assert CARD not in str(models.responses[-1].messages)
            assert texts(running.call.items) == ["Good evening.", "Thank you.", "Hello", "You said Hello."]
            await crash(running)
        microphone = Microphone()
        async with answer(
            FakeRoom(alice), "job-2", agent=Concierge(models, http), output=Loudspeaker(), microphone=microphone
        ) as running:
            await running.is_known(BACK)
            assert CARD not in str(models.responses[-1].messages)
            assert CARD not in str(running.session.history.items)
