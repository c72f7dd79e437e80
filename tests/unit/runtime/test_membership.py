"""Whether a process's Ray cluster is still there is asked first; what is worthless is left and joined anew."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray import ClusterID
from ray.exceptions import RaySystemError, RpcError

from conversation_actors.errors import (
    ClusterMisconfiguredError,
    ClusterUnavailableError,
    ConversationError,
    IncompatibleVersionError,
)
from conversation_actors.runtime import membership
from conversation_actors.runtime.membership import Membership
from conversation_actors.timing import TIMING, Timing

ADDRESS = "10.0.0.1:6379"


class Head:
    """The part of Ray's head that is asked."""

    address = ADDRESS

    def __init__(self) -> None:
        """It answers, and knows one node."""
        self.error: Exception | None = None
        self.asked = 0
        self.cluster_id = ClusterID.from_random()
        self.nodes = {b"1": SimpleNamespace(state=0, node_id=b"\x01", resources_total={"conversation": 1.0})}

    def internal_kv_exists(self, *_: object, **__: object) -> bool:
        """Answer, or not."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return False

    def get_all_node_info(self, **_: object) -> dict[bytes, Any]:
        """The nodes."""
        self.internal_kv_exists()
        return self.nodes


class Process:
    """A process that has joined a cluster; the part of Ray that is in it."""

    def __init__(self) -> None:
        """It is in, by its own doing."""
        self.head, self.joins, self.leaves, self.stays = Head(), 0, 0, 1
        self.is_ours = True
        self.listening = {ADDRESS}
        self.objection: ConversationError | None = None
        self.join_error: Exception | None = None
        self.now = 100.0

    def is_initialized(self) -> bool:
        """Whether it is in."""
        return self.stays > 0

    def shutdown(self) -> None:
        """Leave."""
        self.leaves, self.stays = self.leaves + 1, -abs(self.stays)

    def reach(self, address: str) -> None:
        """Find somebody who lets this process in."""
        if address not in self.listening:
            message = "nobody listens"
            raise ClusterUnavailableError(message)
        if self.objection is not None:
            raise self.objection

    def join(self, address: str | None) -> None:
        """Join another head at the same address."""
        assert address == ADDRESS
        self.joins += 1
        if self.join_error is not None:
            raise self.join_error
        self.stays, self.head = abs(self.stays) + 1, Head()

    @property
    def worker(self) -> SimpleNamespace:
        """Ray's own view of the process."""
        identity = b"\x01\x00\x00\x00"  # of a driver it is its job's number, which each head begins to count anew
        return SimpleNamespace(connected=self.is_initialized(), gcs_client=self.head, worker_id=identity)

    def get_runtime_context(self) -> SimpleNamespace:
        """Which node it has joined through."""
        return SimpleNamespace(get_node_id=lambda: "01")

    def member(self, timing: Timing = TIMING) -> Membership:
        """One client's."""
        return Membership(ADDRESS, self.join, is_ours=lambda: self.is_ours, timing=timing)


