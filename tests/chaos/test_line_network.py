"""A line between two hosts whose network fails: by a firewall, in one direction, by route. Calls go on beside it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from conversation_actors.client import ConversationHandle
from conversation_actors.line.port import DirectPort
from tests.support.both_ports import LINE_QUICK, LineCluster
from tests.support.fakes import PATIENCE, FaultyStore, brief, until
from tests.support.netns import SecondHost, namespaces_missing
from tests.support.observation import texts, user

pytestmark = [pytest.mark.chaos]

FAILURES: dict[str, Callable[[SecondHost], None]] = {
    "what the client sends is lost": SecondHost.mute,
    "what the owner sends is lost": SecondHost.deafen,
    "all is lost": SecondHost.cut,
    "there is no route": SecondHost.misroute,
}


@pytest.fixture
def second_host() -> Iterator[SecondHost]:
    """Make a second host, at the end of a cable."""
    if (missing := namespaces_missing()) is not None:
        pytest.skip(missing)
    with SecondHost() as host:
        yield host


@pytest.fixture
async def cluster(second_host: SecondHost) -> AsyncIterator[LineCluster]:
    """Make owners that listen on this host, for clients on the second one: this thread is there from now on."""
    with tempfile.TemporaryDirectory(prefix="line-") as directory:
        async with LineCluster(
            FaultyStore(),
            brief(),
            Path(directory),
            is_relayed=False,
            node_address=second_host.address,
            timing=LINE_QUICK,
        ) as made:
            await made.started()
            with second_host.entered():
                yield made
                second_host.mend()


async def _appended(cluster: LineCluster, handle: ConversationHandle, port: DirectPort, text: str) -> list[str]:
    """Append until one append goes by the line alone: an answer may be late, and then the owner is asked beside it too.

    Return the texts.
    """
    said: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            await until(lambda: port.way == "tcp")
            before = cluster.asked_by_line["execute"], cluster.calls["execute"]
            said.append(f"{text} {len(said)}")
            await handle.append(user(said[-1]))
            if (cluster.asked_by_line["execute"] - 1, cluster.calls["execute"]) == before:
                return said


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_line_that_the_network_fails(
    cluster: LineCluster, second_host: SecondHost, failure: Callable[[SecondHost], None]
) -> None:
    """It is used, fails under a handle, and is used again: each append happens once; so it is where it never was up."""
    handle = await cluster.connected("tcp")
    port = cluster.ports[-1]
    said = await _appended(cluster, handle, port, "by the line")
    before = cluster.calls["execute"]
    failure(second_host)
    await handle.append(user("while it fails"))
    assert cluster.calls["execute"] > before
    late = await cluster.handle()  # firewalled from its beginning
    await late.append(user("without a line"))
    assert cluster.ports[-1].way is None
    second_host.mend()
    said += ["while it fails", "without a line"]
    said += await _appended(cluster, handle, port, "by the line again")
    said += await _appended(cluster, late, cluster.ports[-1], "by a line at last")
    assert texts((await handle.snapshot(fresh=True)).items) == said
