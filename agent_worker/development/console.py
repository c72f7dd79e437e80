"""``python -m agent_worker console``: type to the example agent in a terminal; no LiveKit server, no sound."""

import asyncio
import sys
from collections.abc import Callable

from livekit.agents import APIError, RunResult

from agent_worker.call.attach import attach
from agent_worker.example.agent import SupportAgent
from agent_worker.example.pipeline import text_session
from agent_worker.offline.server import OfflineServer
from agent_worker.offline.small_talk import FirstCallScript
from agent_worker.offline.transcript import bundled, load
from agent_worker.settings import LanguageModelSettings
from conversation_actors import ConversationClient, Settings

PROMPT = "you> "
OFFLINE = 'The offline stand-in answers: it holds no language model, and knows a few sentences. Try "What can you do?".'
FORGETFUL = "No Redis is used: the conversation is in this program's memory, and is forgotten when it ends."


async def console(
    conversation_id: str,
    settings: LanguageModelSettings,
    write: Callable[[str], object],
    *,
    note: str | None = None,
    store: Settings | None = None,
) -> None:
    """Talk until the end of the input. The conversation is kept: the same id goes on where it ended.

    `note` is written when the talk can begin. Without `store`, where it is kept is read from the environment; a
    ``memory://`` there keeps it for as long as this program runs. Raises `InvalidInputError` for a missing key, and
    what `ConversationClient` raises.
    """
    settings.require_key()
    store = store or Settings()
    async with ConversationClient(store) as client:
        conversation = await client.open(conversation_id)
        async with text_session(settings) as session:
            agent = SupportAgent.of(conversation.items)
            attached = await attach(session, agent, conversation)
            await session.start(agent)
            if note is not None:
                write(note)
            if store.is_in_memory:
                write(FORGETFUL)
            write(f"conversation {conversation_id}: {attached.restored.items} items of it are known; end with Ctrl-D")
            while (line := await asyncio.to_thread(_read_line, write)) is not None:
                if line.strip():
                    await _say(session.run(user_input=line), write)
                    await conversation.flush()


def _read_line(write: Callable[[str], object]) -> str | None:
    if sys.stdin.isatty():
        try:
            return input(PROMPT)
        except EOFError:
            write("")
            return None
    return sys.stdin.readline() or None


async def console_offline(conversation_id: str, write: Callable[[str], object]) -> None:
    """Talk to the offline stand-in, which runs in this process and needs no account. Raises as `console` does.

    Where no Redis is configured, none is needed either.
    """
    store = Settings()
    if store.redis_url is None:
        store = store.in_memory()
    async with OfflineServer(FirstCallScript(load(bundled()))) as server:
        await console(
            conversation_id, LanguageModelSettings(base_url=server.base_url), write, note=OFFLINE, store=store
        )


async def _say(run: RunResult[None], write: Callable[[str], object]) -> None:
    try:
        await run
    except APIError as error:
        write(f"({type(error).__name__}: the model could not be asked; try again)")
        return
    for event in run.events:
        if event.type == "message" and event.item.role == "assistant":
            write(f"agent> {event.item.text_content}")
        elif event.type == "function_call":
            write(f"  ({event.item.name} {event.item.arguments})")
