"""Why a Ray cluster cannot be joined, found out by a question or two before Ray itself tries, for 20 seconds or more.

Ray's control store answers by gRPC: whether it wants a token, and which Ray and which Python it was started with. The
question is asked without Ray's own code, so that it can be asked before Ray is imported.
"""

import json
import platform
import socket
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from conversation_actors.errors import ClusterMisconfiguredError, ClusterUnavailableError, IncompatibleVersionError
from conversation_actors.runtime import ray_environment
from conversation_actors.runtime.ray_environment import Token

SECONDS = 1.2
"""How long one answer may take: a control store on the same continent needs milliseconds."""
_METHOD = "/ray.rpc.InternalKVGcsService/InternalKVGet"
_KEY, _NAMESPACE = b"CLUSTER_METADATA", b"cluster"
_GIVEN = "the address is of RAY_ADDRESS or --address"
_FOUND = "RAY_ADDRESS is not set, and the cluster that was started last on this machine is the one there"


@dataclass(frozen=True, slots=True)
class Head:
    """What the control store of a cluster says of itself."""

    address: str
    is_here: bool
    """On this machine."""
    wants_token: bool
    """It did not answer, for want of a token or of another one."""
    ray: str | None = None
    python: str | None = None
    """Versions; None if it did not tell."""


def plain_address(address: str | None) -> tuple[str, int] | None:
    """Host and port; None if the address is none of that form (``auto``, ``ray://…``)."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return None
    return host.strip("[]"), int(port)


def require_joinable(address: str | None) -> bool:
    """Return if this process may join the cluster, as far as one can tell from here; nothing is joined.

    Tells whether the head is known to be on this machine: false for an address that is not of the form host:port.

    Raises `ClusterUnavailableError` if nobody listens or answers, `ClusterMisconfiguredError` if the token is
    missing or another one, or where the port is not Ray's, and `IncompatibleVersionError` where Ray's or Python's
    version is another one. To another machine the token is sent only where RAY_AUTH_MODE says so. Blocks, for at most
    two and a half seconds.
    """
    source = _GIVEN
    if address in {None, "auto"}:
        address, source = found_by_ray(), _FOUND
    if address is None or plain_address(address) is None:
        _require_form(address)
        return False
    mode = ray_environment.token_mode()
    is_here = reach(address, source)
    if ray_environment.has_other_mode():
        return is_here
    sends = mode == "token" or (mode is None and is_here)
    token = ray_environment.token() if sends and ray_environment.knows_tokens() else None
    head = ask(address, token, is_here=is_here)
    if head.wants_token:
        raise ClusterMisconfiguredError(refusal(head, token))
    require_same_versions(head)
    return is_here


def found_by_ray() -> str | None:
    """Return what ``auto`` means: the one cluster that runs here, or the one that was started last; else None.

    Of several that run, Ray chooses; and it tries for long to join one that was started last and is dead.
    """
    from ray._private.services import find_bootstrap_address, find_gcs_addresses  # noqa: PLC0415  # for clients only

    running: list[str] = sorted(find_gcs_addresses())
    if len(running) > 1:
        return None
    last: str | None = find_bootstrap_address(None)
    return running[0] if running else last


def _require_form(address: str | None) -> None:
    """Raise `ClusterMisconfiguredError` where neither we nor Ray can read the address."""
    if address in {None, "local"} or "://" in str(address):
        return
    message = f"RAY_ADDRESS: {address!r} is no address of a Ray cluster; write host:port, or ray://host:port"
    raise ClusterMisconfiguredError(message)


def reach(address: str, source: str = _GIVEN) -> bool:
    """Make sure that somebody listens; tells whether on this machine. Raises `ClusterUnavailableError`.

    `source` tells people where the address comes from.
    """
    host, port = plain_address(address) or ("", 0)
    try:
        with socket.create_connection((host, port), SECONDS) as connection:
            return bool(connection.getsockname()[0] == connection.getpeername()[0])
    except socket.gaierror:
        reason = f"no machine is called {host}"
    except ConnectionRefusedError:
        reason = "nobody listens there; `conversation-actors dev` starts one"
    except TimeoutError:
        reason = f"no answer in {SECONDS} s (another network, or a firewall)"
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    message = f"no Ray cluster at {address}: {reason} ({source})"
    raise ClusterUnavailableError(message)


def ask(address: str, token: Token | None, *, is_here: bool) -> Head:
    """Ask for the versions, with a token or without. Raises `ClusterUnavailableError`, `ClusterMisconfiguredError`."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415  # 50 ms, which those who ask nobody are spared

    metadata_sent = [("authorization", f"Bearer {token.value}")] if token and token.value else None
    channel = _channel(grpc, address)
    try:
        answer = channel.unary_unary(_METHOD)(_request(), timeout=SECONDS, metadata=metadata_sent)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED and "token" in (error.details() or "").lower():
            return Head(address, is_here, wants_token=True)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"the Ray cluster at {address} does not answer: its control store hangs, or is no Ray's"
            raise ClusterUnavailableError(message) from None
        if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE}:
            reach(address)  # a head that has gone just now is no wrong port
            message = (
                f"what listens at {address} is no Ray head's control store: its port is the one of `--port` (6379 "
                f"unless given); 10001 is of Ray's client server (ray://{address}), 8265 of its dashboard"
            )
            raise ClusterMisconfiguredError(message) from None
        return Head(address, is_here, wants_token=False)  # Ray itself may say more
    finally:
        channel.close()
    told = _versions(answer)
    return Head(address, is_here, wants_token=False, ray=told.get("ray_version"), python=told.get("python_version"))


