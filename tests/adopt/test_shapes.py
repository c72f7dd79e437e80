"""Agents that know nothing of this project but one line: each comes back as itself, whatever happens to it."""

import asyncio

import pytest

from conversation_actors import Heartbeats
from tests.adopt.judge import expected_talk, judge
from tests.adopt.shapes import (
    ALWAYS,
    CONCIERGE,
    EVERYTHING,
    HOTLINE,
    INTERPRETER,
    MUSEUM,
    RECEPTION,
    REMINDER,
    TASKS,
    Fault,
    Shape,
    Turn,
)
from tests.adopt.stage import HEARD, Performance, Stage, Workers, performance, play
from tests.e2e.calls import BACK
from tests.support.processes import kill, pause
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
_RHYTHM = 1.0
"""Seconds between two messages of somebody who goes on typing."""


def _name(value: object) -> str:
    return value.name if isinstance(value, Shape) else str(value)


@pytest.mark.parametrize("workers", ALWAYS, indirect=True, ids=_name)
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.MIGRATE])
async def test_comes_back_as_itself(workers: Workers, fault: Fault) -> None:
    """The next agent goes on where the last one was: its first request, what is said, what is done, what is stored."""
    async with performance(workers) as call:
        judge(await play(call, fault))


@pytest.mark.parametrize("workers", [CONCIERGE], indirect=True, ids=_name)
async def test_a_realtime_model_comes_back_as_itself(workers: Workers) -> None:
    """One that hears and speaks by itself: greeted once, told all that was said, and it says that it is back."""
    async with performance(workers, count=1) as call:
        judge(await play(call, Fault.CRASH))


@pytest.mark.parametrize("workers", TASKS, indirect=True, ids=_name)
async def test_a_task_goes_on(workers: Workers) -> None:
    """An agent that died in the third of the tasks that it waits for goes on with the third."""
    async with performance(workers, count=1) as call:
        judge(await play(call, Fault.CRASH))


@pytest.mark.long
@pytest.mark.parametrize(("workers", "fault"), EVERYTHING, indirect=["workers"], ids=_name)
async def test_every_shape_comes_back_as_itself(workers: Workers, fault: Fault) -> None:
    """The same for every shape, and for everything that may happen to it, nothing among it."""
    async with performance(workers) as call:
        judge(await play(call, fault))


@pytest.mark.long
@pytest.mark.parametrize("workers", [MUSEUM], indirect=True, ids=_name)
async def test_a_question_left_open_is_answered_once(workers: Workers) -> None:
    """The agent dies while it waits for the model: the next one asks the same, and the caller hears one answer."""
    question, *others = MUSEUM.before
    async with performance(workers) as call:
        await call.greeted()
        with workers.stage.model.held(question.says):
            await call.say(question.says)
            await _is_asked(call)
            await _is_noted(call, ("user", question.says))
            _, pid = await call.agent()
            kill(pid)
        await call.caller.wait(lambda: question.hears in call.said, "the answer", HEARD)
        for turn in (*others, *MUSEUM.after):
            await call.turn(turn)
        first, again, *_ = call.asked
        assert (first.pid, first.messages, first.tools) == (pid, again.messages, again.tools)
        assert again.pid != pid
        assert call.said.count(question.hears) == 1
        assert (await call.stored()).said == expected_talk(MUSEUM)


@pytest.mark.long
@pytest.mark.parametrize("workers", [CONCIERGE], indirect=True, ids=_name)
async def test_a_realtime_model_answers_once_what_was_left_open(workers: Workers) -> None:
    """The agent dies before its model has answered: the next one's is told to say that it is back, and to answer."""
    question, *others = CONCIERGE.before
    async with performance(workers) as call:
        await call.greeted()
        with workers.stage.model.held(question.says):
            await call.say(question.says)
            await _is_noted(call, ("user", question.says))
            _, pid = await call.agent()
            kill(pid)
        await call.caller.wait(lambda: f"{BACK} {question.hears}" in call.said, "the answer", HEARD)
        for turn in (*others, *CONCIERGE.after):
            await call.turn(turn)
        assert " ".join(call.said).count(question.hears) == 1
        said = [text for _, text in (await call.stored()).said]
        assert said[:4] == [CONCIERGE.greeting, question.says, f"{BACK} {question.hears}", others[0].says]


