"""Which owners run in this process: at most one of a conversation is found at a time."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from conversation_actors.local.host import LocalHost
from conversation_actors.port import PeerLostError
from conversation_actors.settings import Settings
from conversation_actors.store import memory_name


class Home(NamedTuple):
    """The store that hosts belong to: the name in its URL, and the tenant."""

    name: str
    tenant: str

    @classmethod
    def of(cls, settings: Settings) -> "Home":
        """Return the one that the settings name. Raises `InvalidInputError` for a URL that is none of memory."""
        return cls(memory_name(settings), settings.tenant)


class LocalHosts:
    """Finds and starts hosts. Any thread may use it; a host that is started belongs to the loop that asked for it."""

    def __init__(self) -> None:
        """None runs yet."""
        self._hosts: dict[tuple[Home, str], LocalHost] = {}
        self._clients: Counter[tuple[Home, asyncio.AbstractEventLoop]] = Counter()
        self._lock = threading.Lock()

    def find(self, home: Home, conversation_id: str) -> LocalHost | None:
        """Return the host that runs now, if one does."""
        with self._lock:
            return self._running(home, conversation_id)

    def find_or_start(self, home: Home, conversation_id: str, start: Callable[[], LocalHost]) -> LocalHost:
        """Return the host that runs now, or the one that `start` makes."""
        with self._lock:
            host = self._running(home, conversation_id)
            if host is None:
                host = self._hosts[home, conversation_id] = start()
                host.when_ended(partial(self._forget, home, conversation_id, host))
            return host

    def enter(self, home: Home) -> None:
        """Count a client in the running loop."""
        with self._lock:
            for closed in [key for key in self._clients if key[1].is_closed()]:
                del self._clients[closed]
            self._clients[home, asyncio.get_running_loop()] += 1

    async def leave(self, home: Home) -> None:
        """Count a client less; with the last one of a loop, that loop's hosts save their snapshots and end."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._clients[home, loop] -= 1
            if self._clients[home, loop] > 0:
                return
            del self._clients[home, loop]
            left = {key: host for key, host in self._hosts.items() if key[0] == home and host.loop is loop}
            for key in left:
                del self._hosts[key]
        await asyncio.gather(*(host.retire() for host in left.values() if host.is_running))

    async def kill(self, conversation_id: str) -> int:
        """Kill the hosts of a conversation, whatever store they belong to; return how many there were."""
        with self._lock:
            found = [host for key, host in self._hosts.items() if key[1] == conversation_id and host.is_running]
        found = [host for host in found if not host.is_leaving]
        for host in found:
            with suppress(PeerLostError):  # its loop has ended meanwhile
                await host.in_own_loop(host.kill)
        return len(found)

    def _forget(self, home: Home, conversation_id: str, host: LocalHost) -> None:
        """Drop a host that has ended, unless another one has taken its place."""
        with self._lock:
            if self._hosts.get((home, conversation_id)) is host:
                del self._hosts[home, conversation_id]

    def _running(self, home: Home, conversation_id: str) -> LocalHost | None:
        host = self._hosts.get((home, conversation_id))
        if host is None or host.is_running:
            return host
        del self._hosts[home, conversation_id]
        return None


_HOSTS = LocalHosts()


def hosts_of_process() -> LocalHosts:
    """Return those of this process."""
    return _HOSTS
