"""Every error a caller can meet, sorted by what the caller should do.

ConversationError
├── RetryableError              repeat the call, with the same ``request_id`` where one was given
│   ├── StoreUnavailableError   Redis did not answer in time, or refuses writes for now
│   ├── ClusterUnavailableError Ray did not answer in time, or no cluster is to be found
│   ├── OverloadedError         a bounded queue is full; nothing of the call was taken
│   └── OutcomeUnknownError     the call may or may not have happened; its ``request_id`` makes a repeat safe
├── RefusedError                give up, or change the call; nothing was changed
│   ├── ConversationNotFoundError
│   ├── ConversationClosedError
│   ├── LeaseHeldError          ``.holder`` and ``.expires_at`` tell by whom and until when
│   ├── LeaseLostError          the call came in the name of a lease that somebody else has by now
│   ├── ConflictError           the state is not what the call expected
│   ├── PositionLostError       a watch position is older than what is kept; ``.first_available``
│   └── InvalidInputError       ``.field`` names what is wrong
│       └── ItemTooLargeError   ``.size`` and ``.limit``, in bytes of the stored form
├── OperatorError               a person has to look
│   ├── CorruptStateError       bytes in the store that cannot be read; ``.key`` and ``.position``
│   ├── IncompatibleVersionError
│   ├── OwnerFailedError        the owner's own code failed: a defect, please report it
│   └── StoreMisconfiguredError the server cannot do, or does not allow, what the settings ask for; ``.lacks_right``
└── ActivationLostError         never leaves a handle: it finds the next activation and repeats
    ├── FencedError             a newer activation owns the conversation
    └── PassivatedError         this activation has stopped, or is stopping
"""

from typing import Any, Self


class ConversationError(Exception):
    """Base of all errors raised by this package. Survives pickling with all its attributes."""

    def __init__(self, message: str) -> None:
        """Take one sentence for people; what programs need is in attributes."""
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild without calling ``__init__``, whose arguments differ from class to class."""
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[ConversationError], args: tuple[Any, ...]) -> ConversationError:
    return cls.__new__(cls, *args)


class RetryableError(ConversationError):
    """The same call may succeed later."""


class StoreUnavailableError(RetryableError):
    """Redis did not answer in time, or refuses writes for now."""


class ClusterUnavailableError(RetryableError):
    """Ray did not answer in time, or no cluster is to be found."""


class OverloadedError(RetryableError):
    """A bounded queue is full. Nothing of the call was taken."""


class OutcomeUnknownError(RetryableError):
    """The call may or may not have happened. A repeat with the same ``request_id`` is safe."""


class RefusedError(ConversationError):
    """The call cannot succeed as it is. Nothing was changed."""


class ConversationNotFoundError(RefusedError):
    """No such conversation: never opened, deleted, or forgotten when its time to live ran out."""


class ConversationClosedError(RefusedError):
    """The conversation was closed; ``reopen_conversation()`` makes it writable again."""


class LeaseHeldError(RefusedError):
    """Somebody else holds the lease."""

    def __init__(self, message: str, *, holder: str, expires_at: float) -> None:
        """``expires_at``: seconds since the epoch, by the store's clock."""
        super().__init__(message)
        self.holder = holder
        self.expires_at = expires_at


class LeaseLostError(RefusedError):
    """The call came in the name of a lease that was given back, forgotten, or taken by another holder since."""

    def __init__(self, message: str, *, name: str, token: int) -> None:
        """``name`` and ``token`` are those of the lease that the call came with."""
        super().__init__(message)
        self.name = name
        self.token = token


class ConflictError(RefusedError):
    """The state is not what the call expected."""


class PositionLostError(RefusedError):
    """The journal no longer reaches back to the position a watch asked for."""

    def __init__(self, message: str, *, first_available: int) -> None:
        """``first_available``: the oldest ``seq`` that can still be watched from."""
        super().__init__(message)
        self.first_available = first_available


class InvalidInputError(RefusedError):
    """An argument is not acceptable. Nothing was changed."""

    def __init__(self, message: str, *, field: str) -> None:
        """``field``: the argument's name, with a path into nested values (``metadata.address[2]``)."""
        super().__init__(message)
        self.field = field


class ItemTooLargeError(InvalidInputError):
    """The stored form of one value is larger than its limit."""

    def __init__(self, message: str, *, field: str, size: int, limit: int) -> None:
        """``size`` and ``limit`` are bytes of the stored form (UTF-8 JSON)."""
        super().__init__(message, field=field)
        self.size = size
        self.limit = limit


class OperatorError(ConversationError):
    """Neither waiting nor another call helps: a person has to look."""


class CorruptStateError(OperatorError):
    """Bytes in the store that cannot be read."""

    def __init__(self, message: str, *, key: str, position: int) -> None:
        """``position``: byte offset inside the value; 0 where the whole value is the trouble."""
        super().__init__(message)
        self.key = key
        self.position = position

    def at(self, key: str) -> Self:
        """Name the key, for code that only knows the bytes."""
        return type(self)(f"{key}: {self.args[0]}", key=key, position=self.position)


class IncompatibleVersionError(OperatorError):
    """Written, or running, under a version this one does not understand."""


class OwnerFailedError(OperatorError):
    """The owner's own code failed: a defect in it. The call may or may not have happened."""


class StoreMisconfiguredError(OperatorError):
    """The server cannot do, or does not allow, what the settings ask for."""

    def __init__(self, message: str, *, lacks_right: bool = False) -> None:
        """``lacks_right``: the user that logged in there may not do this; perhaps it may read."""
        super().__init__(message)
        self.lacks_right = lacks_right


class ActivationLostError(ConversationError):
    """The activation that was asked is not the conversation's owner any more."""


class FencedError(ActivationLostError):
    """A newer activation owns the conversation; it knows by `request_id` what of a repeat had happened."""


class PassivatedError(ActivationLostError):
    """The activation has stopped, or is stopping."""
