"""The resolver of one destination: a name's addresses, without those that may not be reached."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from conversation_actors.webhooks.addresses import is_public

Lookup = Callable[[str, int], Sequence[str]]
"""What returns the addresses of a name and a port, in a thread of its own. It raises `OSError`."""


class AddressRefusedError(OSError):
    """An address that may not be reached. It is never connected to."""


def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class CheckedResolver(AbstractResolver):
    """Asks for a name's addresses at each try; who connects gets those that were checked, and no others.

    One thread asks, and tries at the same time share its answer: names that nobody answers for keep no thread from
    anybody else.
    """

    def __init__(self, *, allow_private: bool, lookup: Lookup = look_up) -> None:
        """Let private addresses through only with `allow_private`."""
        self._allow_private, self._lookup = allow_private, lookup
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhook-names")
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses that may be reached. Raises `AddressRefusedError` if there is no such address."""
        found = await self._addresses(host, port)
        allowed = [one for one in found if self._allow_private or is_public(one)]
        if not allowed:
            message = "the name has no address that may be reached"
            raise AddressRefusedError(message)
        results = [_result(host, port, one) for one in allowed]
        return [one for one in results if family in {socket.AF_UNSPEC, one["family"]}] or results

    async def close(self) -> None:
        """Ask no more; an answer that is still to come is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        key = (host, port)
        if key not in self._asked:
            asked = asyncio.get_running_loop().run_in_executor(self._thread, self._lookup, host, port)
            self._asked[key] = asked
            asked.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(self._asked[key])  # who gives up takes the answer from nobody else

    def _forget(self, key: tuple[str, int], done: "asyncio.Future[Sequence[str]]") -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it


def _result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
