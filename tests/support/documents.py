"""The code in README.md and docs: every block of Python, as a file that can be run or whose types can be checked.

A block with ``asyncio.run(`` is a whole program. Any other is a part of one: it stands in a coroutine that is given the
names of `PRELUDE`, and ``…`` in it stands for a value of the reader's own. A ``diff`` is what it leads to; what the
reader has already is written as LiveKit's documentation writes it, which is not strict.
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELUDE = """
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, function_tool

from agent_worker import CallConversation, attach, migrate, open_conversation
from conversation_actors import ConversationClient, ConversationHandle


class Assistant(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="")


def yours() -> Any:
    raise NotImplementedError


async def part(
    client: ConversationClient,
    conversation: HANDLE,
    ctx: JobContext,
    session: AgentSession[Any],
    agent: Agent,
) -> None:
"""
"""What a part of a program may use without saying where it comes from; in docs a conversation is a call's."""
_FENCE = re.compile(r"^```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code: in which file, from which line on."""

    file: str
    line: int
    code: str
    is_diff: bool

    def __str__(self) -> str:
        """Name it in a test's name."""
        return f"{self.file}:{self.line}"

    @property
    def is_program(self) -> bool:
        """Whether it can be run as it stands."""
        return "asyncio.run(" in self.code

    def to_module(self) -> str:
        """Its text in a file of its own."""
        if self.is_program:
            return self.code
        lenient = '# mypy: disable-error-code="no-untyped-def, var-annotated"\n' if self.is_diff else ""
        handle = "ConversationHandle" if self.file == "README.md" else "CallConversation"
        return lenient + PRELUDE.replace("HANDLE", handle) + textwrap.indent(self.code.replace("…", "yours()"), "    ")


def blocks() -> list[Block]:
    """Every block of README.md and docs, in order."""
    return [block for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) for block in _blocks(path)]


def _blocks(path: Path) -> list[Block]:
    text, name = path.read_text(), str(path.relative_to(ROOT))
    return [
        Block(
            name,
            text.count("\n", 0, found.start()) + 1,
            _result(found[2]) if found[1] == "diff" else found[2],
            found[1] == "diff",
        )
        for found in _FENCE.finditer(text)
    ]


def _result(diff: str) -> str:
    """Return what a diff leads to."""
    return "".join(line[1:] or "\n" for line in diff.splitlines(keepends=True) if not line.startswith("-"))
