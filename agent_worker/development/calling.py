"""Who calls in a call in text, and who answers: noted as in a room, and welcomed by the same rules."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from agent_worker.call.welcome import GREETED, greeted_context, visits, welcome
from agent_worker.development.talk import Report
from agent_worker.example.answer import ShopSettings
from agent_worker.lines import Welcome
from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.tenure.succession import LEASE_DURATION
from conversation_actors import ConversationHandle, Lease, LeaseHeldError
from conversation_actors.calls.names import CALL, COMPLETED

_HOLDER = "talk-"
"""How the names of those begin who answer calls in text."""
_DEVICE = "text"
"""What everybody calls with: whoever has not left is still in the same call, whichever process answers it."""


@asynccontextmanager
async def calling(handle: ConversationHandle, caller: str | None, report: Report) -> AsyncIterator[str]:
    """Have somebody be in the conversation meanwhile; yield what the agent says to greet them.

    That is empty in a first call, because the caller of a transcript speaks first, in a call that another process has
    begun, and if nobody is named. A process that is killed leaves its caller in the call, and is followed as an agent
    that has died. The call has ended when this does.
    """
    if caller is None:
        yield ""
        return
    lease = await _become_agent(handle)
    before = handle.participants.get(caller)
    joined = await handle.join(caller, device_id=_DEVICE)
    wanted = welcome(before, joined, device=_DEVICE, grace=timedelta(0))
    if wanted in {Welcome.FIRST, Welcome.BACK} or GREETED not in joined.context:
        await handle.update_participant(caller, context=greeted_context(joined))
    report("arrived", caller=caller, welcome=wanted.value, visits=visits(joined))
    line = ShopSettings().line(Welcome.BACK, joined.language, visits=visits(joined))
    yield line if wanted is Welcome.BACK else ""
    if lease is not None:
        await handle.set_attributes({CALL: CallEnd(COMPLETED).note(lease.holder)}, lease=lease)
    await handle.leave(caller, device_id=_DEVICE)
    if lease is not None:
        await handle.release_lease(lease)
    report("left", caller=caller, seq=handle.seq)


async def _become_agent(handle: ConversationHandle) -> Lease | None:
    """Be the agent of the call, also in the place of another one in text; None if an agent in a room has the call."""
    holder = f"{_HOLDER}{os.getpid()}-{secrets.token_hex(2)}"
    replacing: str | None = None
    while True:
        try:
            return await handle.acquire_lease(AGENT_ROLE, holder=holder, duration=LEASE_DURATION, replacing=replacing)
        except LeaseHeldError as held:
            if not held.holder.startswith(_HOLDER):
                return None
            replacing = held.holder
