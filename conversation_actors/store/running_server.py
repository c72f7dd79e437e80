"""What a second command needs to use the server of the first."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from conversation_actors.errors import StoreUnavailableError
from conversation_actors.store.connection import NAMELESS

HOST = "127.0.0.1"
STATE = "server.json"
"""The file beside the data; its mode is 0600."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs on a directory, as the file there tells."""

    pid: int
    port: int
    password: str

    @property
    def url(self) -> str:
        """The URL with the password."""
        # `default` is the user that has the password; redis-cli needs its name
        return f"redis://default:{quote(self.password, safe='')}@{HOST}:{self.port}/0"

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read what the file says; None if it was never written, or by somebody else.

        It may tell of a server that has ended: the lock on the data says whether one runs.
        """
        try:
            return cls(**json.loads((directory / STATE).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def answers(self, seconds: float) -> bool:
        """Tell whether this very server answers so soon, and not another that got its port."""
        with closing(_client(self.url, seconds)) as client:
            try:
                info = client.info("server")
                client.ping()  # refused while loading, when INFO is answered
            except RedisError:
                return False
        return int(info["process_id"]) == self.pid

    def wipe(self, seconds: float) -> None:
        """Remove everything that is stored. Raises `StoreUnavailableError` if the server does not answer so soon."""
        with closing(_client(self.url, seconds)) as client:
            try:
                client.flushall()
            except RedisError as error:
                message = f"the embedded server cannot be wiped now: {error}"
                raise StoreUnavailableError(message) from error


def directory_of(url: str, seconds: float) -> Path | None:
    """Return the directory of the running server that has this URL; None if it is no such server's."""
    parts = urlsplit(url)
    if (parts.scheme, parts.hostname) != ("redis", HOST):
        return None
    with closing(_client(url, seconds)) as client:
        try:
            directory = client.config_get("dir").get("dir")
        except RedisError:
            return None
    running = RunningServer.read(Path(directory)) if directory else None
    return Path(directory) if directory and running is not None and running.url == url else None


def _client(url: str, seconds: float) -> Redis:
    """Return a client that tries once."""
    return Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
        **NAMELESS,
    )
