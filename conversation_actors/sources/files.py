"""The reader of ``.env`` files. Any mistake in one is an `InvalidInputError`: one sentence with file and line."""

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from conversation_actors.errors import InvalidInputError

FILES = (".env.local", ".env")
"""Files in the current directory. If both set a variable, the first one counts."""


_FEW = 8
"""Number of files whose contents are remembered: each group of settings reads the same ones."""


def read(name: str) -> Mapping[str, str | None]:
    """Return the variables of a file, spelt as they are there; none if there is no such file."""
    path = Path(name)  # relative: the current directory may no longer exist
    text = _text(path)
    if not text:
        return {}
    _check(path, text)
    return _values(text) if "$" in text else _plain_values(text)


def refuse(path: Path, what: str) -> NoReturn:
    """Raise the `InvalidInputError` that refuses a file."""
    message = f"{path.absolute()}: {what}"
    raise InvalidInputError(message, field=path.name) from None


def _values(text: str) -> Mapping[str, str | None]:
    """Parse a file. What a ``$`` in it stands for depends on the environment, which may change."""
    return dotenv_values(stream=io.StringIO(text))


@lru_cache(_FEW)
def _plain_values(text: str) -> Mapping[str, str | None]:
    return _values(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except IsADirectoryError:
        if (path / "pyvenv.cfg").exists():
            return ""
        refuse(path, "is a directory, and should be a file of NAME=value lines")
    except UnicodeDecodeError as error:
        refuse(path, f"line {error.object[: error.start].count(10) + 1}: not UTF-8")
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")


@lru_cache(_FEW)
def _check(path: Path, text: str) -> None:
    """Refuse the first line that is not ``NAME=value``. The parser itself passes over such a line, and logs that."""
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # the parser's line is that of the empty lines before the faulty one
            written = binding.original.string
            line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            refuse(path, f"line {line}: not NAME=value")
