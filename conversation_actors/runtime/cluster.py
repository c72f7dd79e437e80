"""The Ray cluster: joining it, and finding or starting a conversation's actor in it."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import ray
from ray._private.utils import read_ray_address
from ray.exceptions import RayError

from conversation_actors.backoff import Backoff
from conversation_actors.errors import ClusterUnavailableError, ConversationError, RetryableError
from conversation_actors.protocol import ActivationInfo
from conversation_actors.runtime.actor import ConversationActor
from conversation_actors.runtime.diagnosis import require_joinable
from conversation_actors.runtime.membership import Membership, in_cluster, place
from conversation_actors.runtime.ray_news import tell_by_log
from conversation_actors.runtime.signals import sigterm_kept
from conversation_actors.runtime.starter import CleanStarts
from conversation_actors.runtime.threads import in_thread
from conversation_actors.runtime.titles import full_name
from conversation_actors.runtime.warm_pool import Pool
from conversation_actors.settings import Placement, Settings, lasting_connection, quick_crash_detection
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

NAMESPACE = "conversations"
RESOURCE = "conversation"
"""A custom resource; where nodes offer it, each actor takes 1, so that an autoscaler can count them."""

_STRATEGIES = {Placement.SPREAD: "SPREAD", Placement.PACK: "DEFAULT"}
_PREFIX = "conversation:"
_JOINING = threading.Lock()
_AGAIN_SECONDS = 0.1
"""Until an owner that did not answer is asked to passivate once more."""
_OURS: set[str] = set()
"""Each `place` that this package had the process join: what others have joined is theirs to leave."""


def actor_name(conversation_id: str, settings: Settings | None = None) -> str:
    """Return the name under which `ray.get_actor(name, namespace="conversations")` finds the actor.

    It depends on `Settings.tenant` and `Settings.hashed_names`; without `settings`, on those of the environment.
    """
    return _PREFIX + full_name(conversation_id, settings or Settings())


async def connect(settings: Settings, *, timing: Timing = TIMING) -> None:
    """Join the cluster, unless this process is in one. The connection stays until the process ends.

    Raises `ClusterUnavailableError` when there is none, or none answers within `timeouts.connect`.
    """
    if ray.is_initialized():
        return
    seconds = settings.timeouts.connect.total_seconds()
    try:
        async with asyncio.timeout(seconds):
            await _reach_and_join(settings.ray_address, seconds, timing.join)
    except ConversationError:
        raise  # the cause was found before Ray tried
    except (OSError, RayError, RuntimeError, TimeoutError, ValueError) as error:
        where = settings.ray_address or "this machine"
        message = (
            f"no Ray cluster at {where} ({error or f'no answer in {seconds} s'}); "
            "set RAY_ADDRESS (and RAY_AUTH_MODE=token where the cluster asks for a token), "
            "or start one with `conversation-actors dev` or `ray start --head`"
        )
        raise ClusterUnavailableError(message) from error


def is_joining() -> bool:
    """Whether a thread of this process is joining a cluster at this moment."""
    return _JOINING.locked()


async def check(settings: Settings) -> None:
    """Make sure that the cluster's control plane can be reached; joins nothing, leaves nothing behind.

    Raises `ClusterUnavailableError`. That it works is not promised, nor that it has room.
    """
    address = settings.ray_address
    if address in {None, "auto", "local"}:
        address = await in_thread(read_ray_address)
    if not address:
        message = "no Ray cluster: RAY_ADDRESS is not set, and none was started on this machine"
        raise ClusterUnavailableError(message)
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        async with asyncio.timeout(settings.timeouts.connect.total_seconds()):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, ValueError) as error:
        message = f"nobody answers at {address} ({type(error).__name__})"
        raise ClusterUnavailableError(message) from error
    writer.close()


async def _reach_and_join(address: str | None, seconds: float, pauses: tuple[float, float]) -> None:
    """Join, within so many `seconds`, with such pauses between attempts at what a repeat may help with."""
    if await in_thread(require_joinable, address):
        with _without_old_news():
            # As Ray does it for address="auto". To another machine it sends its token only where
            # RAY_AUTH_MODE says so, and neither do we.
            _use_own_token()
    backoff, loop = Backoff(pauses), asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            # In a thread it blocks nobody.
            return await in_thread(_join, address)
        except ConnectionAbortedError as error:
            # Ray's client server forks a server for each of its clients while other threads of it run: now and then
            # what it has forked dies at once, and nothing is wrong with the cluster.
            pause = backoff.next()
            if loop.time() + pause >= deadline:
                raise
            logger.info("Ray's client server has let nobody in, and is asked again", extra={"reason": str(error)})
        await asyncio.sleep(pause)


def _use_own_token() -> None:
    """Have Ray send the token that this user has for it; what an older Ray does not know of is not sent."""
    try:
        from ray._private.authentication import authentication_token_setup as setup  # noqa: PLC0415  # not in every Ray
    except ImportError:
        return
    enable = getattr(setup, "maybe_enable_token_auth_if_token_available", None)
    if enable is not None:
        enable(warn_if_disabled=False)


def _require_client(address: str | None) -> None:
    """Say in a sentence of ours what Ray's client lacks. Raises `ClusterUnavailableError`."""
    if (address or "").startswith("ray://") and find_spec("grpc") is None:
        message = f"{address} needs grpcio: `pip install grpcio`, or give RAY_ADDRESS the cluster's own host:port"
        raise ClusterUnavailableError(message)