class _Worker:
    def __init__(self, process: Process) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process.worker, name)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    """A process in a cluster, with a clock that stands still."""
    made = Process()
    monkeypatch.setattr(membership, "ray", made)
    monkeypatch.setattr(membership, "global_worker", _Worker(made))
    monkeypatch.setattr(membership, "reach", made.reach)
    monkeypatch.setattr(membership, "require_joinable", made.reach)
    monkeypatch.setattr(membership, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_head_is_asked_once_a_second(process: Process) -> None:
    """However many ask whether it is there; it tells of the cluster's resources as well."""
    member = process.member()
    for _ in range(5):
        member.confirm()
    assert process.head.asked == 1
    assert member.resources == {"conversation"}
    process.now += 1.0
    member.confirm()
    assert process.head.asked == 2


def test_a_head_that_is_gone_is_told_at_once(process: Process) -> None:
    """Where nobody listens nothing is left; when it answers again, all goes on in the cluster that was joined."""
    member = process.member()
    process.head.error = RpcError("unavailable")
    process.listening.clear()
    for _ in range(3):
        with pytest.raises(ClusterUnavailableError, match=f"head at {ADDRESS} does not answer"):
            member.confirm()
    assert (process.head.asked, process.leaves) == (1, 0)
    process.head.error, process.now = None, process.now + 1.0
    member.confirm()
    assert process.joins == 0


def test_a_head_that_is_slow_is_not_left(process: Process) -> None:
    """Somebody listens where it is: it answers later."""
    process.head.error = RpcError("timed out")
    with pytest.raises(ClusterUnavailableError, match="does not answer"):
        process.member().confirm()
    assert process.leaves == 0


def test_a_head_that_has_gone_elsewhere_is_joined_there(process: Process) -> None:
    """Nobody listens where it was, and somebody where this machine's head is now."""
    process.head.error = RpcError("unavailable")
    process.head.address = "10.0.0.1:7000"
    process.member().confirm()
    assert process.joins == 1


@pytest.mark.parametrize(
    "error",
    [
        RpcError("WrongClusterID: Perhaps …"),
        RaySystemError("WrongClusterID: Perhaps …"),
        RpcError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect"),
    ],
)
def test_another_head_is_joined_anew(process: Process, error: Exception) -> None:
    """It has nothing of the old one's memory, and its answers to what the old one was asked would end the process."""
    member, before = process.member(), membership.place()
    process.head.error = error
    member.confirm()
    assert (process.leaves, process.joins) == (1, 1)
    assert membership.place() != before


def test_a_node_that_is_gone_is_left(process: Process) -> None:
    """The process joins through another one; a node that is counted among the dead is gone too."""
    process.head.nodes[b"1"].state = 1
    process.member().confirm()
    assert process.joins == 1


def test_two_clients_of_a_process_join_once(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has joined anew while the other was finding out: what it has joined is not left."""
    first, second = process.member(), process.member()
    process.head.error = RpcError("WrongClusterID")
    join_anew: Callable[..., str | None] = second._join_anew

    def late(*arguments: str) -> str | None:
        first.confirm()
        return join_anew(*arguments)

    monkeypatch.setattr(second, "_join_anew", late)
    second.confirm()
    assert (process.leaves, process.joins) == (1, 1)


def test_what_others_have_joined_is_theirs_to_leave(process: Process) -> None:
    """A program that called `ray.init` itself is told what the matter is."""
    process.is_ours, process.head.error = False, RpcError("WrongClusterID")
    with pytest.raises(ClusterUnavailableError, match="another Ray cluster"):
        process.member().confirm()
    assert process.leaves == 0


def test_who_could_not_join_tries_again(process: Process) -> None:
    """Left and not joined, the process is told why, and joins when that is possible."""
    member = process.member()
    process.head.error, process.join_error = RpcError("WrongClusterID"), RuntimeError("no node yet")
    with pytest.raises(ClusterUnavailableError, match="cannot be joined anew"):
        member.confirm()
    assert membership.place() == ""
    process.join_error, process.now = None, process.now + 1.0
    member.confirm()
    assert process.joins == 2


def test_nothing_is_left_under_a_call(process: Process) -> None:
    """What still waits in Ray's core for the old head is answered first, by the new one."""
    member = process.member(Timing(membership_calls=0.0))
    process.head.error = RpcError("WrongClusterID")
    with membership.CALLS.counted(), pytest.raises(ClusterUnavailableError, match="calls still wait"):
        member.confirm()
    assert process.leaves == 0
    process.now += 1.0
    member.confirm()
    assert process.joins == 1


@pytest.mark.parametrize("kind", [ClusterMisconfiguredError, IncompatibleVersionError])
def test_a_head_that_would_refuse_is_not_tried(process: Process, kind: type[ConversationError]) -> None:
    """Of another version, or with another token: Ray itself would try for 20 seconds, with each call anew."""
    process.head.error, process.objection = RpcError("WrongClusterID"), kind("of another version")
    with pytest.raises(ClusterUnavailableError, match=r"cannot be joined anew \(of another version"):
        process.member().confirm()
    assert (process.leaves, process.joins) == (0, 0)


def test_a_client_server_that_is_gone_is_told(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of Ray's client server, whose library raises what the system's sockets do."""

    def cluster_resources() -> dict[str, float]:
        message = "GRPC connection failed"
        raise ConnectionError(message)

    monkeypatch.setattr(process, "cluster_resources", cluster_resources, raising=False)
    monkeypatch.setattr(Process, "worker", SimpleNamespace(connected=False))
    with pytest.raises(ClusterUnavailableError, match=r"client server does not answer \(GRPC connection failed"):
        process.member().confirm()


def test_nothing_is_asked_of_a_cluster_that_is_being_left(process: Process) -> None:
    """Ray itself would join any cluster it finds, or start one of its own, for a process that is in none."""
    member, met = process.member(), []
    process.head.error = RpcError("WrongClusterID")
    shutdown = process.shutdown

    def slow() -> None:
        for is_in in (True, False):
            with pytest.raises(ClusterUnavailableError, match="is being joined anew"), membership.CALLS.counted():
                met.append("the cluster")
            if is_in:
                shutdown()

    process.shutdown = slow  # type: ignore[method-assign]
    member.confirm()
    assert (met, process.joins) == ([], 1)
    with membership.CALLS.counted():
        met.append("the next one")
    shutdown()
    with pytest.raises(ClusterUnavailableError, match="has left"), membership.CALLS.counted():
        met.append("none")
    assert met == ["the next one"]
