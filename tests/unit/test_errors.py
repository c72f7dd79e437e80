"""The error tree: what a caller can rely on in another process."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from conversation_actors import errors
from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    InvalidInputError,
    ItemTooLargeError,
    RefusedError,
    RetryableError,
)

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "LeaseHeldError": {"holder": "worker-1", "expires_at": 12.5},
    "LeaseLostError": {"name": "agent", "token": 17},
    "PositionLostError": {"first_available": 7},
    "InvalidInputError": {"field": "metadata.address[2]"},
    "ItemTooLargeError": {"field": "items", "size": 9, "limit": 8},
    "StoreMisconfiguredError": {"lacks_right": True},
    "CorruptStateError": {"key": "conv:{a}:snapshot", "position": 41},
}
"""Arguments of the classes that take more than a message."""


def family(kind: type[ConversationError]) -> Iterator[type[ConversationError]]:
    """Return a class and everything below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


CLASSES = sorted(
    (kind for kind in family(ConversationError) if kind.__module__ == errors.__name__), key=lambda k: k.__name__
)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(kind: type[ConversationError], protocol: int) -> None:
    """Class, text, attributes and notes arrive; Ray carries every error between processes."""
    attributes = ATTRIBUTES.get(kind.__name__, {})
    error = kind("what happened", **attributes)
    error.add_note("where")
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is kind
    assert str(twin) == "what happened"
    assert twin.args == error.args
    assert vars(twin) == {**attributes, "__notes__": ["where"]}


@pytest.mark.parametrize("kind", CLASSES)
def test_error_can_be_copied(kind: type[ConversationError]) -> None:
    """Frameworks copy errors to raise them in another place."""
    error = kind("what happened", **ATTRIBUTES.get(kind.__name__, {}))
    assert vars(copy.copy(error)) == vars(copy.deepcopy(error)) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_in_the_tree_of_the_docstring(kind: type[ConversationError]) -> None:
    """The module's docstring is where a reader looks first."""
    assert kind.__name__ in str(errors.__doc__)
    assert kind.__doc__


def test_tree_names_no_class_that_is_gone() -> None:
    """Every name in the docstring's tree exists."""
    named = {word for word in str(errors.__doc__).replace("─", " ").split() if word.endswith("Error")}
    assert named == {kind.__name__ for kind in CLASSES}


def test_no_class_is_both_for_repeating_and_for_giving_up() -> None:
    """The tree sorts by what the caller should do, so its branches exclude each other."""
    roots = [set(family(root)) for root in ConversationError.__subclasses__()]
    assert sum(len(root) for root in roots) == len(set().union(*roots))
    assert not issubclass(RefusedError, RetryableError)


def test_too_large_is_a_kind_of_invalid_input() -> None:
    """Who catches bad input catches size as well."""
    assert issubclass(ItemTooLargeError, InvalidInputError)


def test_corruption_gets_its_key_later() -> None:
    """The codec knows the bytes, the store knows the key."""
    error = CorruptStateError("byte 3: not JSON", key="", position=3).at("conv:{a}:snapshot")
    assert str(error) == "conv:{a}:snapshot: byte 3: not JSON"
    assert (error.key, error.position) == ("conv:{a}:snapshot", 3)
