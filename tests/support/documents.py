"""The code in README.md and docs: every block of Python, as a file that can be run or whose types can be checked.

A block with ``asyncio.run(`` is a whole program. Any other is a part of one: it stands in a coroutine that is given the
names of `PRELUDE`, and ``…`` in it stands for a value of the reader's own. A ``diff`` is what it leads to; what the
reader has already is written as LiveKit's documentation writes it, which is not strict.

`links` and `words` are what else a test asks of a page.
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
"""What a part of a program may use without an import; on a page about LiveKit the conversation is a call's."""
_FENCE = re.compile(r"^```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


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
        handle = "CallConversation" if Path(self.file).name.startswith("livekit") else "ConversationHandle"
        return lenient + PRELUDE.replace("HANDLE", handle) + textwrap.indent(self.code.replace("…", "yours()"), "    ")


def pages() -> list[Path]:
    """Return README.md and every page of docs, in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documents() -> list[Path]:
    """Return the pages and every other document for people, in order."""
    others = [path for folder in ("benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.md"))]
    return [*pages(), *sorted(path for path in ROOT.glob("*.md") if path.name != "README.md"), *others]


def blocks() -> list[Block]:
    """Return every block of the pages, in order."""
    return [block for path in pages() for block in _blocks(path)]


def words(path: Path) -> int:
    """Count the words of a page that stand in no block of code."""
    return len(_ANY_FENCE.sub("", path.read_text()).split())


def links(path: Path) -> list[str]:
    """Return where a page's links lead, without those that leave the repository."""
    found = _LINK.findall(_ANY_FENCE.sub("", path.read_text()))
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def anchors(path: Path) -> set[str]:
    """Return the names that a page's headings have in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _ANY_FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
