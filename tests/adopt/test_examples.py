"""The examples that answer calls run as their headers say: their jobs are killed, and everything promised is so."""

import asyncio

import pytest

from tests.adopt.example_shapes import ANSWERING, ASSISTANT, INTERPRETERS, TEAM
from tests.adopt.judge import judge
from tests.adopt.shapes import Fault, Shape, Turn
from tests.adopt.stage import HEARD, Performance, Stage, Workers, performance, play
from tests.support.contents import everything
from tests.support.processes import kill
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
SECRET = b"swordfish"


def _name(value: object) -> str:
    return value.name if isinstance(value, Shape) else str(value)


@pytest.mark.parametrize("workers", ANSWERING, indirect=True, ids=_name)
async def test_an_example_goes_on_after_a_kill(workers: Workers) -> None:
    """The successor is asked what the dead agent would have been asked; nothing is said, done or stored twice."""
    async with performance(workers, count=1) as call:
        judge(await play(call, Fault.CRASH))
        if workers.shape is ASSISTANT:
            await _is_forgotten(call)


async def _is_forgotten(call: Performance) -> None:
    """Wait until no key in Redis has what the assistant was told to forget."""
    client = call.stage.redis.client()

    async def is_gone() -> bool:
        return SECRET not in everything(client)

    try:
        await wait_until(is_gone, "Redis to hold nothing of the password")
        assert call.room.encode() in everything(client)
    finally:
        client.close()


@pytest.mark.parametrize("workers", [TEAM], indirect=True, ids=_name)
async def test_each_of_a_team_is_followed_by_its_like(stage: Stage, workers: Workers) -> None:
    """An interpreter is fetched and the caller handed over; then the interpreter's job is killed, and the adviser's."""
    interpreters = Workers(stage, INTERPRETERS)
    try:
        await asyncio.to_thread(interpreters.ready, 1)
        async with performance(workers, count=1) as call:
            await call.greeted()
            await call.turn(TEAM.before[0])
            await _all_listen(call, 2)
            await _both(call, TEAM.before[1], INTERPRETERS.before[0])
            before = stage.model.asked(INTERPRETERS.name)[-1]
            kill(before.pid)
            await call.caller.wait(lambda: len(call.caller.presences) == 3, "another interpreter", HEARD)
            await call.is_over_for(before.pid)
            await _all_listen(call, 2)
            await _both(call, TEAM.after[0], INTERPRETERS.after[0])
            first = next(one for one in stage.model.asked(INTERPRETERS.name, since=before.at) if one.pid != before.pid)
            assert first.messages == [
                *before.messages,
                {"role": "assistant", "content": before.reply.text},
                {"role": "user", "content": TEAM.after[0].says},
            ]
            blow = await call.suffers(Fault.CRASH)
            await call.is_over_for(blow.old)
            await _all_listen(call, 2)
            await _both(call, TEAM.after[1], INTERPRETERS.after[1])
            last = call.asked[-1]
            assert last.instructions == "You are an adviser. Ms Novak calls about bill 4711."
            assert (sorted(last.tools), last.pid != blow.old) == (["amount_due"], True)
            assert [turn.hears for turn in TEAM.before + TEAM.after if call.said.count(turn.hears) != 1] == []
    finally:
        interpreters.stop()


async def _both(call: Performance, turn: Turn, translated: Turn) -> None:
    """Say something that both agents answer, and wait until both answers are durable."""
    answers = (turn.hears, translated.hears)
    await call.say(turn.says)
    for line in answers:
        await call.caller.wait(lambda line=line: line in call.said, f"to hear {line!r}", HEARD)  # type: ignore[misc]
    await call.keeps(answers)


async def _all_listen(call: Performance, number: int) -> None:
    """Wait until so many agents are there, and all of them can be spoken to."""

    def listen() -> bool:
        agents, told = call.caller.agents, call.caller.attributes
        states = [told.get(one.identity, {}).get("lk.agent.state") for one in agents]
        return states == ["listening"] * number

    await call.caller.wait(listen, f"{number} agents to listen", HEARD)
