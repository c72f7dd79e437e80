"""What a user calls has a short example in its docstring, and every example runs, on a client in this process."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import conversation_actors
from conversation_actors import ConversationClient, ConversationHandle, Heartbeats, Item
from conversation_actors.archive.database import Database
from conversation_actors.backend.client import BackendClient
from conversation_actors.testing import backend_double, crash, local_client
from tests.support.docstring_examples import DocstringExample, docstring_examples, examples_in

MAX_LINES = 12
"""A longer one is a program, and belongs into `examples/`."""
_NAMES: dict[str, Any] = {
    **{name: getattr(conversation_actors, name) for name in conversation_actors.__all__},
    "BackendClient": BackendClient,
    "SecretStr": SecretStr,
    "UTC": UTC,
    "backend_double": backend_double,
    "crash": crash,
    "datetime": datetime,
    "local_client": local_client,
    "timedelta": timedelta,
}
_ALL = docstring_examples()
_HERE = [one for one in _ALL if one.package == "conversation_actors"]
_WITHOUT = {"check_cluster", "ConversationHandle.catch_up", "ConversationHandle.show"}
"""What asks a Ray cluster, and nothing else; and what only a client calls."""


def _in_coroutine(code: str) -> Callable[..., Any]:
    program = f"async def example(client, conversation):\n{textwrap.indent(code, '    ')}"
    made = dict(_NAMES)
    exec(compile(ast.parse(program), "<example>", "exec"), made)  # noqa: S102  # our own docstrings
    example: Callable[..., Any] = made["example"]
    return example


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example reads from the environment is a store in this process."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "memory://docstring-examples")


_OF_THE_ARCHIVE = {"ConversationHandle.history", "ConversationClient.archive_lag", "ConversationClient.sessions"}


@pytest.fixture
async def archive(example: DocstringExample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What needs an archive has a file of its own."""
    if example.name in _OF_THE_ARCHIVE:
        url = f"sqlite+aiosqlite:///{tmp_path / 'archive.db'}"
        monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", url)
        database = Database(SecretStr(url), timeout=timedelta(seconds=20))
        await database.migrate()
        await database.aclose()


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize("example", _HERE, ids=str)
async def test_an_example_runs(example: DocstringExample) -> None:
    """It raises nothing, and what it asserts is so."""
    async with local_client() as client:
        await _in_coroutine(example.code)(client, await client.open("support-42"))


@pytest.mark.parametrize("example", _ALL, ids=str)
def test_an_example_is_short(example: DocstringExample) -> None:
    """It can be read at a glance."""
    assert len(example.code.splitlines()) <= MAX_LINES


def _called_by_users() -> Iterator[str]:
    """Name what a user calls: classes that are made, functions, and the methods of what a user holds."""
    for name in conversation_actors.__all__:
        value = getattr(conversation_actors, name)
        is_item = inspect.isclass(value) and issubclass(value, Item) and value is not Item
        if inspect.isfunction(value) or is_item or value in {ConversationClient, Heartbeats}:
            yield name
    for held in (ConversationClient, ConversationHandle):
        yield from (f"{held.__name__}.{name}" for name, one in vars(held).items() if _is_called(name, one))


def _is_called(name: str, value: object) -> bool:
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))


@pytest.mark.parametrize("name", sorted(set(_called_by_users()) - _WITHOUT))
def test_what_a_user_calls_has_an_example(name: str) -> None:
    """Whoever looks it up in an editor sees how it is used."""
    assert name in {one.name for one in _ALL}


def test_an_example_that_is_wrong_is_told_of() -> None:
    """The runner finds what stands below the word, with or without an empty line between, and no more."""
    docstring = "Do it. Example:\n\n    assert False\n\nRaises nothing.\n\nExample:\n    done()\n"
    assert examples_in(docstring) == ["assert False", "done()"]


async def test_an_example_that_fails_fails_its_test() -> None:
    """An assertion in it is not passed over."""
    with pytest.raises(AssertionError):
        await _in_coroutine("assert False")(None, None)
