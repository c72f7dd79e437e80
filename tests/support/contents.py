"""What a Redis holds, whatever it is for: for tests of what it must not hold any more."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, cast

from redis import Redis


def everything(client: Redis) -> bytes:
    """Names and values of all keys, of every type that there is."""
    found: list[bytes] = []
    for key in client.scan_iter("*", count=1000):
        match client.type(key):
            case b"string":
                values: Iterable[Any] = [client.get(key) or b""]
            case b"list":
                values = cast("list[bytes]", client.lrange(key, 0, -1))
            case b"hash":
                values = chain.from_iterable(cast("dict[bytes, bytes]", client.hgetall(key)).items())
            case b"set":
                values = cast("set[bytes]", client.smembers(key))
            case b"zset":
                values = cast("list[bytes]", client.zrange(key, 0, -1))
            case kind:
                assert kind == b"none"  # it has expired meanwhile
                values = []
        found += [key, *values]
    return b"\n".join(found)
