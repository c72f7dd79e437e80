"""What a stranger may try who finds the port of an owner, and what each attempt costs the owner.

usage: python -m tests.chaos.strangers [--attempts 200]

Prints a table. The owner is a process of its own; beside each kind of attempt, one client appends over its line.
"""

import argparse
import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from conversation_actors.line.connecting import connect
from conversation_actors.line.connection import LineConnection
from conversation_actors.line.proof import NONCE_BYTES, client_proof, new_nonce
from conversation_actors.protocol import Execute, Executed, Request
from conversation_actors.state import AppendItems
from tests.support.line_process import LineProcess
from tests.support.observation import user

_PATIENCE = 10.0
"""Seconds after which an attempt that has not been ended counts as one that never is."""
_SLOW_SECONDS = 0.1
_ENDLESS = b"\xff\xff\xff\xff"
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    told: bytes
    seconds: float
    """Until the owner closed the connection."""


class Stranger:
    """One connection by TCP; it hears the nonce first, if it is let in."""

    def __init__(self, owner: LineProcess, recording: bytes) -> None:
        """`recording` is what a client once sent as its proof."""
        self._owner, self.recording = owner, recording

    async def attempt(self, act: "Act") -> Outcome:
        """Connect, do as `act` does, and wait to be turned away."""
        tcp = self._owner.line.tcp
        assert tcp is not None
        reader, writer = await asyncio.open_connection(*tcp)
        started, told = time.monotonic(), b""
        try:
            async with asyncio.timeout(_PATIENCE):
                with suppress(ConnectionError):
                    told = await reader.read(NONCE_BYTES)
                    await act(self, told, writer)
                    while data := await reader.read(1 << 16):
                        told += data
        finally:
            seconds = time.monotonic() - started
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return Outcome(told, seconds)

    @property
    def secret(self) -> bytes:
        """The secret, for what only a client of the cluster could try."""
        return self._owner.line.secret


Act = Callable[[Stranger, bytes, asyncio.StreamWriter], Awaitable[None]]


async def say_nothing(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Wait."""


async def leave(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Close at once."""
    writer.close()


async def prove_wrongly(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Send a proof with another secret."""
    ours = new_nonce()
    writer.write(ours + client_proof(secrets.token_bytes(32), nonce, ours))


async def replay(stranger: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Send what a client once sent as its proof."""
    writer.write(stranger.recording)


async def echo(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Send the owner's nonce back, twice."""
    writer.write(nonce + nonce)


async def claim_much(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Announce a frame of 4 GiB, and send what there is room for."""
    writer.write(_ENDLESS + secrets.token_bytes(1 << 20))
    await writer.drain()


async def drip(_: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(_SLOW_SECONDS)


async def claim_much_as_a_client(stranger: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
    """Prove it, and then announce a frame of 4 GiB."""
    ours = new_nonce()
    writer.write(ours + client_proof(stranger.secret, nonce, ours) + _ENDLESS + secrets.token_bytes(1 << 20))
    await writer.drain()


STRANGERS: dict[str, Act] = {
    "leaves at once": leave,
    "says nothing": say_nothing,
    "a wrong proof": prove_wrongly,
    "a replayed proof": replay,
    "the nonce sent back": echo,
    "a length of 4 GiB for a proof": claim_much,
    "a byte every 0.1 s": drip,
}
CLIENTS: dict[str, Act] = {"a client: a length of 4 GiB": claim_much_as_a_client}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of attempt cost the owner, and who is served meanwhile."""

    name: str
    outcomes: list[Outcome]
    cpu_seconds: float
    memory: int
    descriptors: int
    waits: list[float]
    """Seconds that appends of a client took meanwhile."""

    @property
    def row(self) -> str:
        """A row of the table."""
        held = statistics.median(outcome.seconds for outcome in self.outcomes)
        told = max(len(outcome.told) for outcome in self.outcomes)
        each = self.cpu_seconds / len(self.outcomes) * 1000
        grown = self.memory / 1024
        return (
            f"| {self.name} | {len(self.outcomes)} | {told} | {held:.2f} s | {each:.2f} ms | {grown:.0f} KiB"
            f" | {self.descriptors} | {statistics.median(self.waits) * 1000:.1f} / {max(self.waits) * 1000:.0f} ms |"
        )


HEAD = """\
| a stranger … | attempts | bytes told | ended after | CPU each | memory | descriptors left | appends, p50 / worst |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


class Siege:
    """Makes attempts on one owner, while a client of it goes on."""

    def __init__(self, owner: LineProcess) -> None:
        """Nothing happens yet."""
        self._owner = owner

    async def costs(self, acts: dict[str, Act], attempts: int, *, twice: bool = False) -> list[Cost]:
        """Make so many attempts of each kind, some at once.

        If `twice`, what they cost is measured first, and then, with as many, how a client is served meanwhile;
        otherwise the client's appends count among the cost.
        """
        recording = await self._recording()
        line = await connect(self._owner.line)
        try:
            costs = []
            for name, act in acts.items():
                alone = await self._cost(name, act, attempts, recording, line, serves=False) if twice else None
                cost = await self._cost(name, act, attempts, recording, line, serves=True)
                costs.append(replace(alone, waits=cost.waits) if alone is not None else cost)
            return costs
        finally:
            line.close()
            await line.wait_closed()

    async def _cost(
        self, name: str, act: Act, attempts: int, recording: bytes, line: LineConnection, *, serves: bool
    ) -> Cost:
        room = asyncio.Semaphore(_AT_ONCE)

        async def one() -> Outcome:
            async with room:
                return await Stranger(self._owner, recording).attempt(act)

        await append(line)
        descriptors, memory, cpu = self._owner.descriptors, self._owner.memory, self._owner.cpu_seconds
        attempting = asyncio.gather(*(one() for _ in range(attempts)))
        waits: list[float] = []
        while serves and not attempting.done():
            waits.append(await append(line))
            await asyncio.sleep(0.02)
        outcomes = await attempting
        spent = self._owner.cpu_seconds - cpu
        await append(line)
        return Cost(name, outcomes, spent, self._owner.memory - memory, self._owner.descriptors - descriptors, waits)

    async def _recording(self) -> bytes:
        """Return the proof that a client sent when it connected, as somebody on its way would have it."""
        recorded: list[bytes] = []

        async def prove(stranger: Stranger, nonce: bytes, writer: asyncio.StreamWriter) -> None:
            ours = new_nonce()
            recorded.append(ours + client_proof(stranger.secret, nonce, ours))
            writer.write(recorded[0])
            writer.write_eof()

        await Stranger(self._owner, b"").attempt(prove)
        return recorded[0]


async def append(line: LineConnection) -> float:
    """Append one message over the line; return the seconds that it took."""
    started = time.monotonic()
    request = Request(secrets.token_hex(8), AppendItems((user("hello").to_stored(),)))
    answer = await line.execute(Execute([request], "watcher", 0))
    assert isinstance(answer, Executed)
    assert len(answer.replies) == 1
    return time.monotonic() - started


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.strangers", description=__doc__)
    parser.add_argument("--attempts", type=int, default=200, help="of each kind (200)")
    asked = parser.parse_args()
    sys.stdout.write(f"{HEAD}\n")
    with LineProcess() as owner:
        for cost in asyncio.run(Siege(owner).costs({**STRANGERS, **CLIENTS}, asked.attempts, twice=True)):
            sys.stdout.write(f"{cost.row}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
