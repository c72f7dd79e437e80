"""One client of a history: random operations on all conversations at once, each written down as it begins and ends.

usage: python -m tests.chaos.history.client DIRECTORY NAME SEED CONVERSATION …

Works until DIRECTORY/stop exists; then what it has begun is repeated for a while until it is acknowledged.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    ConversationNotFoundError,
    Lease,
    Message,
    Receipt,
    RefusedError,
    RetryableError,
)
from tests.chaos.history.observing import follow, look, opened
from tests.chaos.history.record import Recorder

LEASE = "agent"
LEASE_SECONDS = 1.0
LAST_SECONDS = 20.0
"""How long what was begun is repeated after the stop."""
TICK_SECONDS = 0.2
_RETRY_SECONDS = 0.05
_LONGEST_THOUGHT = 0.06
"""Seconds between two operations, at most: some hundred in a second from all clients, on two cores."""
_STREAM_SECONDS = 0.01
"""Between two texts of a stream, at most."""
OPERATIONS = {
    "append": 25, "record": 12, "stream": 8, "compare_and_set": 15, "acquire": 8, "guarded": 14, "release": 2,
    "repeat": 6, "reuse": 2, "fresh": 8, "cached": 3, "reopen": 1,
    "ask_for_the_way": 3,
}  # fmt: skip
"""What a client does, and how often each is drawn; the environment's `OPERATIONS_VARIABLE` may have others."""
OPERATIONS_VARIABLE = "HISTORY_OPERATIONS"

Call = Callable[[], Awaitable[Any]]


class Player:
    """Plays one client's part in one conversation: one operation after the other."""

    def __init__(self, client: ConversationClient, handle: ConversationHandle, recorder: Recorder, seed: str) -> None:
        """`seed` decides what is done, not when."""
        self._client, self._handle, self._recorder = client, handle, recorder
        self._dice = random.Random(seed)
        self._name = f"{recorder.process}/{handle.id}"
        self._count = 0
        self._lease: Lease | None = None
        self._sent: deque[tuple[str, str]] = deque(maxlen=20)
        """Acknowledged appends that may be repeated: request id and text."""

    async def play(self, stop: Callable[[], float]) -> None:
        """Go on until `stop` tells a deadline for what was begun."""
        drawn = json.loads(os.environ.get(OPERATIONS_VARIABLE, "{}")) or OPERATIONS
        operations, weights = list(drawn), list(drawn.values())
        while not stop():
            await getattr(self, f"_{self._dice.choices(operations, weights)[0]}")(stop)
            await asyncio.sleep(self._dice.uniform(0, _LONGEST_THOUGHT))
        await self._flush(stop)

    def _next(self, kind: str) -> str:
        self._count += 1
        return f"{kind}:{self._name}:{self._count:05}"

    async def _append(self, stop: Callable[[], float], lease: Lease | None = None) -> None:
        text = self._next("a")
        facts: dict[str, Any] = {"request": f"r{text}", "texts": [text]}
        if lease is not None:
            facts["lease"] = [lease.name, lease.holder, lease.token]
        if await self._until_settled("append", facts, lambda: self._write(text, lease), stop) and lease is None:
            self._sent.append((f"r{text}", text))

    def _write(self, text: str, lease: Lease | None = None, *, request_id: str = "") -> Awaitable[Receipt]:
        message = Message(role="user", content=text)
        return self._handle.append(message, request_id=request_id or f"r{text}", lease=lease)

    async def _guarded(self, stop: Callable[[], float]) -> None:
        await (self._append(stop, self._lease) if self._lease else self._acquire(stop))

    async def _repeat(self, stop: Callable[[], float]) -> None:
        """Send an append that was acknowledged once more: nothing happens, and the receipt is the first one."""
        if self._sent:
            request, text = self._dice.choice(self._sent)
            facts = {"request": request, "texts": [text]}
            await self._until_settled("repeat", facts, lambda: self._write(text), stop)

    async def _reuse(self, stop: Callable[[], float]) -> None:
        """Append something else under the request id of an acknowledged append: refused, while that is remembered."""
        if self._sent:
            request, _ = self._dice.choice(self._sent)
            text = self._next("x")
            facts = {"request": request, "texts": [text]}
            await self._until_settled("reuse", facts, lambda: self._write(text, request_id=request), stop)

    async def _record(self, stop: Callable[[], float]) -> None:
        said = [self._next("n") for _ in range(self._dice.randint(1, 12))]
        number = self._recorder.invoke("record", self._handle.id, texts=said)
        try:
            for text in said:
                self._handle.record(Message(role="user", content=text))
        except RetryableError:
            self._recorder.complete(number, "unknown")
            return
        flushed = await self._flush(stop)
        self._recorder.complete(number, "ok" if flushed else "unknown")

    async def _stream(self, stop: Callable[[], float]) -> None:
        """Record one text after the other while those before are on their way: several batches, one behind another."""
        said = [self._next("n") for _ in range(self._dice.randint(5, 15))]
        number = self._recorder.invoke("record", self._handle.id, texts=said)
        try:
            for text in said:
                self._handle.record(Message(role="user", content=text))
                await asyncio.sleep(self._dice.uniform(0, _STREAM_SECONDS))
        except RetryableError:
            self._recorder.complete(number, "unknown")
            return
        flushed = await self._flush(stop)
        self._recorder.complete(number, "ok" if flushed else "unknown")

    async def _flush(self, stop: Callable[[], float]) -> bool:
        while not 0 < stop() < time.monotonic():
            try:
                await self._handle.flush()
            except RetryableError:
                await asyncio.sleep(_RETRY_SECONDS)
            except RefusedError as error:
                await self._after_refusal(error)
                return False
            else:
                return True
        return False

    async def _compare_and_set(self, stop: Callable[[], float]) -> None:
        seen, attributes = self._handle.seq, self._handle.attributes
        value = attributes.get("counter", 0) + 1
        request = f"r{self._next('c')}"

        def call() -> Awaitable[Receipt]:
            return self._handle.set_attributes({"counter": value}, expected_seq=seen, request_id=request)

        await self._until_settled("compare_and_set", {"request": request, "counter": value}, call, stop)

    async def _acquire(self, stop: Callable[[], float]) -> None:
        request, holder = f"r{self._next('l')}", self._recorder.process
        duration = timedelta(seconds=LEASE_SECONDS)

        def call() -> Awaitable[Lease]:
            return self._handle.acquire_lease(LEASE, holder=holder, duration=duration, request_id=request)

        lease = await self._until_settled("acquire", {"request": request, "holder": holder}, call, stop)
        self._lease = lease or self._lease

    async def _release(self, stop: Callable[[], float]) -> None:
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        request = f"r{self._next('f')}"

        async def call() -> None:
            await self._handle.release_lease(lease, request_id=request)

        await self._until_settled("release", {"request": request}, call, stop)

    async def _fresh(self, _: Callable[[], float]) -> None:
        await self._quietly(lambda: look(self._handle, self._recorder, fresh=True))

    async def _cached(self, _: Callable[[], float]) -> None:
        await self._quietly(lambda: look(self._handle, self._recorder, fresh=False))

    async def _ask_for_the_way(self, _: Callable[[], float]) -> None:
        async def ask() -> None:
            info = await self._handle.info()
            self._recorder.write("way", conversation=self._handle.id, way=info.reached_by)

        await self._quietly(ask)

    async def _reopen(self, stop: Callable[[], float]) -> None:
        if await self._flush(stop):
            await self._handle.aclose()
            self._handle = await opened(self._client, self._handle.id)

    async def _quietly(self, call: Call) -> None:
        """Try once what changes nothing."""
        try:
            await call()
        except RetryableError:
            await asyncio.sleep(_RETRY_SECONDS)
        except RefusedError as error:
            await self._after_refusal(error)

    async def _until_settled(
        self, operation: str, facts: dict[str, Any], call: Call, stop: Callable[[], float]
    ) -> Any | None:
        """Repeat a call under its request id until it is acknowledged or refused; what it returned."""
        number = self._recorder.invoke(operation, self._handle.id, **facts)
        while not 0 < stop() < time.monotonic():
            try:
                answer = await call()
            except RetryableError:
                await asyncio.sleep(_RETRY_SECONDS)
            except RefusedError as error:
                self._recorder.complete(number, "refused", error=type(error).__name__)
                await self._after_refusal(error)
                return None
            else:
                receipt = [answer.seq, answer.epoch] if isinstance(answer, Receipt) else None
                self._recorder.complete(number, "ok", receipt=receipt)
                return answer
        self._recorder.complete(number, "unknown")
        return None

    async def _after_refusal(self, error: RefusedError) -> None:
        if isinstance(error, ConversationNotFoundError):
            self._handle = await opened(self._client, self._handle.id)


