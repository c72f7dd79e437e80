"""Who calls in a call in text: noted as somebody in a room is, and welcomed by the same rules."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from agent_worker.call.welcome import GREETED, greeted_context, visits, welcome
from agent_worker.development.talk import Report
from agent_worker.example.answer import ShopSettings
from agent_worker.lines import Welcome
from conversation_actors import ConversationHandle

_DEVICE = "text"
"""What everybody calls with: whoever has not left is still in the same call, whichever process answers it."""


@asynccontextmanager
async def calling(handle: ConversationHandle, caller: str | None, report: Report) -> AsyncIterator[str]:
    """Have somebody be in the conversation meanwhile; yield what the agent says to greet them.

    That is empty in a first call, because the caller of a transcript speaks first, in a call that another process has
    begun, and if nobody is named. A process that is killed leaves its caller in the call.
    """
    if caller is None:
        yield ""
        return
    before = handle.participants.get(caller)
    joined = await handle.join(caller, device_id=_DEVICE)
    wanted = welcome(before, joined, device=_DEVICE, grace=timedelta(0))
    if wanted in {Welcome.FIRST, Welcome.BACK} or GREETED not in joined.context:
        await handle.update_participant(caller, context=greeted_context(joined))
    report("arrived", caller=caller, welcome=wanted.value, visits=visits(joined))
    line = ShopSettings().line(Welcome.BACK, joined.language, visits=visits(joined))
    yield line if wanted is Welcome.BACK else ""
    await handle.leave(caller, device_id=_DEVICE)
    report("left", caller=caller, seq=handle.seq)
