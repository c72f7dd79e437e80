"""The code in README.md and docs is right: it is checked as strictly as our own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, Block, blocks

pytestmark = pytest.mark.processes


def test_the_first_thing_in_the_readme_is_a_whole_program() -> None:
    """What a newcomer copies first can be run as it stands; tests/cluster does it."""
    first = blocks()[0]
    assert (first.file, first.is_program) == ("README.md", True)


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


def _located(told: str, files: dict[str, Block]) -> str:
    for name, block in files.items():
        told = told.replace(name, f"{name} ({block})")
    return told