async def _tick(recorder: Recorder) -> None:
    while True:
        recorder.write("tick")
        await asyncio.sleep(TICK_SECONDS)


class _Stop:
    """Tells until when what was begun may be repeated; 0 while all goes on."""

    def __init__(self, file: Path) -> None:
        self._file, self._deadline = file, 0.0

    def __call__(self) -> float:
        if not self._deadline and self._file.exists():
            self._deadline = time.monotonic() + LAST_SECONDS
        return self._deadline


async def main(directory: Path, name: str, seed: str, conversations: list[str]) -> None:
    """Play all parts until the stop. An error that nobody expects is written down and ends the process."""
    recorder = Recorder(directory, name)
    ticking = asyncio.create_task(_tick(recorder))
    try:
        async with ConversationClient() as client:
            handles = [await opened(client, conversation) for conversation in conversations]
            watching = [asyncio.create_task(follow(client, handle.id, recorder)) for handle in handles]
            players = [Player(client, handle, recorder, f"{seed}/{handle.id}") for handle in handles]
            stop = _Stop(directory / "stop")
            await _first_error([asyncio.create_task(player.play(stop)) for player in players], watching)
    except BaseException as error:
        recorder.write("error", error=repr(error))
        raise
    finally:
        ticking.cancel()


async def _first_error(playing: list[asyncio.Task[None]], watching: list[asyncio.Task[None]]) -> None:
    """Return when all have played; raise what ends any task before."""
    left = {*playing}
    while left:
        done, _ = await asyncio.wait({*left, *watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        left -= done
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
