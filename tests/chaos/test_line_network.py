"""A line between two hosts whose network fails: by a firewall, in one direction, by route. Calls go on beside it."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.both_ports import LINE_QUICK, LineCluster
from tests.support.fakes import FaultyStore, brief, until
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


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_line_that_the_network_fails(
    cluster: LineCluster, second_host: SecondHost, failure: Callable[[SecondHost], None]
) -> None:
    """It is used, fails under a handle, and is used again: each append happens once; so it is where it never was up."""
    handle = await cluster.connected("tcp")
    port = cluster.ports[-1]
    before = cluster.calls["execute"]
    await handle.append(user("by the line"))
    assert cluster.calls["execute"] == before
    failure(second_host)
    await handle.append(user("while it fails"))
    assert cluster.calls["execute"] > before
    late = await cluster.handle()  # firewalled from its beginning
    await late.append(user("without a line"))
    assert cluster.ports[-1].way is None
    second_host.mend()
    await until(lambda: port.way == "tcp" and cluster.ports[-1].way == "tcp")
    asked = cluster.asked_by_line["execute"]
    await late.append(user("by a line again"))
    assert cluster.asked_by_line["execute"] > asked
    said = ["by the line", "while it fails", "without a line", "by a line again"]
    assert texts((await handle.snapshot(fresh=True)).items) == said
