"""A second host at the end of a cable, for what is measured from another node: near, and behind a relay."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.nodes import clean_environment
from conversation_actors.cli.processes import kill_session
from tests.support.netns import WIRE_ENDS, SecondHost, namespaces_missing

HOLD_MS = 0.5
"""How long the relay holds a packet, each way."""


@contextmanager
def second_host() -> Iterator[tuple[SecondHost | None, str]]:
    """Make a second host. If this machine cannot have one, yield None and a sentence that says why."""
    missing = namespaces_missing()
    if missing is not None:
        yield None, missing
        return
    with SecondHost() as host:
        yield host, ""


@contextmanager
def relayed(host: SecondHost) -> Iterator[None]:
    """Have a relay hold each packet between the two hosts. Connections that there are go on."""
    command = [*host.wire_prefix, sys.executable, "-m", "benchmarks.relay", str(HOLD_MS), *WIRE_ENDS]
    relay = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), start_new_session=True
    )
    assert relay.stdin is not None
    assert relay.stdout is not None
    try:
        host.unbridge()  # before the relay reads: a frame must not arrive twice
        if relay.stdout.readline() != b"carrying\n":
            message = "the relay did not start"
            raise RuntimeError(message)
        yield
    finally:
        relay.stdin.close()
        kill_session(relay.pid)
        relay.wait()
        relay.stdout.close()
        host.bridge()


def without_this_nodes_sockets(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Return a prefix that also hides the Unix sockets of this machine's owners, which another machine would not see.

    Network namespaces share their files.
    """
    sockets = Path(tempfile.gettempdir()).glob("conversation-actors-*")
    hide = "".join(f"mount -t tmpfs none {path}; " for path in sockets)
    return (*prefix, "sh", "-ec", f'{hide}exec "$@"', "sh")
