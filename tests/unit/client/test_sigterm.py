"""SIGTERM in a program that has recorded something: what it does about it, and whose handlers it leaves alone."""

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from conversation_actors.client.sigterm import flushed_at_sigterm

pytestmark = pytest.mark.processes

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from conversation_actors.client.sigterm import flushed_at_sigterm

class Outbox:
    def __init__(self, name, seconds, held=1):
        self.name, self.seconds, self.held = name, seconds, held
    def __len__(self):
        return self.held
    async def flush(self):
        print("sending", self.name, flush=True)
        await asyncio.sleep(self.seconds)
        self.held = 0
        print("sent", self.name, flush=True)

def term():
    os.kill(os.getpid(), signal.SIGTERM)
"""


def ran(body: str, *, handler: str = "") -> subprocess.CompletedProcess[str]:
    """Run the body as the main coroutine of a program; its last line is never reached unless SIGTERM ends nothing."""
    program = (
        f"{PROGRAM}{textwrap.dedent(handler)}\nasync def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    )
    program += '    print("went on", flush=True)\n\nasyncio.run(main())\n'
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_what_is_held_is_sent_and_the_signal_ends_the_process() -> None:
    """Of every outbox that holds something, and of no other; whoever has sent the signal sees its work done."""
    ended = ran("""
        outboxes = [Outbox("a", 0.05), Outbox("b", 0.3), Outbox("c", 0, held=0)]
        for outbox in outboxes:
            flushed_at_sigterm(outbox, seconds=10)
        term()
        await asyncio.sleep(30)
    """)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout.splitlines() == ["sending a", "sending b", "sent a", "sent b"]
    assert ended.stderr == ""


def test_nothing_held_ends_at_once() -> None:
    """As without a conversation."""
    ended = ran("""
        outbox = Outbox("a", 0, held=0)
        flushed_at_sigterm(outbox, seconds=10)
        term()
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(
    "busy",
    ["await asyncio.sleep(30)", "time.sleep(30)", "threading.Thread(target=term).start(); await asyncio.sleep(30)"],
    ids=["too slow", "a loop that is busy", "told twice"],
)
def test_the_end_comes_whatever_happens(busy: str) -> None:
    """After the seconds that it was given, at the second signal, and where the event loop never comes to it."""
    ended = ran(f"""
        outbox = Outbox("a", 60)
        flushed_at_sigterm(outbox, seconds=0.5)
        term()
        {busy}
    """)
    assert ended.returncode == -signal.SIGTERM
    assert "sent a" not in ended.stdout
    assert "went on" not in ended.stdout


def test_what_was_not_sent_is_told() -> None:
    """In one line, with how much it was and why."""
    ended = ran("""
        outbox = Outbox("a", 60, held=3)
        flushed_at_sigterm(outbox, seconds=0.2)
        term()
        await asyncio.sleep(30)
    """)
    assert ended.stderr == "ended by SIGTERM with unacknowledged commands: 3 (no answer in 0.2 s)\n"


@pytest.mark.parametrize(
    "handler",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))",
    ],
)
def test_the_programs_own_handler_is_left_alone(handler: str) -> None:
    """Whether it ignores the signal or does something."""
    ended = ran(
        """
        outbox = Outbox("a", 0)
        assert flushed_at_sigterm(outbox, seconds=10) is None
        term()
        await asyncio.sleep(0.1)
        """,
        handler=handler,
    )
    assert ended.returncode == 0
    assert "sending" not in ended.stdout
    assert ended.stdout.endswith("went on\n")


class Held:
    """Something that holds something."""

    def __len__(self) -> int:
        """One."""
        return 1

    async def flush(self) -> None:
        """Nothing to do."""


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    """SIGTERM is the system's before and after."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def handler_now() -> Any:
    """What SIGTERM does now."""
    return signal.getsignal(signal.SIGTERM)


async def test_the_last_one_that_closes_gives_the_signal_back() -> None:
    """Nothing of ours stays in a program that has closed its conversations."""
    first, second = Held(), Held()
    handler, same = flushed_at_sigterm(first, seconds=1), flushed_at_sigterm(second, seconds=1)
    assert handler is not None
    assert same is handler
    handler.remove(first)
    assert handler_now() is handler
    handler.remove(second)
    assert handler_now() is signal.SIG_DFL


async def test_a_handler_that_came_later_stays() -> None:
    """Whoever sets one after us has the word."""
    one = Held()
    handler = flushed_at_sigterm(one, seconds=1)
    assert handler is not None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler.remove(one)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


async def test_nobody_is_kept_alive() -> None:
    """A handle that was never closed may go."""
    registered: Any = flushed_at_sigterm(Held(), seconds=1)
    gc.collect()
    assert list(registered._registered) == []


async def test_a_thread_chooses_no_handler() -> None:
    """Python lets only the main thread."""
    told = []

    def in_a_thread() -> None:
        async def register() -> None:
            told.append(flushed_at_sigterm(Held(), seconds=1))

        asyncio.run(register())

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert told == [None]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_forked_child_ends_at_once() -> None:
    """It has a copy of what its parent had recorded, which is its parent's to send."""
    ended = ran("""
        outbox = Outbox("a", 0)
        flushed_at_sigterm(outbox, seconds=20)
        ready, begun = os.pipe()
        child = os.fork()
        if not child:
            os.write(begun, b".")
            time.sleep(60)
            os._exit(1)
        await asyncio.to_thread(os.read, ready, 1)  # what comes before, Python itself forgets in a new child
        os.kill(child, signal.SIGTERM)
        began = time.monotonic()
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        print(os.waitstatus_to_exitcode(status), "late" if time.monotonic() - began > 10 else "at once", flush=True)
    """)
    assert ended.stdout.splitlines() == ["-15 at once", "went on"]


@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, lambda *_: os._exit(3))"])
def test_a_handler_that_is_set_while_ray_is_joined_stays(handler: str) -> None:
    """A program may set one as soon as it has entered its client, which does not wait for Ray.

    Joining gives back the handler that was found when it began: not where the program has chosen another one since.
    """
    ended = ran(f"""
        from conversation_actors.runtime.signals import sigterm_kept
        begun, set_by_us, ended = threading.Event(), threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        def join():
            with sigterm_kept():
                begun.set()
                set_by_us.wait(10)
            loop.call_soon_threadsafe(ended.set)
        threading.Thread(target=join, daemon=True).start()
        await asyncio.to_thread(begun.wait, 10)
        {handler or "loop.add_signal_handler(signal.SIGTERM, os._exit, 3)"}
        set_by_us.set()
        await ended.wait()
        term()
        await asyncio.sleep(30)
    """)
    assert (ended.returncode, ended.stderr) == (3, "")
