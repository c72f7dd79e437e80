"""The programs in README.md and docs run as they stand, against real Ray and Redis, also behind a tool call."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from conversation_actors import (
    AgentHandoff,
    ConversationClient,
    ConversationNotFoundError,
    FunctionCall,
    FunctionCallOutput,
    Settings,
)
from tests.support.documents import Block, blocks
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server

PROGRAMS = list({block.code: block for block in reversed(blocks()) if block.is_program}.values())[::-1]
"""Each once, although README.md and docs/index.md both begin with the same one."""
CONVERSATION = "support-42"
"""The id that the documents use."""


@pytest.mark.parametrize("is_client", [False, True], ids=["in the cluster", "by ray://"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
async def test_a_program_of_the_documents_runs(
    program: Block,
    cluster: RayCluster,
    redis: Server,
    tmp_path: Path,
    *,
    is_client: bool,
) -> None:
    """It prints what was said, and what items of other kinds say, and nothing on standard error."""
    async with ConversationClient(Settings(redis_url=redis.url)) as client:
        with suppress(ConversationNotFoundError):
            await client.delete(CONVERSATION)
        conversation = await client.open(CONVERSATION)
        await conversation.append(
            FunctionCall(call_id="c1", name="find_order", arguments='{"number": 4711}'),
            FunctionCallOutput(call_id="c1", output="on its way"),
            AgentHandoff(old_agent_id="clerk", new_agent_id="cashier"),
        )
    through_client = f"ray://127.0.0.1:{cluster.nodes[0].option('ray-client-server-port')}"
    address = through_client if is_client else cluster.address
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program.code],
        cwd=tmp_path,
        # on a busy machine Ray's client server takes longer than anybody would wait for the cluster itself
        env=program_environment(
            RAY_ADDRESS=address, CONVERSATION_REDIS_URL=redis.url, CONVERSATION_TIMEOUT_CONNECT="90s"
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    history = ['find_order({"number": 4711})', "on its way", "clerk → cashier", "Where is my order?", "On its way."]
    assert ran.stdout == f"{history} True\n"
