"""What a task comes to, as JSON and back."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, NamedTuple

import pytest
from livekit.agents import Agent
from livekit.agents.beta.workflows import TaskGroupResult
from livekit.agents.llm import ToolError
from pydantic import BaseModel, PrivateAttr

from agent_worker.session.outcomes import MOST_RESULT_BYTES, read_outcome, write_outcome
from agent_worker.session.record_fields import UnstorableError

NEAR = Agent(instructions="x")


class Size(Enum):
    """Of a shirt."""

    SMALL = "s"


class Color(StrEnum):
    """Of a shirt, too."""

    RED = "red"


class Point(NamedTuple):
    """On a map."""

    x: int
    y: int


@dataclass(frozen=True)
class Address:
    """With anything in it."""

    street: str
    more: Any = None


@dataclass
class Order:
    """Of records in records."""

    to: Address
    at: datetime
    price: Decimal
    lines: list[Address] = field(default_factory=list)


class Guest(BaseModel):
    """As pydantic has it."""

    name: str
    born: date | None = None
    known: Any = None


class OutOfStockError(ToolError):
    """Whose constructor takes something else than its arguments."""

    def __init__(self, article: str, *, left: int) -> None:
        """`left`: how many there are."""
        super().__init__(f"no {article}")
        self.article, self.left = article, left


class UnfinishedError(ToolError):
    """Whose constructor does not call its base's, as LiveKit's own."""

    def __init__(self, ids: list[str]) -> None:
        """`ids`: whatever."""
        self.ids = ids


def there_and_back(value: object) -> Any:
    """What another process makes of it."""
    result, error = read_outcome(json.loads(json.dumps(write_outcome(value, NEAR))), NEAR)
    return result if error is None else error


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        "words",
        [1, "a", None],
        {"a": [1]},
        {},
        {"dict": 1},
        {1: "a", (2, 3): "b"},
        (1, (2, 3)),
        {1, 2},
        frozenset({"a"}),
        Size.SMALL,
        Point(1, 2),
        date(2026, 11, 26),
        datetime(2026, 11, 26, 12, tzinfo=UTC),
        Decimal("1.20"),
        Address("High Street"),
        Address("High Street", more=Address("Low Street", more=(1, 2))),
        Order(Address("x"), datetime(2026, 1, 1, tzinfo=UTC), Decimal(3), [Address("y")]),
        Guest(name="Anna", born=date(2000, 1, 1)),
        Guest(name="Anna", known=Address("x")),
        TaskGroupResult(task_results={"name": "Anna", "address": Address("High Street"), "size": Size.SMALL}),
    ],
)
def test_a_result_comes_back_equal_and_of_its_type(value: object) -> None:
    """A result is equal to what it was, and of its type, at every depth."""
    back = there_and_back(value)
    assert type(back) is type(value)
    assert back == value


def test_a_text_that_is_an_enumeration_member_stays_one() -> None:
    """A text that is a member of an enumeration stays one, inside a record too."""
    back = there_and_back(TaskGroupResult(task_results={"color": Color.RED, "colors": [Color.RED]}))
    assert type(back.task_results["color"]) is Color
    assert type(back.task_results["colors"][0]) is Color


@pytest.mark.parametrize(
    "error", [OutOfStockError("tea", left=2), UnfinishedError(["a"]), ToolError("no"), ValueError("a", 1)]
)
def test_an_exception_comes_back_with_arguments_and_attributes(error: Exception) -> None:
    """An exception has its arguments and its attributes, whatever its constructor takes."""
    back = there_and_back(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_exceptions_among_the_results_of_a_group_come_back() -> None:
    """As a group has them that goes on behind an error."""
    back = there_and_back(TaskGroupResult(task_results={"a": 1, "b": ToolError("no")}))
    assert back.task_results["a"] == 1
    assert isinstance(back.task_results["b"], ToolError)
    assert back.task_results["b"].message == "no"


class Secretive(BaseModel):
    """With an attribute that JSON does not have."""

    name: Any = None
    _known: int = PrivateAttr(default=0)


def _secretive() -> Secretive:
    made = Secretive(name=Size.SMALL)
    made._known = 3
    return made


class Plain:
    """No record."""


def _local() -> object:
    @dataclass
    class Local:
        name: str = "private words"

    return Local()


def _endless() -> Address:
    address = Address("x")
    object.__setattr__(address, "more", address)
    return address


@pytest.mark.parametrize(
    "value",
    [
        Plain(),
        _local(),
        _endless(),
        _secretive(),
        object(),
        float("nan"),
        {"a": float("inf")},
        b"\xff",
        "x" * (MOST_RESULT_BYTES + 1),
        Address("x" * MOST_RESULT_BYTES),
        ["x"] * MOST_RESULT_BYTES,
        lambda: None,
        ToolError,
        ValueError(Plain()),
    ],
)
def test_an_unstorable_result_is_refused_without_being_quoted(value: object) -> None:
    """It is refused, and what is told of it quotes nothing."""
    with pytest.raises(UnstorableError) as refused:
        write_outcome(value, NEAR)
    assert "private words" not in str(refused.value)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"result": {}},
        {"result": {"value": {"type": "os:system", "json": "x"}}},
        {"result": {"value": {"type": "antigravity:Agent", "json": 1}}},
        {"result": {"record": {"type": "subprocess:Popen", "fields": {"args": "x"}}}},
        {"result": {"record": {"type": f"{__name__}:Gone", "fields": {}}}},
        {"result": {"error": {"type": "builtins:dict", "args": [], "is": {}}}},
        {"result": {"other": {"type": f"{__name__}:Address"}}},
        {"result": {"value": {"type": f"{__name__}:Size", "json": "xl"}}},
        {"raised": 3},
        {"raised": {"error": {"type": "builtins:SystemExit", "args": [1], "is": {}}}},
        {"result": {"dict": 3}},
    ],
)
def test_a_foreign_outcome_makes_nothing_and_imports_nothing(stored: dict[str, Any]) -> None:
    """What somebody else wrote, or an older version of the application, makes nothing, and imports nothing."""
    with pytest.raises(UnstorableError):
        read_outcome(stored, NEAR)
