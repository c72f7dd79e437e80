"""Workers that are started before anybody asks: an opening then finds one ready, and takes half of what a fork would.

One detached actor for the whole cluster (`WarmPool`) asks each raylet to start workers ahead of time. It counts
what it had started, less what owners say to have taken since. Every half a minute it asks the raylets how many there
are (another program may have taken some), and for nodes that are new; in between it sleeps while nothing is opened.

Where an opening has found none ready, the raylet is busy starting workers for those who wait. What is started for later
would delay them, so no more than the minimum is, until the burst is over.

Disposable: without it, or where the raylet does not know `PrestartWorkers`, everything works, a little slower.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from conversation_actors.failures import Failures
from conversation_actors.runtime.membership import in_cluster, tells_of_loss
from conversation_actors.runtime.owner_log import NodeFormatter, write_to_node
from conversation_actors.runtime.starter import CleanStarts
from conversation_actors.runtime.threads import in_thread
from conversation_actors.settings import PoolSettings
from conversation_actors.timing import TIMING, Timing

log = logging.getLogger(__name__)

POOL_NAME = "conversation-pool"
RECENT_SECONDS = 10.0
"""Openings of so many seconds are prepared for beyond the minimum."""
EXTRA = timedelta(seconds=60)
"""How long a worker beyond the minimum stays: even an idle one costs Ray's main loop 1 % of a core."""
_CALM_SECONDS = 1.0
"""Without an opening that found none ready: then a burst is over."""
_ASK_TIMEOUT = 10.0
_PYTHON, _ORDINARY_WORKER = 0, 0
"""Ray's numbers for `Language.PYTHON` and `WorkerType.WORKER`."""
_MARGIN = timedelta(seconds=15)
"""The raylet keeps an unused worker so much longer than it counts."""


@dataclass(slots=True)
class Stock:
    """The workers ready on one node, as far as they were counted; a pure decision, of `now` in seconds."""

    minimum: int
    maximum: int
    keep_alive: float
    ready: deque[float] = field(default_factory=deque)
    """When each of them stops counting, the earliest first."""
    opened: deque[float] = field(default_factory=deque)
    settled: float = 0.0
    """When all that were started should be there."""
    calm: float = 0.0
    """When a burst will be over."""
    timing: Timing = TIMING

    def take(self, now: float, *, was_ready: bool) -> None:
        """A conversation was opened there; `was_ready` tells whether in a worker of the stock."""
        self.opened.append(now)
        if not was_ready:
            self.calm = now + _CALM_SECONDS
        elif self.ready:
            self.ready.popleft()

    def missing(self, now: float) -> int:
        """How many to start now."""
        while self.opened and self.opened[0] <= now - RECENT_SECONDS:
            self.opened.popleft()
        while self.ready and self.ready[0] <= now:
            self.ready.popleft()
        wanted = max(self.minimum, 1) if self.is_burst(now) else self.minimum + len(self.opened)
        return max(min(wanted, self.maximum) - len(self.ready), 0)

    def is_burst(self, now: float) -> bool:
        """Whether workers are being started for those who wait."""
        return now < self.calm

    def add(self, count: int, now: float, keep_alive: float | None = None) -> None:
        """They were started, and end after so many seconds (None: `keep_alive`) if nobody takes them."""
        self.ready.extend([now + (self.keep_alive if keep_alive is None else keep_alive)] * count)
        self.ready = deque(sorted(self.ready))
        self.settled = now + self.timing.pool_count

    def recount(self, count: int, now: float) -> None:
        """So many are there."""
        while len(self.ready) > count:
            self.ready.popleft()
        self.ready.extend([now + self.keep_alive] * (count - len(self.ready)))

    def withdraw(self, count: int) -> None:
        """They were not started after all."""
        for _ in range(min(count, len(self.ready))):
            self.ready.pop()


class UnsupportedError(Exception):
    """This Ray has no such call; the text names it."""


class Nodes(Protocol):
    """The cluster's nodes, as far as the pool is concerned."""

    async def alive(self) -> dict[str, str]:
        """Addresses of the raylets by node id."""

    async def count(self, address: str) -> int:
        """How many workers are ready there: started, and taken by nobody. Raises as `start` does."""

    async def start(self, address: str, count: int, *, keep: timedelta) -> None:
        """Have this raylet start `count` workers, which stay for `keep` if nobody takes them.

        Raises `OSError`, and `UnsupportedError` where it does not know how.
        """


