"""The examples in the docstrings of what an agent calls run, in a job of LiveKit's own for tests."""

import ast
import textwrap
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from livekit.agents import Agent, JobContext
from livekit.agents.testing import fake_job_context

from agent_worker import active_agent, attach, open_conversation
from agent_worker.offline import OfflineServer
from tests.support.docstring_examples import DocstringExample, docstring_examples
from tests.worker.conftest import SessionFactory

EXAMPLES = [one for one in docstring_examples() if one.package == "agent_worker"]


class Assistant(Agent):
    """Whom a session of an example starts with."""

    def __init__(self, *, seen_before: bool = False) -> None:
        """`seen_before`: whether the caller has been here."""
        super().__init__(instructions="Welcome back." if seen_before else "Welcome.")


class Specialist(Agent):
    """To whom an example's agent hands over."""

    def __init__(self, saved: Any = None) -> None:
        """`saved`: what the one before has left."""
        super().__init__(instructions=f"You know {saved}.")


@pytest_asyncio.fixture
async def context() -> AsyncIterator[JobContext]:
    """A job without a room."""
    with fake_job_context() as made:
        yield made
        made._tempdir.cleanup()


def test_what_an_agent_calls_has_an_example() -> None:
    """The three functions with which every agent begins."""
    assert {"attach", "open_conversation", "active_agent"} <= {one.name for one in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
async def test_an_example_runs(
    example: DocstringExample, context: JobContext, server: OfflineServer, new_session: SessionFactory
) -> None:
    """As it stands, in an entrypoint."""
    names: dict[str, Any] = {
        "active_agent": active_agent, "attach": attach, "open_conversation": open_conversation,
        "Assistant": Assistant, "Specialist": Specialist,
    }  # fmt: skip
    program = f"async def example(ctx, session, conversation):\n{textwrap.indent(example.code, '    ')}"
    exec(compile(ast.parse(program), "<example>", "exec"), names)  # noqa: S102  # our own docstrings
    entrypoint: Callable[..., Any] = names["example"]
    await entrypoint(context, await new_session(server), await open_conversation(context))
