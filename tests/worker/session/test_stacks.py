"""Where a failure happened, as text: what led to it and how, and none of its words."""

import pytest

from agent_worker.session.stacks import MAX_STACK_BYTES, stack_of

PRIVATE = "private words"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Raise an error, because of another one."""
    try:
        raise error from cause  # noqa: TRY301  # it has to have been raised
    except BaseException as caught:  # noqa: BLE001  # any kind
        return caught


def deep(depth: int) -> None:
    """Fail far down."""
    if depth:
        deep(depth - 1)
    raise ValueError(PRIVATE)


def test_a_stack_has_lines_of_code_and_kinds_of_errors_and_no_message() -> None:
    """Those of the errors that led to it first."""
    told = stack_of(raised(ConnectionError(PRIVATE), raised(TimeoutError(PRIVATE))))

    assert told is not None
    assert PRIVATE not in told
    assert "in raised" in told
    assert told.index("TimeoutError") < told.index("ConnectionError")
    assert told.endswith("ConnectionError")


def test_an_error_that_came_while_another_was_handled_is_told_with_it() -> None:
    """Unless its author said that they have nothing to do with each other."""
    error = KeyError(PRIVATE)
    try:
        deep(0)
    except ValueError as first:
        error.__context__ = first
    told, hidden = stack_of(error), stack_of(raised(error))

    assert told is not None
    assert "ValueError" in told
    assert hidden is not None
    assert "ValueError" not in hidden


@pytest.mark.parametrize("error", [ValueError(PRIVATE), None, "broken", 7])
def test_what_was_not_raised_has_no_stack(error: object) -> None:
    """Nobody can tell where it came from."""
    assert stack_of(error) is None


def test_a_stack_is_bounded_and_ends_where_the_error_was_raised() -> None:
    """However deep that was, and however many errors led to it."""
    error: BaseException | None = None
    for _ in range(50):
        try:
            deep(200)
        except ValueError as caught:
            error = raised(RuntimeError(PRIVATE), raised(caught, error))

    told = stack_of(error)
    assert told is not None
    assert len(told.encode()) <= MAX_STACK_BYTES
    assert told.endswith("RuntimeError")
