"""A client's process that is ended by SIGTERM: it is not Ray that answers, and what was recorded is sent."""

import asyncio
import secrets
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from conversation_actors import ConversationClient
from tests.support.processes import paused
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server

pytestmark = pytest.mark.timeout(120)
PROGRAM = Path(__file__).parent / "programs" / "ended.py"
ENDED_BY_IT, AS_IT_LIKES = -int(signal.SIGTERM), 0


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("plainly", ENDED_BY_IT),
        ("gracefully", AS_IT_LIKES),
        ("early", AS_IT_LIKES),
        ("deaf", AS_IT_LIKES),
        ("threaded", ENDED_BY_IT),
    ],
)
async def test_sigterm_is_the_programs_own(
    cluster: RayCluster, redis: Server, client: ConversationClient, how: str, code: int
) -> None:
    """Whatever the program does about it, no native stack is printed; where it does nothing, its outbox is sent first.

    The owner is stopped while the signal comes, so that there is something to send. A conversation in another thread
    than the main one ends with the process, as with any signal.
    """
    conversation = await client.open(f"sigterm-{how}-{secrets.token_hex(4)}")
    owner = (await conversation.info()).pid
    variables = program_environment(RAY_ADDRESS=cluster.address, CONVERSATION_REDIS_URL=redis.url)
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), how, conversation.id, env=variables, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert await program.stdout.readline() == b"opened\n"
    with paused(owner):
        program.stdin.write(b"\n")
        assert await program.stdout.readline() == b"recorded\n"
        program.send_signal(signal.SIGTERM)
        if how == "threaded":
            await program.wait()
    told, errors = await program.communicate(b"\n")

    assert errors.decode() == ""
    assert program.returncode == code
    assert told.decode() == ("left\n" if code == AS_IT_LIKES else "")
    if how != "threaded":
        assert len((await conversation.snapshot(fresh=True)).items) == 100
