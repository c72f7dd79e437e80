"""What the agents of this folder differ in from agents that know nothing of this project."""

from pathlib import Path

import pytest

from tests.adopt.shapes import COURIER, INTERPRETER, SHAPES, Shape

AGENTS = Path(__file__).parent / "agents"
IMPORT = "from agent_worker import attach"
_OURS = ("agent_worker", "conversation_actors", "attach(", "conversation.")


def test_every_agent_has_its_shape() -> None:
    """No file is left out of the tests, and there are at least ten."""
    files = {path.stem for path in AGENTS.glob("*.py")}
    assert files == {shape.name for shape in (*SHAPES, INTERPRETER, COURIER)}
    assert len(files) >= 10


@pytest.mark.parametrize("shape", [*SHAPES, INTERPRETER, COURIER], ids=lambda shape: shape.name)
def test_an_agent_differs_by_the_lines_that_are_told(shape: Shape) -> None:
    """Without the import and the lines of its diff, each once, nothing of this project is left in the file."""
    lines = [line.strip() for line in (AGENTS / f"{shape.name}.py").read_text().splitlines()]
    for ours in (IMPORT, *shape.diff):
        assert lines.count(ours) == 1, ours
        lines.remove(ours)
    assert [line for line in lines if any(word in line for word in _OURS)] == []
