"""Inside the worker: sees its own jobs end, looks for silent agents everywhere, gives calls over at the end.

A job's process that ends is seen within milliseconds, and then one question tells a crash from the end of a
call: whether the job's heartbeat is still there. Lost nodes and hung event loops show by silence, which counts
only while Redis answers this worker (`Heartbeats.claim_expired`).

A job that died before it had a heartbeat gets one from its worker, so that it is followed like any other: for the
conversation and the role that it has announced (`Heartbeats.announce`). One that has announced nothing has died only
where its participant is still in the room; then it was to be the one agent of the conversation that its dispatch, or
its room, names, unless another role lives there, or a participant may name it. Whoever is neither announced nor
there has left on purpose. A call that ended in order less than ten minutes ago, in the same conversation, cannot be
told from one that was about to begin: then nobody follows.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from livekit.agents.job import RunningJobInfo

from agent_worker.failures import Failures
from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason, named_by_dispatch
from agent_worker.tenure.heartbeat_details import HeartbeatDetails, copied_metadata
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.timing import TIMING, Timing
from agent_worker.worker.rooms import Original, Rooms, RoomServiceError
from agent_worker.worker.summons import Vacancy, summon
from agent_worker.worker.takeover import HOLD, Takeover
from conversation_actors import HeartbeatRecord, Heartbeats
from conversation_actors.errors import ConversationError, RetryableError

logger = logging.getLogger(__name__)


class JobSource(Protocol):
    """The part of LiveKit's `AgentServer` that is watched."""

    @property
    def active_jobs(self) -> Sequence[RunningJobInfo]:
        """The jobs whose processes run."""


