"""Carry packets between two interfaces, and hold each for a while, as a distance does.

    ip netns exec NAMESPACE python -m benchmarks.relay 0.5 near far      # until standard input ends

A frame goes on as it came, with the checksums and the segments that the kernel left undone: nothing above notices.
It is held for a little longer than asked, by the time that this program takes to be woken.
"""

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress

_ALL = 0x0003
"""ETH_P_ALL: frames of every protocol."""
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _VNET_HDR, _IGNORE_OUTGOING = 1, 15, 23
_PROMISCUOUS = 1
_FRAME = 10 + 14 + (64 << 10)
"""The longest frame: the kernel's note on what it left undone, addresses, and segments that it has not cut yet."""
_BUFFER = 8 << 20


def open_end(interface: str) -> socket.socket:
    """Return a socket that gets every frame that arrives at the interface, and whose frames leave there."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    end.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    end.bind((interface, _ALL))
    index = socket.if_nametoindex(interface)
    request = index.to_bytes(4, sys.byteorder) + _PROMISCUOUS.to_bytes(2, sys.byteorder) + bytes(10)
    end.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
    end.setblocking(False)
    return end


def carry(ends: Sequence[socket.socket], seconds: float, *, until: int) -> None:
    """Carry frames between both ends, each held for so many seconds, until the file `until` has something to read."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    by_number = {end.fileno(): end for end in ends}
    held: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait = max(held[0][0] - time.monotonic(), 0) if held else None
        ready, _, _ = select.select([*by_number, until], [], [], wait)  # epoll counts in milliseconds
        if until in ready:
            return
        now = time.monotonic()
        for number, end in by_number.items():
            if number in ready:
                with suppress(BlockingIOError):
                    while True:
                        held.append((now + seconds, other[end], end.recv(_FRAME)))
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, end, frame = held.popleft()
            with suppress(BlockingIOError):  # the cable is full: a frame is lost, and TCP repeats it
                end.send(frame)


def main() -> None:
    """Run ``relay.py MILLISECONDS INTERFACE INTERFACE``, and print a line when frames are carried."""
    milliseconds, *interfaces = sys.argv[1:]
    with ExitStack() as stack:
        ends = [stack.enter_context(open_end(interface)) for interface in interfaces]
        print("carrying", flush=True)
        carry(ends, float(milliseconds) / 1000, until=sys.stdin.fileno())


if __name__ == "__main__":
    main()
