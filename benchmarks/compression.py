"""Measure what the compression of stored snapshots costs and saves, on a Redis server of its own.

    python -m benchmarks.compression

Each row compares the same state stored as it is (plain) and as `stored_snapshot` has it, measured in turn.
"""

import asyncio
import itertools
import multiprocessing
import random
import re
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

from conversation_actors.activation.recovery import rebuild
from conversation_actors.codec import encode_snapshot, stored_snapshot
from conversation_actors.items import Message
from conversation_actors.settings import Durability
from conversation_actors.state import ConversationState, Limits, Window
from conversation_actors.store import RedisStore
from tests.support.servers import Server, newest

CASES = {"200 items of 250 bytes": (200, 250), "200 items of 5 KiB (1 MiB)": (200, 5230)}
ROUNDS = 60
DAY = timedelta(days=1)
HEADER = 130
"""Bytes of a message beside its words, about."""
SHORT = 20
FORMS: dict[str, Callable[[ConversationState], bytes]] = {"plain": encode_snapshot, "compressed": stored_snapshot}


def conversation(items: int, size: int) -> ConversationState:
    """Return a conversation in the words of this project's own documents."""
    dice = random.Random(1)  # noqa: S311  # the same words each time
    text = " ".join(path.read_text() for path in sorted(Path("docs").rglob("*.md")))
    phrases = [phrase for phrase in re.split(r"[.:|\n]", text) if len(phrase) > SHORT]
    state = ConversationState(seq=items)

    def words() -> str:
        picked = ""
        while len(picked) < size - HEADER:
            picked += f"{dice.choice(phrases)}. {dice.randrange(10_000)} "
        return picked[: size - HEADER]

    said = (
        Message(id=f"item_{dice.getrandbits(48):012x}", role="user", content=words(), created_at=1.7e9 + dice.random())
        for _ in range(items)
    )
    state.window = Window([message.to_stored() for message in said], ())
    return state


def peak_kib(shape: tuple[int, int], form: str) -> int:
    """Return the KiB that a process of its own takes at the peak of its first encoding, beyond what it had."""
    state = conversation(*shape)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    FORMS[form](state)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    return int(re.findall(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def cpu_ms(form: str, state: ConversationState) -> float:
    """Return the milliseconds of processor time that one encoding takes."""
    began = time.thread_time()
    FORMS[form](state)
    return (time.thread_time() - began) * 1000


async def save(store: RedisStore, name: str, state: ConversationState, data: bytes) -> float:
    """Store a snapshot under an id; return the milliseconds that it took."""
    recovered = await store.activate(name, owner=uuid.uuid4().hex, create=True, ttl=DAY)
    began = time.perf_counter()
    await store.save_snapshot(recovered.claim, seq=state.seq, snapshot=data, ttl=DAY, participants=(), restore=True)
    return (time.perf_counter() - began) * 1000


async def recover(store: RedisStore, name: str) -> float:
    """Take the next epoch and rebuild the state; return the milliseconds that it took."""
    began = time.perf_counter()
    rebuild(await store.activate(name, owner=uuid.uuid4().hex, create=False, ttl=DAY), Limits())
    return (time.perf_counter() - began) * 1000


async def measure(server: Server) -> None:
    """Print one line for each case and form."""
    store = RedisStore(server.url, durability=(Durability.REDIS, 0), timeout=timedelta(seconds=10))
    print(
        f"{'':28}{'form':12}{'KiB':>8}{'Redis KiB':>11}{'save ms':>9}{'CPU ms':>8}{'peak KiB':>10}{'recovery ms':>13}"
    )
    for number, (title, shape) in enumerate(CASES.items()):
        state = conversation(*shape)
        saves: dict[str, list[float]] = {form: [] for form in FORMS}
        costs: dict[str, list[float]] = {form: [] for form in FORMS}
        recoveries: dict[str, list[float]] = {form: [] for form in FORMS}
        for _, (form, encode) in itertools.product(range(ROUNDS), FORMS.items()):
            costs[form].append(cpu_ms(form, state))
            saves[form].append(await save(store, f"{form}-{number}", state, encode(state)))
            recoveries[form].append(await recover(store, f"{form}-{number}"))
        for form, encode in FORMS.items():
            with server.client() as client:
                used = client.memory_usage(f"conv:default:{{{form}-{number}}}:snapshot")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                peak = process.submit(peak_kib, shape, form).result()
            middle = [statistics.median(times[form]) for times in (saves, costs, recoveries)]
            print(
                f"{title:28}{form:12}{len(encode(state)) / 1024:8.1f}{used / 1024:11.1f}{middle[0]:9.2f}"
                f"{middle[1]:8.2f}{peak:10}{middle[2]:13.2f}"
            )
    await store.aclose()


def main() -> None:
    """Start a server, and measure on it."""
    binary = newest()
    if binary is None:
        message = "no Redis or Valkey server was found"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory() as directory, Server(binary, Path(directory)) as server:
        asyncio.run(measure(server))


if __name__ == "__main__":
    main()
