"""docs/decisions, and other pages that name tests, held to the repository: what they cite as evidence is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
PAGES = [
    *sorted(DECISIONS.glob("*.md")),
    *(DOCS / name for name in ("internals.md", "glossary.md", "guarantees.md", "archive.md")),
    ROOT / "CONTRIBUTING.md",
]
PARTS = ["Context", "Decision", "Consequences", "Evidence"]

_CITED = re.compile(r"`(?P<file>(?:tests|benchmarks)/[\w./-]+\.\w+)(?:::(?P<test>\w+))?`")
_LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?:#[^)]*)?\)")


def missing(text: str) -> list[str]:
    """Return the files and tests that a text names in backticks, and that are not in the repository."""
    return [found[0].strip("`") for found in _CITED.finditer(text) if not _is_there(found["file"], found["test"])]


def _is_there(file: str, test: str | None) -> bool:
    path = ROOT / file
    return path.exists() and (test is None or test in _functions(path))


def _functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_evidence_that_a_page_names_is_in_the_repository(page: Path) -> None:
    """A test that was renamed or deleted is noticed where a document relies on it."""
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_file_or_a_test_that_is_not_there_is_found() -> None:
    """The check above can fail: of these three only the first names something that exists."""
    here = "tests/unit/repository/test_decisions.py"
    text = f"`{here}::test_records_have_their_parts_in_order` `{here}::test_nothing` `tests/unit/nowhere.py`"

    assert missing(text) == [f"{here}::test_nothing", "tests/unit/nowhere.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_decisions_lead_somewhere(page: Path) -> None:
    """A link to a record, or from a record, names a page that exists."""
    targets = [found["target"] for found in _LINK.finditer(page.read_text(encoding="utf-8"))]
    links = [page.parent / target for target in targets]

    assert [str(link) for link in links if DECISIONS in (link.parent, page.parent) and not link.exists()] == []


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_records_have_their_parts_in_order(record: Path) -> None:
    """Each record says what was to be decided, what was, what follows, and where that is proven."""
    assert re.findall(r"^## (.+)$", record.read_text(encoding="utf-8"), re.MULTILINE) == PARTS


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_every_record_cites_a_test(record: Path) -> None:
    """A decision without a proof in the repository is an opinion."""
    assert "`tests/" in record.read_text(encoding="utf-8").partition("## Evidence")[2]


def test_every_record_is_in_the_index() -> None:
    """The index has all records, by their names and in their order."""
    index = (DECISIONS / "index.md").read_text(encoding="utf-8")

    assert re.findall(r"\((\d{4}[\w-]*\.md)\)", index) == [record.name for record in RECORDS]
