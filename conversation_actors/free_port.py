"""A TCP port for a server that takes no port 0."""

import random
import socket
from contextlib import suppress
from pathlib import Path

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_FIRST = 32_768
"""Where the ports begin that Linux gives to connections by itself, if it does not tell."""
_LOWEST, _SPAN = 20_000, 1_000
"""Below are the ports of Ray: its head's, its dashboard's, its workers'. Fewer than the span are no choice."""
_RAYS_OWN = range(23_000, 24_000)
"""Ray's client server gives them to the servers of its clients, one after the other."""
_ATTEMPTS = 1000


def free_port(host: str) -> int:
    """Pick a port on which nobody listens now, by chance. Somebody may listen there before the server does.

    It is none of those that the kernel gives to connections by itself: any connection of the machine could take such a
    port in the seconds until the server listens. Raises `OSError` if none is found.
    """
    above = _first_of_connections()
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST, above)  # noqa: S311  # keeps servers apart, guards nothing
        with socket.socket() as probe, suppress(OSError):
            if port not in _RAYS_OWN:
                probe.bind((host, port))
                return port
    message = f"no free port was found on {host} between {_LOWEST} and {above}"
    raise OSError(message)


def _first_of_connections() -> int:
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = _USUAL_FIRST
    return first if first >= _LOWEST + _SPAN else 65_536