@pytest.mark.long
@pytest.mark.parametrize("workers", [MUSEUM], indirect=True, ids=_name)
async def test_words_typed_while_a_call_is_handed_over_are_answered_once(workers: Workers) -> None:
    """Whatever is typed, from before the handover is asked for until after it, gets one answer, in its order."""
    async with performance(workers) as call:
        await call.greeted()
        await call.turn(MUSEUM.before[0])
        moving = asyncio.create_task(call.migrate())
        typed: list[Turn] = []
        # the agent goes when nothing has been said for a moment: one of these is in the air just then
        for turn in MUSEUM.others:
            typed.append(turn)
            await call.say(turn.says)
            await asyncio.wait({moving}, timeout=_RHYTHM)
            if moving.done():
                break
        await moving
        await call.caller.wait(lambda: len(call.said) > len(typed), "all answers", HEARD)
        await call.turn(MUSEUM.before[1])
        turns = [MUSEUM.before[0], *typed, MUSEUM.before[1]]
        assert call.said == [turn.hears for turn in turns]
        kept = (await call.stored()).said
        assert kept == [line for turn in turns for line in (("user", turn.says), ("assistant", turn.hears))]


@pytest.mark.long
@pytest.mark.parametrize("workers", [REMINDER], indirect=True, ids=_name)
async def test_the_third_successor_knows_whom_it_calls(workers: Workers) -> None:
    """What the first job was told every later one is told, and the number is dialled once."""
    async with performance(workers) as call:
        await call.greeted()
        await call.turn(REMINDER.before[0])
        instructions = call.asked[-1].instructions
        for _ in range(3):
            await call.suffers(Fault.CRASH)
            await call.turn(REMINDER.before[0])
            assert call.asked[-1].instructions == instructions
        assert len({one.pid for one in call.asked}) == 4
        assert call.effects == [REMINDER.effects[0]]
        async with workers.stage.livekit.api() as livekit:
            listed = await livekit.agent_dispatch.list_dispatch(call.room)
    dispatches = [one for one in listed if one.agent_name == REMINDER.agent_name]
    assert [one.metadata for one in dispatches] == [REMINDER.metadata] * len(dispatches)
    assert len(dispatches) >= 4


@pytest.mark.long
@pytest.mark.parametrize("workers", [HOTLINE], indirect=True, ids=_name)
@pytest.mark.parametrize("fault", [Fault.NOTHING, Fault.CRASH, Fault.MIGRATE])
async def test_a_call_that_is_over_ends_its_room(workers: Workers, fault: Fault) -> None:
    """The control of a room that stays: when the agent really hangs up, everybody is out, and nobody comes after it."""
    async with performance(workers) as call:
        await call.greeted()
        await call.turn(HOTLINE.before[0])
        await call.suffers(fault)
        await call.turn(HOTLINE.after[0])
        agents = len(call.caller.presences)
        await call.say(HOTLINE.others[0].says)

        async def is_over() -> bool:
            return not await workers.stage.livekit.participants(call.room)

        await wait_until(is_over, "the room to be gone", patience=HEARD)
        await _nobody_is_awaited(call)
        assert len(call.caller.presences) == agents


@pytest.mark.long
@pytest.mark.parametrize("workers", [RECEPTION], indirect=True, ids=_name)
@pytest.mark.parametrize("fault", [Fault.NOTHING, Fault.CRASH, Fault.MIGRATE])
async def test_the_last_line_is_heard_before_the_room_ends(workers: Workers, fault: Fault) -> None:
    """Once, from the agent that hangs up, by the caller's name; one that hands over, or dies, says nothing of it."""
    goodbye = RECEPTION.others[0]
    async with performance(workers) as call:
        await call.greeted()
        await call.turn(RECEPTION.before[0])
        await call.suffers(fault)
        await call.turn(RECEPTION.after[0])
        assert goodbye.hears not in call.said
        await call.say(goodbye.says)
        await call.caller.wait(lambda: goodbye.hears in call.said, "the last line", HEARD)

        async def is_over() -> bool:
            return not await workers.stage.livekit.participants(call.room)

        await wait_until(is_over, "the room to be gone", patience=HEARD)
        await _nobody_is_awaited(call)
        assert call.said.count(goodbye.hears) == 1
        assert (await call.stored()).said[-1] == ("assistant", goodbye.hears)


