"""What a back end is asked and told beside the outbox: recent messages, a deletion, context, words in progress."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

from pydantic import ValidationError

from conversation_actors.backend.exchange import AnswerTooLargeError, Exchange, Question
from conversation_actors.backend.models import (
    CONTEXT_PATH,
    CONVERSATIONS_PATH,
    MESSAGES_PATH,
    MOST_ANSWER_BYTES,
    Context,
    ContextAsked,
    Message,
    Messages,
    Transcription,
    WireModel,
)
from conversation_actors.errors import BackendUnavailableError
from conversation_actors.settings import BackendSettings
from conversation_actors.webhooks.wire_text import json_text, moment

MOST_MESSAGES = 10_000
"""Messages of an answer; one with more is refused as a whole."""
_MESSAGES_BYTES = MOST_ANSWER_BYTES
_FEWER = 4
"""By what the number of messages is divided that were too many bytes."""
_CONTEXT_BYTES = 256 << 10
_BYTES_AT_ONCE = 64 << 10
"""What is parsed between two turns of the event loop."""
_TRANSCRIPTIONS_PATH = "/v1/transcriptions"

_Answer = TypeVar("_Answer", bound=WireModel)


class BackendClient:
    """Asks the back end of one tenant. Belongs to one event loop, and connects when it is first asked.

    Every method raises `BackendUnavailableError` if the back end is away, refuses, or answers with what does not fit
    its document. None waits longer than its setting, names and connections included. All may be cancelled at any time.
    """

    def __init__(self, settings: BackendSettings, tenant: str, *, exchange: Exchange | None = None) -> None:
        """Ask the back end of the settings, which must have a URL. `exchange` is for tests."""
        self._settings, self._tenant = settings, tenant
        self._exchange = exchange or Exchange(settings)

    async def __aenter__(self) -> Self:
        """Prepare what the first request needs, so that it is as quick as the others. Asks nothing yet."""
        await self._exchange.prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._exchange.aclose()

    async def messages(self, conversation_id: str, *, limit: int | None = None) -> Sequence[Message]:
        """Return the newest messages of a conversation, the oldest of them first; none if it is not known there.

        `limit` is how many at most; without it, as many as the settings say. If these are more bytes than are read, a
        quarter of them is asked for, once. Waits for `recall_timeout`.
        """
        wanted = self._settings.messages if limit is None else limit
        async with self._within(self._settings.recall_timeout):
            try:
                body = await self._newest(conversation_id, wanted)
            except AnswerTooLargeError:
                if wanted // _FEWER < 1:
                    raise
                body = await self._newest(conversation_id, wanted // _FEWER)
            found = (await self._read(Messages, body)).messages
        if len(found) > MOST_MESSAGES:
            what = f"{len(found)} messages; at most {MOST_MESSAGES} are read"
            raise self._unfit(what)
        return found

    async def delete(self, conversation_id: str, *, before: datetime, lives: Collection[str] = ()) -> None:
        """Have the back end forget a conversation, also one that it does not know. Waits for `recall_timeout`.

        What happened `before` is forgotten, and what is of these `lives`; not what has begun anew since.
        """
        query = {**self._whose(conversation_id), "before": moment(before), "life": list(lives)}
        async with self._within(self._settings.recall_timeout):
            await self._exchange.ask(Question("DELETE", CONVERSATIONS_PATH, query))

    async def context(
        self, conversation_id: str, *, identity: str | None, text: str, item_id: str | None
    ) -> Sequence[str]:
        """Return what the agent is to know for its answer to this `text`; possibly nothing.

        `identity` said it, and `item_id` is the message's id, as far as these are known. Waits for `context_budget`.
        """
        asked = ContextAsked(
            conversation_id=conversation_id, tenant=self._tenant, identity=identity, text=text, item_id=item_id
        )
        question = Question("POST", CONTEXT_PATH, body=_written(asked), most_bytes=_CONTEXT_BYTES, is_urgent=True)
        async with self._within(self._settings.context_budget):
            body = await self._exchange.ask(question)
            return (await self._read(Context, body)).context

    async def transcribed(
        self, conversation_id: str, *, life: str, text: str, identity: str | None, language: str | None, at: float
    ) -> None:
        """Tell the back end what a participant is heard to say, before that is final. Waits for `timeout`.

        `at` is when it was heard, in seconds since the epoch.
        """
        heard = moment(datetime.fromtimestamp(at, UTC))
        told = Transcription(
            type="transcription.interim", at=heard, conversation_id=conversation_id, life=life, call_id=None,
            tenant=self._tenant, seq=None, item_id=None, text=text, identity=identity, language=language, final=False,
        )  # fmt: skip
        async with self._within(self._settings.timeout):
            await self._exchange.ask(Question("POST", _TRANSCRIPTIONS_PATH, body=_written(told), is_urgent=True))

    async def _newest(self, conversation_id: str, limit: int) -> bytes:
        query = {**self._whose(conversation_id), "limit": str(limit)}
        return await self._exchange.ask(Question("GET", MESSAGES_PATH, query, most_bytes=_MESSAGES_BYTES))

    def _whose(self, conversation_id: str) -> dict[str, str]:
        """Return what a query names a conversation by: its id is unique in its tenant only."""
        return {"conversation_id": conversation_id, "tenant": self._tenant}

    @asynccontextmanager
    async def _within(self, patience: timedelta) -> AsyncIterator[None]:
        seconds = patience.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            message = f"the back end at {self._settings.shown}: no whole answer within {seconds:g} s"
            raise BackendUnavailableError(message) from None

    async def _read(self, model: type[_Answer], body: bytes) -> _Answer:
        """Read an answer. Raises `BackendUnavailableError` if it does not fit, without a word of what it says."""
        try:
            if len(body) <= _BYTES_AT_ONCE:
                return model.model_validate_json(body)
            return await asyncio.to_thread(model.model_validate_json, body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join("*" if isinstance(part, int) else part for part in first["loc"])
            what = f"{where or 'the whole of it'}: {first['type']}"
            raise self._unfit(what) from None

    def _unfit(self, what: str) -> BackendUnavailableError:
        message = f"the back end at {self._settings.shown}: answered with what does not fit its document ({what})"
        return BackendUnavailableError(message)


def _written(told: WireModel) -> bytes:
    return json_text(told.model_dump()).encode()
