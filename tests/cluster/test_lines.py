"""Owners that are Ray actors, and the lines that they listen for: where, who learns of it, and what is left of them."""

from pathlib import Path

import ray

from conversation_actors import Settings
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import ConversationError
from conversation_actors.line.messages import ReadCall
from conversation_actors.protocol import LineAddress, Opened, View
from conversation_actors.runtime import ActorDirectory, RayPort
from conversation_actors.settings import Direct
from tests.cluster.conftest import Configure
from tests.support.fakes import append
from tests.support.lines import RawLine
from tests.support.processes import sigkill
from tests.support.ray_cluster import RayCluster
from tests.support.waiting import wait_until


async def _opened(settings: Settings, conversation_id: str) -> Opened:
    """Open by Ray's calls alone, once an owner runs that answers."""
    port = RayPort(conversation_id, directory=ActorDirectory(settings), settings=settings)
    await RemoteOwner(port, settings).open(create=True)
    peer = await port.find_or_start()
    opened = await peer.open(create=True)
    assert not isinstance(opened, ConversationError), opened
    assert await peer.line() == opened.line
    return opened


def _listens_to(pid: int, address: LineAddress) -> tuple[bool, bool]:
    """Return whether a process has the sockets of an address open: the Unix socket, and the one for TCP."""
    owned = _sockets(pid)
    here = [row for row in _rows("/proc/net/unix") if row[-1] == address.unix]
    assert address.tcp is not None
    return any(f"socket:[{row[6]}]" in owned for row in here), address.tcp[1] in _tcp_ports(pid)


def _tcp_ports(pid: int) -> set[int]:
    """Return where a process listens for TCP, Ray's own port among it."""
    owned, tables = _sockets(pid), [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [row for table in tables if table.exists() for row in _rows(str(table))]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in owned}


def _sockets(pid: int) -> set[str]:
    """Return the sockets that a process has open, as its descriptors are named."""
    owned = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            owned.add(descriptor.readlink().name)
        except FileNotFoundError:  # closed meanwhile
            continue
    return owned


def _are_sockets(*paths: Path) -> list[bool]:
    return [path.is_socket() for path in paths]


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in Path(table).read_text().splitlines()[1:]]


async def test_an_owner_says_where_it_listens(configure: Configure, conversation_id: str) -> None:
    """It answers there, on both sockets, with what it answers by Ray's call; the address is its node's."""
    opened = await _opened(configure(), conversation_id)
    assert opened.line is not None
    assert opened.line.tcp is not None
    assert opened.line.tcp[0] == ray.util.get_node_ip_address()
    assert _listens_to(opened.info.pid, opened.line) == (True, True)
    for connect in (RawLine.by_unix, RawLine.by_tcp):
        line = await connect(opened.line)
        await line.prove(opened.line.secret)
        executed = await line.execute(1, append("a"))
        line.send(ReadCall(2, False))
        view = await line.answer(2)
        line.close()
        assert executed.owner == opened.view.owner
        assert isinstance(view, View)
        assert view.seq == 1


async def test_nobody_else_learns_the_secret(configure: Configure, conversation_id: str, cluster: RayCluster) -> None:
    """It is in no argument and no variable of the owner's process, and in no log of its node."""
    opened = await _opened(configure(), conversation_id)
    assert opened.line is not None
    kinds = [opened.line.secret, opened.line.secret.hex().encode(), repr(opened.line.secret).encode()]
    (session,) = [a.partition("=")[2] for a in cluster.nodes[0].raylet.cmdline() if a.startswith("--session_dir=")]
    logs = Path(session) / "logs"
    files = [Path(f"/proc/{opened.info.pid}/{name}") for name in ("cmdline", "environ", "comm")]

    for path in [*files, *(path for path in logs.rglob("*") if path.is_file())]:
        content = path.read_bytes()
        assert not any(kind in content for kind in kinds), path
    assert repr(opened.line.secret) not in repr(opened)


async def test_an_owner_that_is_not_to_listen_does_not(configure: Configure, conversation_id: str) -> None:
    """`direct=off`: no socket of either kind beside Ray's own, and no address."""
    opened = await _opened(configure(direct=Direct.OFF), conversation_id)
    listening = await _opened(configure(direct=Direct.AUTO), f"{conversation_id}-listening")

    assert opened.line is None
    assert listening.line is not None
    assert listening.line.tcp is not None
    ray_alone = _tcp_ports(listening.info.pid) - {listening.line.tcp[1]}
    assert len(_tcp_ports(opened.info.pid)) == len(ray_alone)
    assert not [row for row in _rows("/proc/net/unix") if row[-1].rpartition("/")[2].startswith(f"{opened.info.pid}-")]


async def test_killed_owners_leave_no_growing_litter(configure: Configure, conversation_id: str) -> None:
    """An owner that starts later removes the socket of one that was killed."""
    settings = configure()
    opened = await _opened(settings, conversation_id)
    assert opened.line is not None
    left = Path(opened.line.unix or "")
    assert _are_sockets(left) == [True]
    sigkill(opened.info.pid)  # from now on any owner may remove it that has begun to listen on this node

    again = await _opened(settings, conversation_id)

    assert again.line is not None

    async def is_swept() -> bool:
        return _are_sockets(left) == [False]

    await wait_until(is_swept, "the dead owner's socket to go")  # some seconds later: nobody who opens waits for that
    assert _are_sockets(Path(again.line.unix or "")) == [True]
    assert again.line.secret != opened.line.secret
