"""Waiting for an actor's answer: whoever gives up waiting disturbs nobody, through Ray's client neither."""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import pytest

from conversation_actors.runtime.answers import answer_of


class Direct:
    """What a call gives where the process is in the cluster itself."""

    def __await__(self) -> Generator[Any, None, str]:
        """Note that the answer is there."""
        yield from asyncio.sleep(0).__await__()
        return "direct"


class ThroughClient:
    """What a call gives through Ray's client: its answer comes in another thread, whether it was cancelled or not."""

    def __init__(self) -> None:
        """Not answered yet."""
        self._future: Future[str] = Future()

    def __await__(self) -> Generator[Any, None, str]:
        """As Ray's own has it: who is cancelled there cancels the future."""
        return asyncio.wrap_future(self._future).__await__()

    def future(self) -> "Future[str]":
        """As Ray's own has it."""
        return self._future

    async def say(self, answer: str | Exception) -> None:
        """Answer in another thread, as Ray does: raises where somebody has cancelled the future."""
        done = self._future.set_exception if isinstance(answer, Exception) else self._future.set_result
        await asyncio.to_thread(done, answer)  # type: ignore[arg-type]  # each takes what it is chosen by


ThroughClient.__module__ = "ray.util.client.common"


async def test_an_answer_comes_as_it_is() -> None:
    """In the cluster, through the client, and as an error."""
    assert await answer_of(Direct()) == "direct"
    for answer in ("hello", OSError("gone")):
        reference = ThroughClient()
        waiting = asyncio.create_task(answer_of(reference))
        await reference.say(answer)
        if isinstance(answer, OSError):
            with pytest.raises(OSError, match="gone"):
                await waiting
        else:
            assert await waiting == answer


@pytest.mark.parametrize("answer", ["hello", OSError("gone")])
async def test_who_gives_up_leaves_rays_thread_alone(answer: str | Exception) -> None:
    """Ray's client does not look whether its future was cancelled, and prints a traceback when it was."""
    reference = ThroughClient()
    waiting = asyncio.create_task(answer_of(reference))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await reference.say(answer)


def test_an_answer_behind_the_end_of_the_loop_is_nobodys() -> None:
    """The process is about to end, and says nothing of it."""
    reference = ThroughClient()

    async def give_up() -> None:
        waiting = asyncio.create_task(answer_of(reference))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(give_up())
    reference.future().set_result("late")
