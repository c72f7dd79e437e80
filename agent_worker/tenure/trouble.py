"""Which failures say nothing about what was asked, so that the same may succeed later."""

from conversation_actors import LeaseLostError
from conversation_actors.errors import (
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    CorruptStateError,
    IncompatibleVersionError,
    OwnerFailedError,
    RetryableError,
    StoreMisconfiguredError,
)

MAX_OWNER_FAILURES = 3
"""Times in a row that the owner fails at the same, until that is taken for the fault of what was asked."""


def is_trouble(error: Exception) -> bool:
    """Return whether a failure says nothing about what was asked: the same may succeed later, or from another agent.

    An owner that failed may do better at the next try; who goes by this ends at `MAX_OWNER_FAILURES`.
    """
    if isinstance(error, ConversationError):
        return isinstance(
            error,
            RetryableError
            | LeaseLostError
            | ConversationNotFoundError
            | ConversationClosedError
            | OwnerFailedError
            | StoreMisconfiguredError
            | CorruptStateError
            | IncompatibleVersionError,
        )
    return isinstance(error, TimeoutError)