@pytest.mark.long
@pytest.mark.parametrize("workers", [MUSEUM], indirect=True, ids=_name)
async def test_an_agent_that_is_put_out_is_not_followed(workers: Workers) -> None:
    """Somebody removed it on purpose: the call is over for it, and no other agent is called."""
    async with performance(workers) as call:
        await call.greeted()
        await call.turn(MUSEUM.before[0])
        holder, pid = await call.agent()
        await workers.stage.livekit.remove_participant(call.room, f"agent-{holder}")
        await call.is_over_for(pid)
        await _nobody_is_awaited(call)
        assert len(call.caller.presences) == 1


@pytest.mark.long
@pytest.mark.parametrize("workers", [MUSEUM], indirect=True, ids=_name)
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.HANG])
async def test_an_interpreter_is_followed_by_an_interpreter(stage: Stage, workers: Workers, fault: Fault) -> None:
    """Two agents are in one room, each with its own part of the history; the one that dies is followed by its like."""
    interpreters = Workers(stage, INTERPRETER)
    try:
        await asyncio.to_thread(interpreters.ready)
        async with performance(workers) as call:
            await call.greeted()
            await stage.livekit.create_dispatch(INTERPRETER.agent_name, call.room)
            await call.caller.wait(lambda: len(call.caller.agents) == 2, "two agents", HEARD)
            await _listen(call)
            for turn, translated in zip(MUSEUM.before, INTERPRETER.before, strict=True):
                await _both(call, turn, translated)
            before = stage.model.asked(INTERPRETER.name)[-1]
            holder, _ = await call.agent()
            (kill if fault is Fault.CRASH else pause)(before.pid)
            await call.caller.wait(lambda: len(call.caller.presences) == 3, "another interpreter", HEARD)
            await call.is_over_for(before.pid)
            await _listen(call)
            await _both(call, MUSEUM.after[0], INTERPRETER.after[0])
            first = next(one for one in stage.model.asked(INTERPRETER.name, since=before.at) if one.pid != before.pid)
            assert first.messages == [
                *before.messages,
                {"role": "assistant", "content": before.reply.text},
                {"role": "user", "content": INTERPRETER.after[0].says},
            ]
            assert (await call.agent())[0] == holder
    finally:
        interpreters.stop()


async def _both(call: Performance, turn: Turn, translated: Turn) -> None:
    await call.say(turn.says)
    for line in (turn.hears, translated.hears):
        await call.caller.wait(lambda line=line: line in call.said, f"to hear {line!r}", HEARD)  # type: ignore[misc]


async def _listen(call: Performance) -> None:
    def all_listen() -> bool:
        told = call.caller.attributes
        return all(told.get(one.identity, {}).get("lk.agent.state") == "listening" for one in call.caller.agents)

    await call.caller.wait(all_listen, "all agents to listen", HEARD)


async def _is_asked(call: Performance) -> None:
    async def is_asked() -> bool:
        return bool(call.asked)

    await wait_until(is_asked, "the model to be asked")


async def _is_noted(call: Performance, line: tuple[str, str]) -> None:
    async def is_noted() -> bool:
        return line in (await call.stored()).said

    await wait_until(is_noted, f"{line} to be stored")


async def _nobody_is_awaited(call: Performance) -> None:
    """Wait until no record of an agent is left by which another one could be called."""
    async with Heartbeats(call.stage.settings) as heartbeats:

        async def is_forgotten() -> bool:
            return await heartbeats.find(call.room) is None

        await wait_until(is_forgotten, "the agent's record to go", patience=HEARD)
