"""Where a failure happened, as text: lines of code and kinds of errors, and no message, which may quote the call."""

import traceback

MAX_STACK_BYTES = 8 << 10
"""Of one failure; the end of it is kept, where it was raised."""
_MOST_FRAMES, _MOST_ERRORS = 32, 8


def stack_of(error: object) -> str | None:
    """Return the stacks of an error and of those that led to it, the first one first; None if it was not raised."""
    errors = list[BaseException]()
    one = error if isinstance(error, BaseException) else None
    while one is not None and len(errors) < _MOST_ERRORS:
        errors.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    if not any(one.__traceback__ for one in errors):
        return None
    told = "\n".join(_told(one) for one in reversed(errors)).encode(errors="replace")
    return told[-MAX_STACK_BYTES:].decode(errors="ignore")


def _told(error: BaseException) -> str:
    frames = traceback.format_tb(error.__traceback__, limit=-_MOST_FRAMES)
    return "".join([*frames, type(error).__qualname__])
