"""This process's place in a Ray cluster: whether the head answers, whether it is the one that was joined.

A process that has joined Ray belongs to one head until it leaves. Three things make that worthless, and Ray tells of
none of them: the head is gone, another one without its memory is at its address, or the node is gone through which
this process had joined. While there is no head, calls into Ray's core block; answered by another cluster's head, some
of them end the process. So the head is asked first, by a call that does neither.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray._private.utils import read_ray_address
from ray._private.worker import global_worker
from ray.exceptions import RayError

from conversation_actors.errors import (
    ClusterMisconfiguredError,
    ClusterUnavailableError,
    IncompatibleVersionError,
)
from conversation_actors.runtime.diagnosis import reach, require_joinable
from conversation_actors.timing import TIMING, Timing

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_HEAD_SECONDS = 2.0
"""How long the head may take to answer."""
_FRESH_SECONDS = 1.0
"""How long an answer, or its absence, is believed."""
_NODES_SECONDS = 10.0
"""How often the nodes and their resources are looked at."""
_ALIVE = 0
"""Ray's number of a node that lives."""
_LEAVING = threading.Lock()
_LEFT = "this process has left its Ray cluster"
_OF_ANOTHER = ("WrongClusterID", "InvalidAuthToken")
"""How Ray names what a head refuses that is not the one this process had joined."""
_PROBE = b"conversation-actors"
"""A key that nobody sets: what is asked for is an answer."""