class FailureDetector:
    """Takes over what dies. One for each worker; any number of them may run on one Redis."""

    def __init__(
        self,
        jobs: JobSource,
        heartbeats: Heartbeats,
        takeover: Takeover,
        rooms: Rooms,
        *,
        instance: str,
        settings: TakeoverSettings,
        named_by_participants: bool = False,
        failures: Failures | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """`instance` names this run of this worker; `named_by_participants`: `CallSettings.participant_identity`.

        `failures` counts what goes wrong in the background; None: it is counted here only.
        """
        self._jobs, self._heartbeats, self._takeover, self._rooms = jobs, heartbeats, takeover, rooms
        self._instance, self._settings, self._timing = instance, settings, timing
        self._named_by_participants = named_by_participants
        self._running: set[asyncio.Task[None]] = set()
        self._failures = failures or Failures()
        self._damaged = self._gaps = 0

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong in the background so far, by what was being done. None of it ends the watch.

        ``damaged heartbeats`` are records that could not be read, ``heartbeat gaps`` are `Heartbeats.gaps`: while they
        rise this worker finds nobody who died on another one.
        """
        return self._failures.counts

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_jobs())
                tasks.create_task(self._watch_heartbeats())
        finally:
            for task in self._running:
                task.cancel()

    async def _watch_jobs(self) -> None:
        known: Mapping[str, RunningJobInfo] = {}

        async def look() -> None:
            nonlocal known
            current = {info.job.id: info for info in self._jobs.active_jobs}
            for job_id in known.keys() - current.keys():
                self._spawn("ended jobs", self._job_ended(known[job_id]))
            known = current
            await asyncio.sleep(self._timing.jobs_look)

        await self._failures.forever("jobs", look, pause=self._timing.jobs_look)

    async def _job_ended(self, info: RunningJobInfo) -> None:
        """Take over the call of a job whose process is gone without having let go of it."""
        try:
            records = await self._left_by(info)
        except RetryableError as error:
            # its heartbeat stops, and will be found by its silence
            self._failures.count("ended jobs", error, "a job ended; its heartbeat cannot be looked at")
            return
        for record in records:
            self._spawn("ended jobs", self._take_over(record, RestartReason.CRASH))

    async def _left_by(self, info: RunningJobInfo) -> list[HeartbeatRecord]:
        """Claim what a dead job had, or was about to have; nothing if it had let go of it, or others have it."""
        held = await self._heartbeats.held_by(info.job.id)
        if not held and await self._died_unannounced(info):
            held = [(conversation_id_of(info), "")]
        elif not held:
            told = "a job has ended without a conversation of its own, and is not followed"
            logger.info(told, extra={"job_id": info.job.id, "room": info.job.room.name})
        claimed = [await self._claim_left(info, *one) for one in held]
        return [record for record in claimed if record is not None]

    async def _claim_left(self, info: RunningJobInfo, conversation_id: str, role: str) -> HeartbeatRecord | None:
        record = await self._claim(info, conversation_id, role)
        if record is None and await self._began_dead(conversation_id, role, info):
            record = await self._claim(info, conversation_id, role)
        return record

    async def _claim(self, info: RunningJobInfo, conversation_id: str, role: str) -> HeartbeatRecord | None:
        return await self._heartbeats.claim(conversation_id, self._instance, hold=HOLD, holder=info.job.id, role=role)

    async def _began_dead(self, conversation_id: str, role: str, info: RunningJobInfo) -> bool:
        """Write the record of a job that died before it could; False if another agent has one, or it was ended."""
        return await self._heartbeats.beat(
            conversation_id,
            info.job.id,
            role=role,
            valid_for=self._settings.valid_for,
            group=self._instance,
            details=_details(info).to_dict(),
        )

    async def _died_unannounced(self, info: RunningJobInfo) -> bool:
        """Return whether a job that has announced nothing has died, and was to be the one agent, as far as is known."""
        if not self._is_known(info) or not await self._is_ghost(info):
            return False
        return not await self._heartbeats.roles_of(conversation_id_of(info))

    async def _is_ghost(self, info: RunningJobInfo) -> bool:
        """Return whether a job's participant stays in the room after the end of its process: it has not left by itself.

        While LiveKit's server does not answer it is asked again, as long as a ghost would be there.
        """
        deadline = time.monotonic() + self._timing.ghost
        is_there = False
        while time.monotonic() < deadline:
            try:
                occupants = await self._rooms.occupants(info.job.room.name)
            except RoomServiceError as error:
                self._failures.count("ended jobs", error, "nobody can tell whether a job has left its room")
            else:
                was_there = is_there
                is_there = any(one.identity == info.accept_arguments.identity for one in occupants.agents)
                if was_there or not is_there:
                    return is_there
            await asyncio.sleep(self._timing.gone)
        return False

    def _is_known(self, info: RunningJobInfo) -> bool:
        """Return whether `conversation_id_of` a job is its conversation for certain."""
        return not self._named_by_participants or _named(info) is not None

    async def _watch_heartbeats(self) -> None:
        """Claim what falls silent. While Redis is away nobody does: see `Heartbeats.claim_expired`.

        The looks have a fixed rate, whatever Redis takes to answer. Where it takes longer, one follows the other at
        once.
        """
        interval = self._settings.poll_interval.total_seconds()
        due = time.monotonic()

        async def look() -> None:
            nonlocal due
            due = max(due + interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            try:
                for record in await self._heartbeats.claim_expired(self._instance, hold=HOLD):
                    self._spawn("takeovers", self._take_over(record, RestartReason.SILENCE))
            finally:
                self._count_seen()

        await self._failures.forever("heartbeats", look, pause=0)

    def _count_seen(self) -> None:
        for _ in range(self._heartbeats.damaged - self._damaged):
            self._failures.add("damaged heartbeats")
        for _ in range(self._heartbeats.gaps - self._gaps):
            told = "silence is counted anew: it is too long from one answer of Redis to the next"
            self._failures.count("heartbeat gaps", TimeoutError(), told)
        self._damaged, self._gaps = self._heartbeats.damaged, self._heartbeats.gaps

    async def _take_over(self, record: HeartbeatRecord, reason: RestartReason) -> None:
        await self._takeover.run(record, reason=reason)

    async def give_over(self) -> None:
        """Ask, again and again, for successors on other workers, until this worker has no call any more."""
        asked: dict[str, tuple[float, float]] = {}
        while await self._ask_for_successors(asked):  # noqa: ASYNC110  # there is no event for a call's end
            await asyncio.sleep(self._timing.jobs_look)

    async def _ask_for_successors(self, asked: dict[str, tuple[float, float]]) -> bool:
        """Ask for those whose time it is: whether there is any call left, as far as is known."""
        try:
            jobs = self._jobs.active_jobs
        except Exception as error:  # noqa: BLE001  # calls that cannot be seen may be there all the same
            self._failures.count("jobs", error)
            return True
        for info in jobs:
            due, wait = asked.get(info.job.id, (0.0, self._timing.ask))
            if time.monotonic() >= due:
                asked[info.job.id] = (time.monotonic() + wait, wait * 2)
                await self._ask_for_successor(info)
        return bool(jobs)

    async def _ask_for_successor(self, info: RunningJobInfo) -> None:
        """Ask once, for one job. Whatever goes wrong with it is counted, and is no reason to leave the others."""
        try:
            # nothing where it is not open yet: a successor would open another one
            for conversation_id, role in await self._heartbeats.held_by(info.job.id):
                await self._call_to(conversation_id, role, info)
        except Exception as error:  # noqa: BLE001  # see the docstring
            self._failures.count("giving over", error, "no successor can be asked for", job_id=info.job.id)

    async def _call_to(self, conversation_id: str, role: str, info: RunningJobInfo) -> None:
        record = await self._heartbeats.find(conversation_id, role=role)
        if record is None or record.holder != info.job.id:
            return
        assignment = Assignment(
            conversation_id=conversation_id,
            role=role or AGENT_ROLE,
            replaces=info.job.id,
            is_planned=True,
            avoid=info.worker_id,
            reason=RestartReason.DEPLOY,
        )
        original = Original(info.job.dispatch_id, info.job.metadata)
        vacancy = Vacancy(info.job.room.name, info.job.agent_name, original)
        await summon(self._heartbeats, self._rooms, vacancy, assignment)

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._counted(what, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _counted(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ConversationError as error:
            # the claim expires, and this worker or another one tries again
            self._failures.count(what, error, "a call could not be taken over yet")
        except Exception as error:
            self._failures.add(what)
            logger.exception("a call could not be taken over", extra={"reason": type(error).__name__})


def conversation_id_of(info: RunningJobInfo) -> str:
    """Return the conversation of a job, as the job itself finds it; not if a participant named it."""
    return _named(info) or info.job.room.name


def _named(info: RunningJobInfo) -> str | None:
    return named_by_dispatch(info.job.metadata, info.job.room.metadata)


def _details(info: RunningJobInfo) -> HeartbeatDetails:
    """Return what a job would have told of itself if it had lived to open its conversation."""
    return HeartbeatDetails(
        room=info.job.room.name,
        agent_name=info.job.agent_name,
        agent_identity=info.accept_arguments.identity,
        worker_id=info.worker_id,
        dispatch_id=info.job.dispatch_id,
        metadata=copied_metadata(info.job.metadata),
        was_open=False,
    )
