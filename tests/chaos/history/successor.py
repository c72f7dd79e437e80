"""A second owner of a conversation, as a hung node leaves one behind: it begins while the first one sleeps."""

import secrets
import time
from typing import Any, Self

import ray

from conversation_actors import ConversationClient, ConversationError, Message
from conversation_actors.activation import PROTOCOL, Done, Execute, Executed, Opened, Request
from conversation_actors.runtime.actor import ConversationActor
from conversation_actors.state import AppendItems
from tests.chaos.history.record import Recorder

ITEMS = 2


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
        """Open the conversation, which nobody knows any more, and append what must not be lost from then on."""
        self._actor = (
            ray.remote(ConversationActor)
            .options(name=f"successor-{secrets.token_hex(4)}", namespace="tests", num_cpus=0, max_concurrency=100)
            .remote(self._conversation, self._settings)
        )
        started = time.monotonic()
        begun = await self._actor.open.remote(create=True, protocol=PROTOCOL)
        if not isinstance(begun, Opened):
            raise begun
        self._recorder.view(self._conversation, begun.view, started=started, fresh=False, is_full=True)
        self._recorder.write("settled", conversation=self._conversation, life=begun.view.life)
        for _ in range(ITEMS):
            await self._append(f"s:{secrets.token_hex(6)}")

    async def _append(self, text: str) -> None:
        name = f"r{text}"
        number = self._recorder.invoke("append", self._conversation, request=name, texts=[text])
        message = Message(role="user", content=text)
        packed = Execute([Request(name, AppendItems((message.to_stored(),)))], "successor", 0).pack()
        answer = await self._actor.execute.remote(packed)
        if isinstance(answer, ConversationError):
            raise answer
        reply = Executed.unpack(answer).replies[0]
        if not isinstance(reply, Done):
            raise reply
        self._recorder.complete(number, "ok", receipt=[reply.seq, reply.epoch])
