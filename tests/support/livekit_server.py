"""A real livekit-server for tests: on free ports, in a temporary directory, ended by its process id."""

import json
import os
import secrets
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from livekit import api as lk
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from tests.support.processes import ServerProcess
from tests.support.servers import HOST, free_port

ROOT = Path(__file__).parents[2]
_BUILT = ROOT / "build" / "bin" / "livekit-server"
_ELSEWHERE = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_PORT_ATTEMPTS = 10


def _elsewhere() -> tuple[str, str, str] | None:
    """Return URL, key and secret of the server that the environment names; None where one of them is missing."""
    url, key, secret = (os.environ.get(name, "") for name in _ELSEWHERE)
    return (url, key, secret) if url and key and secret else None


def find_binary() -> Path | None:
    """Find a server to start: the one the environment names, the one on PATH, or the one that was built here."""
    candidates = (os.environ.get("LIVEKIT_SERVER_BIN"), shutil.which("livekit-server"), _BUILT)
    return next((Path(path) for path in candidates if path and os.access(path, os.X_OK)), None)


def livekit_server_missing(*, local: bool = False) -> str | None:
    """Say in one sentence what to install; None where tests have a server. `local`: only one of their own will do."""
    if find_binary() or (not local and _elsewhere()):
        return None
    return (
        "no LiveKit server: run `make livekit-server` (builds it with Go 1.26 or newer), put livekit-server on PATH, "
        f"name one with LIVEKIT_SERVER_BIN{'' if local else ', or set ' + ', '.join(_ELSEWHERE)}"
    )


class LiveKitServer(ServerProcess):
    """One livekit-server, on loopback.

    Where `LIVEKIT_URL`, `LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET` are all set, it stands for that server and starts
    none. `address` asks for one of the machine's own addresses beside loopback (see `tests.support.netns`), and so
    for a server of the test's own in any case.
    """

    def __init__(self, directory: Path, *, address: str = HOST, interface: str = "lo") -> None:
        """`address` is where media goes; `interface` carries it. Nothing runs before `start`."""
        self.directory = directory
        self.address = address
        self._interfaces = sorted({"lo", interface})
        self.url = ""
        self.api_key = ""
        self.api_secret = ""
        self._ports: tuple[int, int] | None = None

    @property
    def http_url(self) -> str:
        """The URL of the same server for HTTP."""
        return self.url.replace("ws", "http", 1)

    @property
    def env(self) -> dict[str, str]:
        """The variables by which LiveKit's programs find this server."""
        return dict(zip(_ELSEWHERE, (self.url, self.api_key, self.api_secret), strict=True))

    def start(self) -> Self:
        """Start, and wait until it answers. Does nothing while it runs; started again, it has the same URL."""
        if self.is_running:
            return self
        if self.address == HOST and self.process is None and (elsewhere := _elsewhere()):
            self.url, self.api_key, self.api_secret = elsewhere
            return self
        binary = find_binary()
        if binary is None:
            raise RuntimeError(livekit_server_missing(local=True))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.api_key = self.api_key or "devkey"
        self.api_secret = self.api_secret or secrets.token_hex(32)
        for _ in range(_PORT_ATTEMPTS):
            ports = self._ports or (free_port(), free_port())
            self._spawn(binary, *ports)
            if self._comes_up():
                self._ports = ports
                return self
            self.kill()
            if self._ports or "address already in use" not in self.log():
                break
        message = f"{binary} did not start: {self.log()[-2000:]}"
        raise RuntimeError(message)

    def _spawn(self, binary: Path, port: int, udp_port: int) -> None:
        self.url = f"ws://{self.address}:{port}"
        config = {
            "port": port,
            "bind_addresses": sorted({HOST, self.address}),
            "keys": {self.api_key: self.api_secret},
            "rtc": {
                "node_ip": self.address,  # also switches STUN off
                "use_external_ip": False,
                "enable_loopback_candidate": self.address == HOST,
                "udp_port": udp_port,
                "tcp_port": 0,  # otherwise 7881 listens on every interface
                "interfaces": {"includes": self._interfaces},
            },
            "logging": {"level": "info"},
        }
        path = self.directory / "livekit.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        path.chmod(0o600)  # it refuses to read a key file that others may; this one has keys in it
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, "--config", path], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=self.directory,
            )  # fmt: skip

    def _answers(self) -> bool:
        """Tell whether it takes a token made with this server's secret; a stranger on the same port does not."""
        url = f"{self.http_url}/rtc/validate?access_token={self.token('probe', 'probe')}"
        with suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 -- a URL made here
            return bool(answer.status == HTTPStatus.OK)
        return False

    @property
    def log_path(self) -> Path:
        """Where it logs."""
        return self.directory / "livekit.log"

    def log(self) -> str:
        """Return what it logged; nothing for a server elsewhere."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def api(self) -> lk.LiveKitAPI:
        """Return a client of its API: an async context manager, of one event loop."""
        return lk.LiveKitAPI(self.http_url, self.api_key, self.api_secret)

    def token(
        self,
        identity: str,
        room: str,
        *,
        name: str | None = None,
        kind: lk.AccessToken.ParticipantKind | None = None,
        attributes: Mapping[str, str] | None = None,
        metadata: str | None = None,
        dispatch: Iterable[lk.RoomAgentDispatch] = (),
    ) -> str:
        """Return a token to join a room. `dispatch` takes effect only for the one whose join creates the room."""
        grants = lk.VideoGrants(
            room_join=True, room=room, can_update_own_metadata=True, agent=True if kind == "agent" else None
        )
        token = lk.AccessToken(self.api_key, self.api_secret).with_identity(identity).with_grants(grants)
        token.with_name(name or identity).with_metadata(metadata or "").with_attributes(dict(attributes or {}))
        if kind is not None:
            token.with_kind(kind)
        if agents := list(dispatch):
            token.with_room_config(lk.RoomConfiguration(agents=agents))
        return str(token.to_jwt())

    async def participants(self, room: str) -> list[ParticipantInfo]:
        """Return who is in a room, as the server sees it; ghosts are among them, and nobody is in an unknown room."""
        async with self.api() as client:
            try:
                listed = await client.room.list_participants(lk.ListParticipantsRequest(room=room))
            except lk.TwirpError as error:
                if error.code == lk.TwirpErrorCode.NOT_FOUND:
                    return []
                raise
        return list(listed.participants)

    async def create_dispatch(
        self, agent_name: str, room: str, metadata: Mapping[str, Any] | str = ""
    ) -> AgentDispatch:
        """Ask for an agent in a room, which is made if need be. Returns before anyone has come."""
        text = metadata if isinstance(metadata, str) else json.dumps(dict(metadata))
        request = lk.CreateAgentDispatchRequest(agent_name=agent_name, room=room, metadata=text)
        async with self.api() as client:
            return await client.agent_dispatch.create_dispatch(request)

    async def remove_participant(self, room: str, identity: str) -> None:
        """Put someone out of a room."""
        async with self.api() as client:
            await client.room.remove_participant(lk.RoomParticipantIdentity(room=room, identity=identity))

    async def delete_room(self, room: str) -> None:
        """Close a room, and put everyone out."""
        async with self.api() as client:
            await client.room.delete_room(lk.DeleteRoomRequest(room=room))
