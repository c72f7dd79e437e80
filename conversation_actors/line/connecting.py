"""Finding the way to an owner's process that its address offers: its Unix socket, or else TCP."""

import asyncio
import ssl
from collections.abc import Awaitable, Iterator
from pathlib import Path

from conversation_actors.line.connection import LineConnection, LineLostError, Way, WrongProofError
from conversation_actors.line.sockets import watch_over
from conversation_actors.protocol import LineAddress
from conversation_actors.timing import TIMING, Timing


async def connect(
    address: LineAddress, *, timing: Timing = TIMING, tls: ssl.SSLContext | None = None
) -> LineConnection:
    """Return a line to who listens at `address`: by its Unix socket, or else by TCP. Raises `LineLostError`.

    `tls` is how this process speaks TLS, if Ray does here; who does not speak the same way is not spoken to.
    """
    lost: LineLostError | None = None
    reasons: list[str] = []
    for way, line, opening in _openings(address, tls):
        try:
            async with asyncio.timeout(timing.line_connect):
                await opening
                await line.proven
            if not line.is_up:
                raise line.loss()  # noqa: TRY301  # as if it had fallen a moment before
        except (OSError, TimeoutError, LineLostError) as error:
            reasons.append(f"{way}: {str(error) or f'no answer in {timing.line_connect:g} s'}")
            lost = error if isinstance(error, WrongProofError) else lost
            line.close()
        except BaseException:
            line.close()
            raise
        else:
            return line
    reason = "; ".join(reasons) or "the owner listens nowhere that this process can reach"
    raise WrongProofError(reason) if lost is not None else LineLostError(reason)


def _openings(
    address: LineAddress, tls: ssl.SSLContext | None
) -> Iterator[tuple[Way, LineConnection, Awaitable[object]]]:
    """Yield each way to the address, with a line and what connects it."""
    loop = asyncio.get_running_loop()
    if address.unix is not None and _is_here(address.unix):
        line = LineConnection("unix", address.secret)
        yield "unix", line, loop.create_unix_connection(lambda: line, address.unix)
    if address.tcp is not None and address.is_encrypted == (tls is not None):
        host, port = address.tcp
        line = LineConnection("tcp", address.secret)
        yield "tcp", line, _tcp(line, host, port, tls)


def _is_here(socket: str) -> bool:
    """Whether this process sees the socket: another node's is not here, and another user's directory hides its own."""
    try:
        return Path(socket).is_socket()
    except OSError:
        return False


async def _tcp(line: LineConnection, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: line, host, port, ssl=tls)
    watch_over(transport.get_extra_info("socket"))