def _join(address: str | None) -> None:
    _require_client(address)
    # two threads of a process may want to: one that prepares it, and its first call
    with _JOINING, _without_old_news(), quick_crash_detection(), lasting_connection(), sigterm_kept():
        if ray.is_initialized():
            return
        tell_by_log()
        ray.init(
            address=address or "auto",
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            ignore_reinit_error=True,
        )
        _OURS.add(place())
    # Ray imports what serialises arguments (pydantic, a fifth of a second) with the first one: not in the first call.
    ray.put(None)


def _is_ours() -> bool:
    """Whether this process is in a cluster that this package had it join, or in none any more."""
    return bool(_OURS) and place() in {*_OURS, ""}


@contextmanager
def _without_old_news() -> Iterator[None]:
    """Keep what Ray says of things that are as they should be out of everybody's terminal."""
    loggers = [logging.getLogger(f"ray._private.{name}") for name in _CHATTY]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


_CHATTY = ("worker", "authentication.authentication_token_setup")
_OLD_NEWS = ("SIGTERM handler is not set", "Token authentication is enabled")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OLD_NEWS)


class ActorDirectory:
    """Finds conversations' actors. `get_or_create`, `find` and `confirm` block on the head: run them in a thread."""

    def __init__(self, settings: Settings) -> None:
        """Actors started from here run with `settings`."""
        self._settings = settings
        self._starts = CleanStarts()
        self.pool = Pool(settings.pool, self._starts)
        self._has_told = False
        self._membership = Membership(settings.ray_address, _join, is_ours=_is_ours)
        self._place = place()
        self._is_pool_due = False

    def get_or_create(self, conversation_id: str) -> Any:
        """Return the actor of this name, started if there is none. It may be dying: ask it something first.

        Raises `ClusterUnavailableError` while the head does not answer.
        """
        self.confirm()
        options: dict[str, Any] = {
            "name": actor_name(conversation_id, self._settings),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
            # A repeat is the client's business: it carries a request_id, Ray's own would not tell.
            "max_task_retries": 0,
            "max_concurrency": 1000,
            "enable_task_events": False,
            "resources": self._needed(),
            "scheduling_strategy": _STRATEGIES[self._settings.placement],
        }
        return in_cluster(self._starts.start, ConversationActor, options, conversation_id, self._settings)

    async def start_pool(self) -> None:
        """Have workers started ahead of time from now on, if that is possible here; see `warm_pool`."""
        await self.pool.start(NAMESPACE)

    def started(self, info: ActivationInfo, *, was_ready: bool) -> None:
        """Prepare for the next owner, now that one was started."""
        if self._is_pool_due:
            self._is_pool_due = False
            self._renewing = asyncio.create_task(self._start_pool_again())
        self.pool.opened(info.node_id, was_ready=was_ready)
        if not info.is_forked and not self._has_told:
            self._has_told = True
            logger.warning(
                "an owner was started the slow way: its node was not started by `conversation-actors start`, "
                "or conversation_fork_server.log among its Ray logs says why not",
                extra={"node_id": info.node_id},
            )

    def find(self, conversation_id: str) -> Any:
        """Return the actor of this name, or None. It may be dying. Raises as `get_or_create` does."""
        self.confirm()
        try:
            return in_cluster(ray.get_actor, actor_name(conversation_id, self._settings), NAMESPACE)
        except ValueError:
            return None

    async def _start_pool_again(self) -> None:
        try:
            await self.start_pool()
        except Exception as error:  # noqa: BLE001  # nobody waits for this task, and all goes on without a pool
            logger.warning("no workers are started ahead of time", extra={"reason": repr(error)})

    def confirm(self) -> None:
        """Make sure that the head answers, and begin anew where this process had to join again.

        Raises `ClusterUnavailableError`.
        """
        self._membership.confirm()
        now = place()
        if not self._place:
            self._place = now
        if now != self._place:
            self._starts = CleanStarts()
            self.pool = Pool(self._settings.pool, self._starts)
            self._place, self._is_pool_due = now, True

    def _needed(self) -> dict[str, float]:
        return {RESOURCE: 1.0} if RESOURCE in self._membership.resources else {}


async def drain(timeout: float) -> tuple[int, int]:  # noqa: ASYNC109  # one bound for all actors together
    """Passivate every conversation of the cluster, before it is shut down; returns how many did, and of how many.

    Those that do not answer within `timeout` seconds lose nothing: they are rebuilt from their journals.
    """
    named = await in_thread(ray.util.list_named_actors, True)  # Ray's signature: all_namespaces
    names = [n["name"] for n in named if n["namespace"] == NAMESPACE and n["name"].startswith(_PREFIX)]
    passivating = [asyncio.create_task(_passivate(name)) for name in names]
    if not passivating:
        return 0, 0
    done, late = await asyncio.wait(passivating, timeout=timeout)
    for task in late:
        task.cancel()
    return sum(task.result() for task in done), len(names)


async def _passivate(name: str) -> bool:
    """Ask an owner until it has left: its answer may be lost on the way, as the owner leaves right after it."""
    while True:
        try:
            actor = await in_thread(ray.get_actor, name, NAMESPACE)
        except ValueError:
            return True  # one that had crashed instead would be there: Ray starts it anew
        try:
            answer: object = await actor.passivate.remote()
        except RayError as error:
            answer = error
        if answer is True:
            return True
        logger.warning("not passivated yet: %s", answer)
        if isinstance(answer, ConversationError) and not isinstance(answer, RetryableError):
            return False
        await asyncio.sleep(_AGAIN_SECONDS)
