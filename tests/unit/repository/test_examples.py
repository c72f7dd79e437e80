"""The examples explain themselves: a header of three sentences, a command, a line in the table, and a test."""

import ast
import re
from pathlib import Path

import pytest

from tests.adopt.example_shapes import ANSWERING, INTERPRETERS, TEAM

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_IN_CLUSTER = ROOT / "tests" / "cluster" / "test_examples.py"
_SENTENCE = re.compile(r"[.!?](?:\s|$)")


def test_the_seven_examples_are_there() -> None:
    """No example is missing, and none is there of which nothing else here speaks."""
    names = {path.stem for path in EXAMPLES}
    assert names == {"quickstart", "support", "tutor", "assistant", "workflow", "team", "plain_ray"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_header_says_in_three_sentences_what_is_shown_and_how_to_run_it(path: Path) -> None:
    """The command in it names the file as it is found from the repository's root."""
    header = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(_SENTENCE.findall(header.replace(f"{path.name}:", "").replace(path.name, ""))) == 3, header
    assert re.search(rf"`(python|agent-worker (dev|start)) examples/{path.name}[`: ]", header), header


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_stands_in_the_table(path: Path) -> None:
    """Whoever looks for an example finds all of them in one place."""
    table = (ROOT / "examples" / "README.md").read_text()
    assert table.count(f"| [{path.name}]({path.name}) |") == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_run_by_a_test(path: Path) -> None:
    """Either as the program of a call in which something is killed, or in a cluster."""
    in_calls = {Path(shape.program.partition(".py")[0]).stem for shape in (*ANSWERING, TEAM, INTERPRETERS)}
    assert path.stem in in_calls or f'start("{path.stem}"' in _IN_CLUSTER.read_text()
