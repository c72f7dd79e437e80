"""README.md and docs: their code is checked as strictly as our own, their links lead somewhere, the site is built."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT, Block, anchors, blocks, documents, links, words

MAX_README_WORDS = 500

pytestmark = pytest.mark.processes


def test_the_first_thing_in_the_readme_is_a_whole_program() -> None:
    """What a newcomer copies first can be run as it stands; tests/cluster does it."""
    first = blocks()[0]
    assert (first.file, first.is_program) == ("README.md", True)


def test_the_first_program_runs_without_ray_and_redis(tmp_path: Path) -> None:
    """With the one variable that README names, as it stands, and it says nothing on standard error."""
    ran = subprocess.run(
        [sys.executable, "-c", blocks()[0].code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CONVERSATION_REDIS_URL": "memory://"},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "['Where is my order?', 'On its way.'] True\n"


def test_the_readme_has_at_most_500_words_outside_its_code() -> None:
    """Everything else has a page of its own in docs."""
    assert words(ROOT / "README.md") <= MAX_README_WORDS


def test_the_versions_are_those_that_the_package_asks_for() -> None:
    """README and the overview name the lowest Python, Ray, redis-py, pydantic and livekit-agents of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(re.findall(r"^([a-z-]+)>=([\d.]+)", "\n".join(_requirements(project)), re.MULTILINE))
    told = (ROOT / "README.md").read_text() + (ROOT / "docs" / "index.md").read_text()
    for name, package in {"Python": "python", "Ray": "ray", "livekit-agents": "livekit-agents"}.items():
        assert f"{name} ≥ {bounds[package]}" in told
    for name, package in {"Ray": "ray", "redis-py": "redis", "pydantic": "pydantic"}.items():
        assert f"| {name} | {bounds[package]} or newer" in told
    assert f"| Python | {bounds['python']} or newer" in told
    assert f"| livekit-agents | {bounds['livekit-agents']} or newer" in told


def test_each_agent_in_tests_adopt_has_a_row_on_the_page_about_recovery() -> None:
    """The page lists the shapes of agents that are tried, and no others."""
    rows = re.findall(r"^\|.*\| `(\w+\.py)` \|", (ROOT / "docs" / "livekit-recovery.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.name for path in (ROOT / "tests" / "adopt" / "agents").glob("[a-z]*.py"))


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    """On GitHub, where README.md, docs and other documents are read as they are in the repository."""
    broken = [target for target in links(page) if not _is_there(page, target)]
    assert broken == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    """The check above can fail: of these three only the first leads to a heading that exists."""
    # the last one is not written out, or test_citations would look for it
    targets = ["docs/guarantees.md#what-is-guaranteed", "docs/guarantees.md#nowhere", f"docs/{'nowhere'}.md"]
    assert [_is_there(ROOT / "README.md", target) for target in targets] == [True, False, False]


@pytest.mark.timeout(120)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """No page is missing from the navigation, and no link or anchor on the site leads nowhere."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.timeout(300)
def test_the_documents_code_has_the_types_it_shows(tmp_path: Path) -> None:
    """Every block passes a strict type checker; a part of a program with a documented prelude before it."""
    files = {f"block_{number}.py": block for number, block in enumerate(blocks())}
    for name, block in files.items():
        (tmp_path / name).write_text(block.to_module())
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *(tmp_path / name for name in files)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert checked.returncode == 0, f"{_located(checked.stdout, files)}{checked.stderr}"


def _requirements(project: dict[str, Any]) -> list[str]:
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return [f"python{project['requires-python']}", *project["dependencies"], *extras["agent"]]


def _is_there(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    led_to = page.parent / name if name else page
    return led_to.exists() and (not anchor or anchor in anchors(led_to))


def _located(told: str, files: dict[str, Block]) -> str:
    for name, block in files.items():
        told = told.replace(name, f"{name} ({block})")
    return told
