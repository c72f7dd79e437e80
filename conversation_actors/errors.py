"""Every error a caller can meet, sorted by what the caller should do.

ConversationError
├── RetryableError              repeat the call, with the same ``request_id`` if one was given
│   ├── StoreUnavailableError   Redis did not answer in time, or refuses writes for now
│   ├── ArchiveUnavailableError the archive's database did not answer in time, or refuses writes for now
│   ├── BackendUnavailableError the back end did not answer in time, refused, or answered with what nobody can read
│   ├── ClusterUnavailableError Ray did not answer in time, or no cluster was found
│   ├── OverloadedError         a bounded queue is full; no part of the call was accepted
│   └── OutcomeUnknownError     the call may or may not have happened; its ``request_id`` makes a repeat safe
├── RefusedError                give up, or change the call; nothing was changed
│   ├── ConversationNotFoundError
│   ├── ConversationClosedError
│   ├── LeaseHeldError          ``.holder`` and ``.expires_at`` tell who holds it and until when
│   ├── LeaseLostError          the call came in the name of a lease that has been lost since
│   ├── ConflictError           the state is not what the call expected
│   ├── PositionLostError       a watch position is older than what is kept; ``.first_available``
│   └── InvalidInputError       ``.field`` names what is wrong
│       └── ItemTooLargeError   ``.size`` and ``.limit``, in bytes of the stored form
├── OperatorError               a person has to look into it
│   ├── ArchiveMisconfiguredError no archive is configured, or its database cannot do what is asked of it
│   ├── ClusterMisconfiguredError Ray's cluster does not let this process in: the token, or the port
│   ├── CorruptStateError       bytes in the store that cannot be read; ``.key`` and ``.position``
│   ├── IncompatibleVersionError
│   ├── OwnerFailedError        the owner's own code failed: a defect, please report it
│   ├── StoreMisconfiguredError the server cannot do, or does not allow, what the settings ask for; ``.lacks_right``
│   └── TransferFileError       a file of an export or a backup cannot be read or written: no room, no right, not there
└── ActivationLostError         never leaves a handle, which finds the next activation and repeats the call
    ├── FencedError             a newer activation owns the conversation
    └── PassivatedError         this activation has stopped, or is stopping
"""

from typing import Any, Self


class ConversationError(Exception):
    """Base of all errors that this package raises. Pickling keeps all attributes of an error."""

    def __init__(self, message: str) -> None:
        """Take one sentence for people; what programs need is in attributes."""
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the error without calling ``__init__``, whose arguments differ from class to class."""
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[ConversationError], args: tuple[Any, ...]) -> ConversationError:
    return cls.__new__(cls, *args)


class RetryableError(ConversationError):
    """The same call may succeed later."""


class StoreUnavailableError(RetryableError):
    """Redis did not answer in time, or refuses writes for now."""


class ArchiveUnavailableError(RetryableError):
    """The archive's database did not answer in time, or refuses writes for now."""


class BackendUnavailableError(RetryableError):
    """The back end did not answer in time, refused, or answered with what does not fit its OpenAPI document.

    The text has no path of its URL, no token, and nothing of what was sent or answered.
    """


class ClusterUnavailableError(RetryableError):
    """Ray did not answer in time, or no cluster was found."""


class OverloadedError(RetryableError):
    """A bounded queue is full. No part of the call was accepted."""


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
        """Take `expires_at` in seconds since the epoch, by the store's clock."""
        super().__init__(message)
        self.holder = holder
        self.expires_at = expires_at


class LeaseLostError(RefusedError):
    """The call came in the name of a lease that has since been given back, forgotten, or taken by another holder."""

    def __init__(self, message: str, *, name: str, token: int) -> None:
        """Take the `name` and `token` of the lease that the call came with."""
        super().__init__(message)
        self.name = name
        self.token = token


class ConflictError(RefusedError):
    """The state is not what the call expected."""


class PositionLostError(RefusedError):
    """The journal no longer reaches back to the position a watch asked for."""

    def __init__(self, message: str, *, first_available: int) -> None:
        """Take as `first_available` the oldest ``seq`` that can still be watched from."""
        super().__init__(message)
        self.first_available = first_available


class InvalidInputError(RefusedError):
    """An argument is not acceptable. Nothing was changed."""

    def __init__(self, message: str, *, field: str) -> None:
        """Take as `field` the argument's name, with a path into nested values (``metadata.address[2]``)."""
        super().__init__(message)
        self.field = field


class ItemTooLargeError(InvalidInputError):
    """The stored form of one value is larger than its limit."""

    def __init__(self, message: str, *, field: str, size: int, limit: int) -> None:
        """Take `size` and `limit` in bytes of the stored form (UTF-8 JSON)."""
        super().__init__(message, field=field)
        self.size = size
        self.limit = limit


class OperatorError(ConversationError):
    """Neither waiting nor another call helps: a person has to look into it."""


class ArchiveMisconfiguredError(OperatorError):
    """No archive is configured, its tables are missing or older, or its database does not allow what is asked of it."""


class ClusterMisconfiguredError(OperatorError):
    """Ray's cluster does not let this process in: its token is missing or wrong, or the port is not Ray's."""


class CorruptStateError(OperatorError):
    """Bytes in the store that cannot be read."""

    def __init__(self, message: str, *, key: str, position: int) -> None:
        """Take as `position` a byte offset inside the value, or 0 if the whole value is the trouble."""
        super().__init__(message)
        self.key = key
        self.position = position

    def at(self, key: str) -> Self:
        """Return the same error with its key, which code that only knows the bytes cannot name."""
        return type(self)(f"{key}: {self.args[0]}", key=key, position=self.position)


class IncompatibleVersionError(OperatorError):
    """Something was written, or runs, under a version that this one does not understand."""


class OwnerFailedError(OperatorError):
    """The owner's own code failed: a defect in it. The call may or may not have happened."""


class StoreMisconfiguredError(OperatorError):
    """The server cannot do, or does not allow, what the settings ask for."""

    def __init__(self, message: str, *, lacks_right: bool = False) -> None:
        """Take as `lacks_right` whether the user that logged in may not do this; that user may be able to read."""
        super().__init__(message)
        self.lacks_right = lacks_right


class TransferFileError(OperatorError):
    """A file of an export or a backup cannot be read or written: there is no room, no right, or no such file."""


class ActivationLostError(ConversationError):
    """The activation that was asked is no longer the conversation's owner."""


class FencedError(ActivationLostError):
    """A newer activation owns the conversation.

    By `request_id` the newer activation knows what part of a repeated call has happened already.
    """


class PassivatedError(ActivationLostError):
    """The activation has stopped, or is stopping."""
