"""Nothing that is written here cites a file that is not in the repository."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WRITTEN = (
    "*.md",
    "*.toml",
    "*.yaml",
    "Makefile",
    "noxfile.py",
    *(
        f"{folder}/**/*"
        for folder in ("agent_worker", "benchmarks", "conversation_actors", "docs", "examples", "tests")
    ),
)
KINDS = {".css", ".html", ".js", ".lua", ".md", ".py", ".toml", ".yaml", ""}
ELSEWHERE = {"node_modules", "vendor", "__pycache__"}

DOCUMENT = re.compile(r"(?<![\w/.:@{}<*-])(?:[\w.-]+/)*[\w.-]+\.md\b")
SOURCE = re.compile(r"(?<![\w/.:@{}<*-])(?:[\w.-]+/)+[\w-]+\.(?:py|lua|js)\b")
WORD = re.compile(r"\b(?:DESIGN|STYLE)\b(?!\s*=)")
EXAMPLES = re.compile(r"^(?:path/to|src|my_\w+|examples/my)\b")
"""What a reader is to put a path of their own for."""


def kept() -> Iterator[Path]:
    """Find every file of the repository that may be cited."""
    for pattern in WRITTEN:
        yield from (path for path in sorted(ROOT.glob(pattern)) if path.is_file())


def files() -> Iterator[Path]:
    """Find every text of the repository that somebody has written for it."""
    return (path for path in kept() if path.suffix in KINDS and not ELSEWHERE.intersection(path.parts))


def is_there(cited: str, beside: Path, there: set[str]) -> bool:
    """Return whether a file is in the repository, from its root, from whoever cites it, or by the end of its path."""
    if (ROOT / cited).is_file() or (beside / cited).is_file():
        return True
    return any(name.endswith(f"/{cited}") for name in there)


def uncited(text: str, where: Path, there: set[str]) -> list[str]:
    """Return what a text cites that is not in the repository. Tests may name sources of their own making."""
    found = [*DOCUMENT.findall(text), *WORD.findall(text)]
    if where.relative_to(ROOT).parts[0] != "tests":
        found += SOURCE.findall(text)
    return [cited for cited in found if not EXAMPLES.match(cited) and not is_there(cited, where.parent, there)]


def test_nothing_cites_a_file_that_is_not_here() -> None:
    """Documents, docstrings, comments and settings of tools: what they point to, a reader can open."""
    there = {path.relative_to(ROOT).as_posix() for path in kept()}
    this = Path(__file__)

    assert [
        f"{path.relative_to(ROOT)}: {cited}"
        for path in files()
        if path != this
        for cited in uncited(path.read_text(encoding="utf-8"), path, there)
    ] == []


def test_the_walk_finds_what_is_written() -> None:
    """The check above reads documents, sources, scripts and the settings of tools."""
    names = {path.relative_to(ROOT).as_posix() for path in files()}

    assert {
        "README.md",
        "pyproject.toml",
        "agent_worker/settings.py",
        "conversation_actors/store/lua/append.lua",
    } <= names


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("see research/ray.md", "research/ray.md"),
        ("see docs/nowhere.md for more", "docs/nowhere.md"),
        ("(STYLE.md, rule 11)", "STYLE.md"),
        ("as DESIGN has it", "DESIGN"),
        ("`worker/parent.py` starts it", "worker/parent.py"),
        ("the script `store/lua/nothing.lua`", "store/lua/nothing.lua"),
    ],
)
def test_a_citation_of_what_is_not_here_is_found(text: str, cited: str) -> None:
    """Whatever kind of file it is, and whether its ending is given."""
    found = uncited(text, ROOT / "docs" / "page.md", {"README.md"})

    assert cited in found


@pytest.mark.parametrize(
    "text",
    [
        "see README.md",
        "`state/decisions.py` decides",
        "agent-worker start path/to/agent.py",
        "https://example.org/docs/nowhere.md",
        "STYLE = 1",
    ],
)
def test_a_citation_of_what_is_here_passes(text: str) -> None:
    """So do addresses elsewhere, and places for a reader's own files."""
    there = {"README.md", "conversation_actors/state/decisions.py"}

    assert uncited(text, ROOT / "docs" / "page.md", there) == []
