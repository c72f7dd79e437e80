"""The examples in docstrings: what stands, indented, below a line that ends with ``Example:``.

An example stands in a coroutine that has every public name, and a client with an open conversation of its own.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("conversation_actors", "agent_worker")
_EXAMPLE = re.compile(r"(?:^|\s)Example:\n\n?((?: {4}.*\n|\n)+)", re.MULTILINE)
_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class DocstringExample:
    """One example: whose docstring has it, and its lines."""

    package: str
    name: str
    """Such as ``ConversationHandle.append``."""
    code: str

    def __str__(self) -> str:
        """Name it in a test's name."""
        return self.name


def docstring_examples() -> list[DocstringExample]:
    """Find every example in the docstrings of both packages."""
    return [
        DocstringExample(package, name, code)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, docstring in _docstrings(ast.parse(path.read_text()))
        for code in examples_in(docstring)
    ]


def examples_in(docstring: str) -> list[str]:
    """Cut the examples out of a docstring."""
    return [textwrap.dedent(found[1]).strip() for found in _EXAMPLE.finditer(f"{docstring}\n")]


def _docstrings(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, _Documented):
            name = f"{within}{node.name}"
            yield name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node, f"{name}.")
