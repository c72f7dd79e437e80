"""What goes over a line while nothing happens: payload, and segments without any, which keep the connection alive."""

import gc
import socket
import struct
import time

from benchmarks.driver import Session
from benchmarks.results import Report
from benchmarks.stage import Driver

_BYTES = struct.Struct("=120xQQII")
"""The end of Linux's `struct tcp_info`: bytes that were acknowledged and received, segments out and in."""

Counters = dict[str, float]


async def counters(session: Session) -> Counters:
    """Return the payload bytes and the segments of this process's only line so far, both ways, and the time.

    Ray's connections are none of Python's sockets. Raises `RuntimeError` if there is not just one line by TCP.
    """
    redis = int(session.redis_url.rpartition(":")[2].partition("/")[0])
    gc.unfreeze()
    lines = [found for found in gc.get_objects() if isinstance(found, socket.socket) and _is_line(found, redis)]
    if len(lines) != 1:
        message = f"{len(lines)} lines instead of one"
        raise RuntimeError(message)
    return counted(lines[0])


def counted(connection: socket.socket) -> Counters:
    """Return the payload bytes and the segments of a TCP connection so far, both ways, and the time."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES.size)
    acknowledged, received, segments_out, segments_in = _BYTES.unpack(info)
    return {"bytes": acknowledged + received, "segments": segments_out + segments_in, "at": time.monotonic()}


def _is_line(found: socket.socket, redis: int) -> bool:
    try:
        return found.family == socket.AF_INET and found.getpeername()[1] != redis
    except OSError:  # closed, or one that listens
        return False


def measure(report: Report, driver: Driver, before: Counters) -> None:
    """Tell what has gone over the driver's line since `before`, in which time nothing was asked."""
    after: Counters = driver.call("line.traffic:counters")
    seconds = after["at"] - before["at"]
    rates = {name: (after[name] - before[name]) / seconds for name in ("bytes", "segments")}
    report.add("payload of an idle line", "bytes/s", [rates["bytes"]])
    report.add("segments of an idle line, both ways", "1/s", [rates["segments"]])
    report.values["idle_bytes_per_s"] = rates["bytes"]
    report.notes.append(f"an idle line: one handle on another host, which asked nothing for {seconds:.0f} s.")