def require_same_versions(head: Head) -> None:
    """Raise `IncompatibleVersionError` where Ray would refuse the versions."""
    ours = metadata.version("ray"), platform.python_version()
    theirs = head.ray or ours[0], head.python or ours[1]
    if theirs[0] == ours[0] and _python(theirs[1]) == _python(ours[1]):
        return
    message = (
        f"the Ray cluster at {head.address} has Ray {theirs[0]} and Python {theirs[1]}, and this process Ray {ours[0]} "
        f"and Python {ours[1]}: Ray wants the same on all nodes and clients"
    )
    raise IncompatibleVersionError(message)


def refusal(head: Head, token: Token | None) -> str:
    """Why a head that wants a token does not let us in; `token` is what was sent, None if none was to be."""
    copy = "copy ~/.ray/auth_token of the head's machine and user there (mode 600), or set RAY_AUTH_TOKEN to it"
    asks = f"the Ray cluster at {head.address} asks for a token"
    if not ray_environment.knows_tokens():
        return f"{asks}, and Ray {metadata.version('ray')} here knows none: install the cluster's Ray"
    if token is not None and token.value is not None:
        return f"the Ray cluster at {head.address} refuses the token in {token.place}, which is another one: {copy}"
    own, mode = token or ray_environment.token(), ray_environment.token_mode()
    turn_on = "set RAY_AUTH_MODE=token" + (f" (it is {mode} here)" if mode else "")
    if own.value is None:
        is_on = mode == "token" or (mode is None and head.is_here)
        return f"{asks}, and there is none in {own.place}: {copy}" + ("" if is_on else f", and {turn_on}")
    return f"{asks}: {turn_on}, so that the one in {own.place} is sent"


def _python(version: str) -> list[str]:
    return version.split(".")[: 3 if ray_environment.compares_python_patch() else 2]


def _channel(grpc: Any, address: str) -> Any:
    # Ray does not use a proxy either
    options = [("grpc.enable_http_proxy", 0)]
    files = ray_environment.tls_files()
    if files is None:
        return grpc.insecure_channel(address, options)
    try:
        certificates = [file.read_bytes() for file in files]
    except OSError as error:
        message = f"Ray's TLS: {error.filename or 'a file of RAY_TLS_…'} cannot be read: {error.strerror}"
        raise ClusterMisconfiguredError(message) from None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*certificates), options)


def _request() -> bytes:
    """``InternalKVGetRequest(key, namespace)``: two short fields of bytes."""
    return b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in ((1, _KEY), (2, _NAMESPACE)))


def _versions(answer: bytes) -> dict[str, str]:
    """Read the JSON object in an ``InternalKVGetReply``; empty if there is none (yet)."""
    begin, end = answer.find(b"{"), answer.rfind(b"}")
    try:
        told = json.loads(answer[begin : end + 1])
    except ValueError:
        return {}
    return {name: value for name, value in told.items() if isinstance(value, str)}