class Calls:
    """Counts the blocking calls that are in Ray's core now: to leave a cluster under them could end the process.

    And lets none begin in a process that is in no cluster: Ray itself would join any that it finds, or start one.
    """

    def __init__(self) -> None:
        """None."""
        self._count, self._is_leaving = 0, False
        self._ended = threading.Condition()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the enclosed call. Raises `ClusterUnavailableError` where there is no cluster to be asked."""
        with self._ended:
            if self._is_leaving:
                message = "Ray is being joined anew"
                raise ClusterUnavailableError(message)
            if not ray.is_initialized():
                raise ClusterUnavailableError(_LEFT)
            self._count += 1
        try:
            yield
        finally:
            with self._ended:
                self._count -= 1
                self._ended.notify_all()

    @contextmanager
    def none(self, seconds: float) -> Iterator[bool]:
        """Let none begin meanwhile; tells whether all have ended, after so many seconds at most."""
        with self._ended:
            have_ended = self._ended.wait_for(lambda: not self._count, seconds)
            self._is_leaving = have_ended
        try:
            yield have_ended
        finally:
            with self._ended:
                self._is_leaving = False


CALLS = Calls()
"""Those of this process."""


class Membership:
    """Asks the head before others do, and joins anew where that helps. Its methods block: call them in a thread."""

    def __init__(
        self,
        address: str | None,
        join: Callable[[str | None], None],
        *,
        is_ours: Callable[[], bool],
        timing: Timing = TIMING,
    ) -> None:
        """Join the cluster at `address` with `join`. One that is not `is_ours`, but others', is theirs to leave."""
        self._address, self._join, self._is_ours, self._timing = address, join, is_ours, timing
        self._asking = threading.Lock()
        self._asked_at = self._nodes_at = float("-inf")
        self._known: str | None = None
        self._silent: str | None = None
        """Where the head is that does not answer: it may be slow, and then it is not left."""
        self._resources: frozenset[str] = frozenset()

    def confirm(self) -> None:
        """Return if the head has answered within the last second, as a member of the cluster that it has now.

        Raises `ClusterUnavailableError` with the reason, after a few seconds at most unless Ray is being joined anew.
        """
        if time.monotonic() - self._asked_at >= _FRESH_SECONDS:
            if not self._asking.acquire(timeout=_HEAD_SECONDS):
                message = "Ray's head is being asked, and has not answered yet"
                raise ClusterUnavailableError(message)
            try:
                if time.monotonic() - self._asked_at >= _FRESH_SECONDS:
                    self._known = self._ask()
                    self._asked_at = time.monotonic()
            finally:
                self._asking.release()
        if self._known is not None:
            raise ClusterUnavailableError(self._known)

    @property
    def resources(self) -> frozenset[str]:
        """The names of what the cluster's nodes offer, as of the last look at them."""
        return self._resources

    def _ask(self) -> str | None:
        """Why nothing can be had from the head; None where it answers as it should."""
        asked_in = place()
        trouble = self._trouble()
        return self._join_anew(trouble, asked_in) if trouble is not None and self._is_ours() else trouble

    def _trouble(self) -> str | None:
        if not ray.is_initialized():
            return _LEFT
        self._silent = None
        is_fresh = time.monotonic() - self._nodes_at < _NODES_SECONDS
        if not global_worker.connected:  # but by way of Ray's client server, which asks the head itself
            return None if is_fresh else self._look_by_client()
        head: Any = global_worker.gcs_client
        try:
            if is_fresh:
                head.internal_kv_exists(_PROBE, _PROBE, timeout=_HEAD_SECONDS)
                return None
            nodes: Mapping[Any, Any] = head.get_all_node_info(timeout=_HEAD_SECONDS)
        except RayError as error:
            self._nodes_at = float("-inf")
            if any(sign in str(error) for sign in _OF_ANOTHER):
                return f"at {head.address} is the head of another Ray cluster than the one that this process had joined"
            self._silent = head.address
            return f"Ray's head at {head.address} does not answer"
        return self._look_at([node for node in nodes.values() if node.state == _ALIVE])

    def _look_by_client(self) -> str | None:
        try:
            self._resources, self._nodes_at = frozenset(ray.cluster_resources()), time.monotonic()
        except Exception as error:
            if not tells_of_loss(error):
                raise
            return f"Ray's client server does not answer ({error})"
        return None

    def _look_at(self, nodes: list[Any]) -> str | None:
        own = ray.get_runtime_context().get_node_id()
        if own not in {node.node_id.hex() for node in nodes}:
            return "the node that this process had joined its Ray cluster through is gone"
        self._resources = frozenset(name for node in nodes for name in node.resources_total)
        self._nodes_at = time.monotonic()
        return None

    def _join_anew(self, trouble: str, asked_in: str) -> str | None:
        """Leave and join, where that can be; why it did not help, or None."""
        with _LEAVING:
            if place() == asked_in:  # no other client of this process has done so meanwhile
                objection = self._objection(trouble) or self._leave_and_join(trouble)
                if objection is not None:
                    return objection
        self._nodes_at = float("-inf")
        return self._trouble()

    def _objection(self, trouble: str) -> str | None:
        """Why the cluster is not to be left, or another one cannot be joined: found out as when it was joined first."""
        if self._silent is not None and _is_listening(self._silent):
            return trouble
        address = read_ray_address() if self._address in {None, "auto", "local"} else self._address
        if address is None:
            return trouble
        try:
            require_joinable(address)
        except (ClusterMisconfiguredError, IncompatibleVersionError) as error:
            return f"{trouble}, and Ray cannot be joined anew ({error})"
        except ClusterUnavailableError:
            return trouble
        return None

    def _leave_and_join(self, trouble: str) -> str | None:
        """Why it was not possible, or None."""
        with CALLS.none(self._timing.membership_calls) as may_be_left:
            if not may_be_left:
                return f"{trouble}, and calls still wait for it"
            log.warning("Ray is joined anew", extra={"reason": trouble})
            ray.shutdown()
            try:
                self._join(self._address)
            except (OSError, RayError, RuntimeError, ValueError) as error:
                return f"{trouble}, and Ray cannot be joined anew ({error})"
        return None


def place() -> str:
    """What tells this process's stay in a cluster from all others: a handle of one is none in another."""
    if not ray.is_initialized():
        return ""
    if not global_worker.connected:
        return "ray://"
    # A driver's id is made of its job's number, which each head begins to count anew.
    return f"{global_worker.gcs_client.cluster_id.hex()}/{global_worker.worker_id.hex()}"


def tells_of_loss(error: Exception) -> bool:
    """Whether it is how Ray tells that something is away: its own errors, those of sockets, and one of no kind.

    The last is how Ray refuses a handle of a cluster that this process has left.
    """
    return isinstance(error, (OSError, RayError)) or type(error) is Exception


def in_cluster(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function that blocks in Ray's core; see `Calls.counted`."""
    with CALLS.counted():
        return function(*arguments)


def _is_listening(address: str) -> bool:
    try:
        reach(address)
    except ClusterUnavailableError:
        return False
    return True
