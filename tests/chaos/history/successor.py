"""A second owner of a conversation, as a hung node leaves one behind: it begins while the first one sleeps."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import ray

from conversation_actors import ConversationClient, ConversationError, Message, RetryableError
from conversation_actors.protocol import PROTOCOL, Done, Execute, Executed, Opened, Request
from conversation_actors.runtime.actor import ConversationActor
from conversation_actors.state import AppendItems
from tests.chaos.history.record import Recorder

ITEMS = 2
PATIENCE = 30.0


class Successor:
    """An actor of a name of its own; ended behind the context."""

    def __init__(self, conversation: str, client: ConversationClient, recorder: Recorder) -> None:
        """With the settings of `client`."""
        self._conversation, self._settings, self._recorder = conversation, client._settings, recorder
        self._actor: Any = None

    async def __aenter__(self) -> Self:
        """Start the process; it recovers what is stored only when it is asked."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, unless it has ended by itself."""
        if self._actor is not None:
            ray.kill(self._actor)

    async def begin(self) -> None:
        """Open the conversation, or make it, and append what must not be lost from then on."""
        self._actor = (
            ray.remote(ConversationActor)
            .options(name=f"successor-{secrets.token_hex(4)}", namespace="tests", num_cpus=0, max_concurrency=100)
            .remote(self._conversation, self._settings)
        )
        started = time.monotonic()
        begun: Opened = await self._until_answered(lambda actor: actor.open.remote(create=True, protocol=PROTOCOL))
        self._recorder.view(self._conversation, begun.view, started=started, fresh=False, is_full=True)
        self._recorder.write("settled", conversation=self._conversation, life=begun.view.life)
        for _ in range(ITEMS):
            await self._append(f"s:{secrets.token_hex(6)}")

    async def _append(self, text: str) -> None:
        name = f"r{text}"
        number = self._recorder.invoke("append", self._conversation, request=name, texts=[text])
        stored = Message(role="user", content=text).to_stored()
        packed = Execute([Request(name, AppendItems((stored,)))], "successor", 0).pack()

        async def execute(actor: Any) -> Any:
            answer = await actor.execute.remote(packed)
            return Executed.unpack(answer).replies[0] if isinstance(answer, bytes) else answer

        done: Done = await self._until_answered(execute)
        self._recorder.complete(number, "ok", receipt=[done.seq, done.epoch])

    async def _until_answered(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await ask(self._actor)
                if not isinstance(answer, ConversationError):
                    return answer
                if not isinstance(answer, RetryableError):
                    raise answer
                await asyncio.sleep(0.05)
