"""Turns what redis-py and the server say into this package's errors."""

import re
import ssl
from collections.abc import Iterator

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from conversation_actors.errors import (
    ConversationError,
    CorruptStateError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.store.keys import ConversationKeys

CLIENT_ERRORS = (RedisError, RedisClusterException, OSError)
"""All that redis-py raises; the cluster's exceptions have a root of their own."""

_REFUSING_FOR_NOW = (
    RedisConnectionError,
    RedisTimeoutError,
    RedisClusterException,
    BusyLoadingError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    OutOfMemoryError,
    OSError,
)
_NOT_ALLOWED = (AuthenticationError, AuthorizationError, NoPermissionError, ssl.SSLCertVerificationError)

_CODES: dict[type[BaseException], str] = {
    BusyLoadingError: "LOADING",
    ReadOnlyError: "READONLY",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    OutOfMemoryError: "OOM",
    NoPermissionError: "NOPERM",
}
# Servers before 7.0 wrap what fails inside a script into "ERR Error running script …: -OOM …", so the
# code is looked for anywhere in the text, and redis-py's classes alone do not do.
_TEMPORARY_CODE = re.compile(
    r"\b(LOADING|READONLY|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY|OOM|NOREPLICAS|MISCONF|MOVED|ASK)\b"
)
_OPERATOR_CODE = re.compile(
    r"\b(NOAUTH|WRONGPASS|NOPERM)\b|unknown command|Unknown Redis command|unknown or unsupported command"
    r"|can't run this command|can't access .* keys|ACL failure|AUTH .* without any password configured"
)
# A server that wants a password says this instead of NOAUTH if a call has more than ten arguments.
_NO_PASSWORD = re.compile(r"unauthenticated (multi)?bulk length")
_MISSING_RIGHT = re.compile(r"\bNOPERM\b|can't run this command|can't access .* keys|ACL failure")
_WRONG_TYPE = re.compile(r"\bWRONGTYPE\b")


def translate(error: Exception, *, doing: str) -> ConversationError:
    """Name the error by what the caller should do about it. The original belongs in ``__cause__``."""
    causes = tuple(_chain(error))
    text = " ".join(_with_code(cause) for cause in causes)
    if any(isinstance(cause, _NOT_ALLOWED) for cause in causes) or _OPERATOR_CODE.search(text):
        lacks_right = any(isinstance(cause, NoPermissionError) for cause in causes) or bool(_MISSING_RIGHT.search(text))
        return StoreMisconfiguredError(f"Redis does not allow {doing}: {_brief(error)}", lacks_right=lacks_right)
    if _NO_PASSWORD.search(text):
        return StoreMisconfiguredError(f"Redis does not allow {doing}: NOAUTH it wants a password, and was given none")
    if any(isinstance(cause, _REFUSING_FOR_NOW) for cause in causes) or _TEMPORARY_CODE.search(text):
        return StoreUnavailableError(f"Redis cannot do {doing} now: {_brief(error)}")
    return StoreMisconfiguredError(f"Redis refused {doing}: {_brief(error)}")


def placed(error: ConversationError, where: str, *, doing: str) -> ConversationError:
    """Name the server and the setting if somebody may have to change it: what is not allowed, or a first check."""
    if isinstance(error, StoreMisconfiguredError) or doing == "check":
        error.args = (f"{error} ({where})",)
    return error


def timed_out(seconds: float, *, doing: str) -> StoreUnavailableError:
    """Say that nothing came back in time; whether it happened is unknown."""
    return StoreUnavailableError(f"Redis did not answer {doing} within {seconds:g} s")


def is_wrong_type(error: Exception) -> bool:
    """Tell whether a key holds another type than ours."""
    return isinstance(error, ResponseError) and bool(_WRONG_TYPE.search(_with_code(error)))


def wrong_type(keys: ConversationKeys, types: list[str]) -> CorruptStateError:
    """Name the key that holds the wrong type, given what TYPE says of the five."""
    expected = ("hash", "string", "list", "list", "hash")
    found = list(zip(keys.with_backlog, types, expected, strict=True))
    wrong = [(key, is_, should) for key, is_, should in found if is_ not in ("none", should)] or found[:1]
    key, is_, should = wrong[0]
    return CorruptStateError(f"{key}: is a {is_} where a {should} belongs", key=key, position=0)


def _with_code(error: BaseException) -> str:
    # an older redis-py takes the code off the text of what has a class of its own, and keeps it nowhere
    code = getattr(error, "status_code", None) or _CODES.get(type(error))
    return f"{code} {error}" if code else str(error)


def _brief(error: Exception) -> str:
    return _with_code(error)[:300] or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
