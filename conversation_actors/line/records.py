"""Records that travel by name: commands, results of commands, and errors with their attributes."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

from conversation_actors.errors import ConversationError
from conversation_actors.line.fields import Record, RecordFields, fields_of, read_text, row_of
from conversation_actors.line.frames import FrameError
from conversation_actors.state import AppendItems, Command, Lease, Participant


def _attributes(kind: type[ConversationError]) -> RecordFields[ConversationError]:
    """Return how an error's attributes travel: they are what its `__init__` takes by name."""
    hints = get_type_hints(kind.__init__)
    parameters = inspect.signature(kind.__init__).parameters.values()
    return RecordFields(kind, {one.name: hints[one.name] for one in parameters if one.kind is one.KEYWORD_ONLY})


def _errors(kind: type[ConversationError]) -> Iterator[type[ConversationError]]:
    """Return an error of this package with all that are derived from it here."""
    yield kind
    for one in kind.__subclasses__():
        if one.__module__ == ConversationError.__module__:
            yield from _errors(one)


COMMANDS: Mapping[str, RecordFields[Any]] = {
    kind.__name__: fields_of(kind) for kind in get_args(Command) if kind is not AppendItems
}
"""All commands but the most frequent one, whose items travel as rows."""
RESULTS: Mapping[str, RecordFields[Any]] = {kind.__name__: fields_of(kind) for kind in (Participant, Lease)}
ERRORS: Mapping[str, RecordFields[ConversationError]] = {
    kind.__name__: _attributes(kind) for kind in _errors(ConversationError)
}


def pack_named(record: Any, registry: Mapping[str, RecordFields[Any]]) -> tuple[str, tuple[Any, ...]]:
    """Return a record as its name and its fields."""
    name = type(record).__name__
    return name, registry[name].pack(record)


def read_named(given: Any, registry: Mapping[str, RecordFields[Record]]) -> Record:
    """Return the record of what `pack_named` made. Raises `FrameError` for anything else, and for an unknown name."""
    name, fields = row_of(given, 2)
    return _registered(name, registry).build(fields)


def pack_error(error: ConversationError) -> tuple[str, str, tuple[Any, ...]]:
    """Return an error as its name, its sentence and its attributes.

    An error of a class that no other process knows travels as the nearest class above that this package has.
    """
    name = next(kind.__name__ for kind in type(error).__mro__ if _is_ours(kind))
    return name, str(error.args[0]) if error.args else "", ERRORS[name].pack(error)


def read_error(given: Any) -> ConversationError:
    """Return the error of what `pack_error` made. Raises `FrameError` for anything else, and for an unknown name."""
    name, sentence, attributes = row_of(given, 3)
    fields = _registered(name, ERRORS)
    values = fields.read(attributes)
    # As pickle does it: without `__init__`, which may put the sentence together anew.
    error = fields.kind.__new__(fields.kind, read_text(sentence))
    error.__dict__.update(values)
    return error


def _is_ours(kind: type) -> bool:
    return kind.__name__ in ERRORS and ERRORS[kind.__name__].kind is kind


def _registered(name: Any, registry: Mapping[str, RecordFields[Record]]) -> RecordFields[Record]:
    found = registry.get(read_text(name))
    if found is None:
        message = "a record came whose name is not known here"
        raise FrameError(message)
    return found