class WarmPool:
    """Keeps workers ready on every node. A plain class; `Pool.start` makes it the cluster's one actor."""

    def __init__(self, settings: PoolSettings, nodes: Nodes | None = None, *, timing: Timing = TIMING) -> None:
        """Begin to work at once, with the cluster's `nodes` unless others are given."""
        if nodes is None:  # an actor: what it logs would go nowhere that anybody looks
            write_to_node(NodeFormatter())
        self._settings, self._timing = settings, timing
        self._nodes = nodes or RayNodes()
        self._stocks: dict[str, Stock] = {}
        self._addresses: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._is_supported = True
        self._looked = -timing.pool_look
        self._failures = Failures(timing=timing)
        self._task = asyncio.create_task(self._failures.keep("pool", self._run))

    async def opened(self, node_id: str, was_ready: bool) -> None:  # noqa: FBT001  # Ray sends it by position
        """A conversation's owner was started on this node, in a worker that `was_ready` or in one of its own."""
        stock = self._stocks.get(node_id)
        if stock is None or (stock.ready and not was_ready and time.monotonic() > stock.settled):
            self._looked = (
                -self._timing.pool_look
            )  # a node that is new, or one whose workers are not where they should be
        if stock is not None:
            stock.take(time.monotonic(), was_ready=was_ready)
        self._wake.set()

    async def ready(self) -> dict[str, int]:
        """Workers that should be ready, by node id; empty where the pool can do nothing."""
        return {node_id: len(stock.ready) for node_id, stock in self._stocks.items()} if self._is_supported else {}

    async def failures(self) -> Mapping[str, int]:
        """What went wrong and was survived: `pool` counts rounds, `node` nodes that started no workers in one."""
        return self._failures.counts

    async def aclose(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Refill until cancelled, or until the cluster cannot. A round that fails is noted, and the next one comes."""
        longest = 0.0  # nothing is waited for with the first fill
        while self._is_supported:
            # When nobody opens, it is time to look for new nodes, for workers whose time is up, and for those put off.
            with suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self._wake.wait()
                    await asyncio.sleep(self._timing.pool_gather)
            self._wake.clear()
            now = time.monotonic()
            longest = (
                _CALM_SECONDS if any(stock.is_burst(now) for stock in self._stocks.values()) else self._timing.pool_look
            )
            try:
                await self._refill()
            except UnsupportedError as error:
                self._is_supported = False
                log.warning("this Ray cannot start workers ahead of time (no %s); openings take longer", error)
            except (OSError, RayError) as error:
                self._failures.count("pool")
                log.warning("no workers could be started ahead of time", extra={"reason": repr(error)})

    async def _refill(self) -> None:
        is_look = time.monotonic() - self._looked >= self._timing.pool_look
        if is_look:
            await self._look()
        starts = [self._start(node_id, stock, counts=is_look) for node_id, stock in self._stocks.items()]
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, UnsupportedError):
                raise result
            if isinstance(result, OSError):
                self._failures.count("node")
                log.warning("a node did not start workers", extra={"reason": repr(result)})
            elif isinstance(result, BaseException):
                self._failures.note("node", result)

    async def _look(self) -> None:
        """Take in new nodes, forget those that are gone."""
        self._addresses = await self._nodes.alive()
        self._looked = time.monotonic()
        for node_id in self._stocks.keys() - self._addresses.keys():
            del self._stocks[node_id]
        for node_id in self._addresses.keys() - self._stocks.keys():
            chosen = self._settings
            self._stocks[node_id] = Stock(
                chosen.minimum, chosen.maximum, chosen.keep_alive.total_seconds(), timing=self._timing
            )

    async def _start(self, node_id: str, stock: Stock, *, counts: bool) -> None:
        address = self._addresses[node_id]
        if counts and time.monotonic() > stock.settled:
            found = await self._nodes.count(address)
            stock.recount(found, time.monotonic())
        missing = stock.missing(time.monotonic())
        usual = min(missing, max(stock.minimum - len(stock.ready), 0))
        for count, keep_alive in (
            (usual, self._settings.keep_alive),
            (missing - usual, min(EXTRA, self._settings.keep_alive)),
        ):
            if not count:
                continue
            stock.add(
                count, time.monotonic(), keep_alive.total_seconds()
            )  # first: openings meanwhile count against them
            try:
                await self._nodes.start(address, count, keep=keep_alive + _MARGIN)
            except BaseException:
                stock.withdraw(count)
                raise


class RayNodes:
    """Speaks to raylets, whose interface Ray does not promise to keep; tests/cluster/test_warm_pool.py would tell."""

    async def alive(self) -> dict[str, str]:
        """See `Nodes.alive`."""
        found = await in_thread(ray.nodes)
        return {n["NodeID"]: f"{n['NodeManagerAddress']}:{n['NodeManagerPort']}" for n in found if n["Alive"]}

    async def count(self, address: str) -> int:
        """See `Nodes.count`."""
        reply = await self._ask(address, "GetNodeStats", include_memory_info=False)
        nobody = b"\xff"  # Ray's ids of nothing consist of it
        return sum(
            worker.worker_type == _ORDINARY_WORKER and not (worker.job_id + worker.actor_id).strip(nobody)
            for worker in reply.core_workers_stats
        )

    async def start(self, address: str, count: int, *, keep: timedelta) -> None:
        """See `Nodes.start`."""
        seconds = int(keep.total_seconds())
        wanted = {"language": _PYTHON, "num_workers": count, "keep_alive_duration_secs": seconds}
        await self._ask(address, "PrestartWorkers", **wanted, runtime_env_info={"serialized_runtime_env": "{}"})

    async def _ask(self, address: str, method: str, **fields: Any) -> Any:
        try:
            # only the pool's own process needs these
            import grpc  # type: ignore[import-untyped]  # noqa: PLC0415  # it has no types
            from ray._private.grpc_utils import init_grpc_channel  # noqa: PLC0415
            from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc  # noqa: PLC0415

            request = getattr(node_manager_pb2, f"{method}Request")(**fields)
        except (AttributeError, ImportError, RuntimeError, ValueError) as error:  # of a grpcio too old for this Ray
            raise UnsupportedError(method) from error
        channel: Any = init_grpc_channel(address, asynchronous=True)
        try:
            stub = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
            return await getattr(stub, method)(request, timeout=_ASK_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise UnsupportedError(method) from error
            message = f"the raylet did not answer {method} ({error.code()})"
            raise OSError(message) from error
        finally:
            await channel.close()


async def tell_of_restart(node_id: str, *, was_ready: bool) -> None:
    """Say, in an owner that Ray has restarted, that it has taken a worker: nobody has opened it who would say so."""
    namespace = ray.get_runtime_context().namespace
    try:
        pool = await in_thread(ray.get_actor, POOL_NAME, namespace)
    except ValueError:
        return  # there is none
    except RayError as error:
        log.warning("the pool was not told of a restart", extra={"reason": repr(error)})
        return
    pool.opened.remote(node_id, was_ready)


class Pool:
    """The cluster's pool as a client sees it. Whatever happens to it, the client does not notice."""

    def __init__(self, settings: PoolSettings, starts: CleanStarts) -> None:
        """Nothing is started yet."""
        self._settings, self._starts = settings, starts
        self._actor: Any = None

    async def start(self, namespace: str) -> None:
        """Find the cluster's pool, or start it with these settings. Raises what Ray raises; there is none then."""
        if not self._settings.maximum:
            return
        options = {
            "name": POOL_NAME,
            "namespace": namespace,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            "enable_task_events": False,
        }
        self._actor = await in_thread(in_cluster, self._starts.start, WarmPool, options, self._settings)

    def opened(self, node_id: str, *, was_ready: bool) -> None:
        """Tell it that a conversation's owner was started on a node. Does not wait, and does not fail."""
        if self._actor is not None:
            try:
                self._actor.opened.remote(node_id, was_ready)
            except Exception as error:
                if not tells_of_loss(error):
                    raise
                log.warning("the pool was not told of an opening", extra={"reason": repr(error)})
