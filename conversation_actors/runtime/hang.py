"""Owners whose process hangs: stopped, or stuck in its event loop, on a node that is well.

Ray replaces a process that has ended, and a node that does not answer; a process that lives and answers nothing it
leaves alone, for as long as that lasts. So whoever waits for an owner asks it for a sign of life beside. An owner that
waits for Redis gives one, one that is slow or starting does, or is not looked at. What gives none for
`timeouts.hang` is examined on its own node, so that a network which only this process cannot get through kills nobody,
and killed there. Ray then starts it anew; the epoch sees to it that two examiners, or a wrong verdict, do no harm.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from conversation_actors.runtime.membership import in_cluster
from conversation_actors.runtime.threads import in_thread

logger = logging.getLogger(__name__)

_TABLE_SECONDS = 2.0
"""How long the head may take to tell where an actor is."""
_CONFIRM_SECONDS = 2.0
"""How long the owner may take to answer whoever examines it on its own node."""
_EXAMINATION_SECONDS = 20.0
"""A process for the examiner takes a second or two to start, on a busy machine more."""
_IS_ALIVE = 2
"""Ray's number of an actor whose process runs (`ActorTableData.ALIVE`)."""


@dataclass(frozen=True)
class Lodging:
    """Where an actor runs, and how often it had been restarted by then."""

    pid: int
    node_id: str
    restarts: int


class HangWatch:
    """Looks at one conversation's owner while somebody waits for it in vain. Belongs to one event loop."""

    def __init__(self, conversation_id: str, *, seconds: float) -> None:
        """Take an owner that answers nothing for so many `seconds` for one that hangs."""
        self._conversation_id, self._seconds = conversation_id, seconds
        self._look: asyncio.Task[None] | None = None

    def suspect(self, actor: Any) -> None:
        """Begin to look at an actor, unless one is being looked at. Returns at once; a failure is logged."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_at(actor))

    async def _look_at(self, actor: Any) -> None:
        try:
            found = await self._find_hung(actor)
            if found is not None and await _examine_there(actor, found):
                logger.warning(
                    "an owner's process hung, and was killed: Ray starts it anew",
                    extra={"conversation_id": self._conversation_id, "pid": found.pid, "node_id": found.node_id},
                )
        except Exception as error:  # noqa: BLE001  # nobody waits for this task, and Ray's errors are of many kinds
            logger.warning("an owner that does not answer cannot be looked at", extra={"reason": repr(error)})

    async def _find_hung(self, actor: Any) -> Lodging | None:
        """Where it runs, if it has run there all the time without a sign of life."""
        before = await lodging(actor)
        if before is None or await _answers(actor, self._seconds):
            return None
        return before if await lodging(actor) == before else None


async def lodging(actor: Any) -> Lodging | None:
    """Where an actor's process runs; None while there is none. Raises `RayError` if the head does not answer."""
    head = getattr(global_worker, "gcs_client", None)
    if head is None:
        return None  # by way of Ray's client server: nobody can be asked
    name = actor._actor_id  # noqa: SLF001  # Ray has no other name for it
    table = await head.async_get_all_actor_info(actor_id=name, timeout=_TABLE_SECONDS)
    for data in table.values():
        if data.state == _IS_ALIVE:
            return Lodging(data.pid, data.node_id.hex(), data.num_restarts)
    return None


async def _answers(actor: Any, seconds: float) -> bool:
    """Whether it gives a sign of life, or its end is known."""
    try:
        async with asyncio.timeout(seconds):
            await actor.ping.remote()
    except TimeoutError:
        return False
    except (AttributeError, RayError):  # an owner of an older version; or one that Ray is replacing already
        return True
    return True


async def _examine_there(actor: Any, found: Lodging) -> bool:
    """Whether it was found hanging on its own node, and was killed. Raises `TimeoutError` if nobody could look."""
    on_its_node = NodeAffinitySchedulingStrategy(found.node_id, soft=False)
    task: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_its_node)(examine)
    verdict = await in_thread(in_cluster, task.remote, actor, found.pid, _CONFIRM_SECONDS)
    try:
        async with asyncio.timeout(_EXAMINATION_SECONDS):
            return bool(await verdict)
    except BaseException:
        ray.cancel(verdict, force=True)
        raise


def examine(actor: Any, pid: int, seconds: float) -> bool:
    """Kill the process of an actor on this node unless the actor gives a sign of life; True if it was killed."""
    try:
        ray.get(actor.ping.remote(), timeout=seconds)
    except GetTimeoutError:
        return _kill(pid)
    except RayError:
        return False  # it has died meanwhile
    return False


def _kill(pid: int) -> bool:
    """SIGKILL a worker process of this node's raylet, and nobody who has got its process id since."""
    import psutil  # noqa: PLC0415  # Ray brings its own, and has it on the path once it is imported

    try:
        process = psutil.Process(pid)
        raylets = [above for above in psutil.Process().parents() if above.name() == "raylet"]
        if not set(raylets[:1]) & set(process.parents()):
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True
