"""What imports have freed is taken, for good, before the first worker is forked.

Imports leave thousands of free blocks, spread over all that they have made. A worker would put what it allocates into
them, and each time make a page of 4 KiB its own for a few bytes. Where none is left it fills whole new pages instead:
4 MiB less for each worker, for 2 MiB that all of them share.
"""

import ctypes
from collections import Counter
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

_GRANULE = 16
"""CPython and glibc round sizes up to its multiples."""
_POOL_BYTES = 16 << 10
"""CPython hands out blocks of one size from a pool; this is how large, and aligned, its pools are."""
_POOL_HEAD = 48
_POOLED_BYTES = 512
"""What is larger CPython gets from malloc."""
_MAX_POOLS = 64
"""For each size, where 10 are usual: an allocator without such pools (PYTHONMALLOC=malloc) would have no end."""
_MALLOC_BYTES = 64 << 10
"""The largest gaps; from 128 KiB on glibc maps what is asked for."""
_CACHED_BYTES, _CACHED_BLOCKS = 1032, 8
"""Of sizes up to this one glibc hands out first what was freed last, seven at most: one outside proves nothing yet."""
_PAGE_BYTES = 4096
_BYTES_HEAD = 33


def fill_gaps() -> None:
    """Call it with nothing left to collect. What fills the gaps belongs to nobody, and stays until the process ends."""
    blocks = [list(fill_pools(size)) for size in range(_GRANULE, _POOLED_BYTES + 1, _GRANULE)]
    # A worker that freed them would write to all of them, and have the gaps again.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(blocks))
    fill_malloc()


def fill_pools(size: int) -> Iterator[list[object]]:
    """Objects of `size` bytes, until CPython has no room for one more in a pool that something lies in; to be kept.

    It begins a new pool only then. What lies in a new one is not among them.
    """
    of_a_pool = (_POOL_BYTES - _POOL_HEAD) // size
    for _ in range(0, _MAX_POOLS, 2):
        objects = objects_of(size, 2 * of_a_pool)
        pools = Counter(id(block) // _POOL_BYTES for block in objects)
        fresh = {pool for pool, count in pools.items() if count == of_a_pool}
        # The pools' numbers fill gaps of 32 bytes themselves, one for each pool: given back, they would open them.
        yield [pools, *(block for block in objects if id(block) // _POOL_BYTES not in fresh)]
        if fresh:
            return


def objects_of(size: int, count: int) -> list[object]:
    """So many objects that take `size` bytes, a multiple of 16 up to 512; nothing else of that size is made between."""
    if size == _GRANULE:
        return [object() for _ in range(count)]
    if size == 2 * _GRANULE:
        return list(map(complex, repeat(1.0, count)))
    return list(map(bytes, repeat(size - _BYTES_HEAD, count)))


def fill_malloc() -> None:
    """Take what glibc's malloc has free in the heap, from the largest gap to the smallest.

    Once trimmed, the heap ends a page or two after what is in use, and the largest block that lies behind begins where
    the use ends: one from there on is in no gap. Nor is one outside of the heap, where glibc puts large ones, and
    another allocator all.
    """
    libc, start = ctypes.CDLL(None), heap_start()
    if start is None or not hasattr(libc, "malloc_trim"):
        return
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_size_t
    libc.free.argtypes, libc.free.restype = [ctypes.c_size_t], None
    libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_size_t
    libc.malloc_trim(0)
    largest, end = _MALLOC_BYTES - 8, libc.sbrk(0) - 2 * _PAGE_BYTES
    behind = _fill_size(libc, largest, range(start, end))
    if behind in range(end, libc.sbrk(0)):
        end = behind  # no gap is as large as that above the first `end`: the heap's use ends just here
    for size in range(largest - _GRANULE, 0, -_GRANULE):
        _fill_size(libc, size, range(start, end))


def _fill_size(libc: ctypes.CDLL, size: int, heap: range) -> int:
    """Take all gaps of the heap that fit a block of this size; returns where a block lies for which none is left."""
    outside: list[int] = []
    while len(outside) < (_CACHED_BLOCKS if size <= _CACHED_BYTES else 1):
        block = libc.malloc(size)
        if block not in heap:
            outside.append(block)
    for block in outside:
        libc.free(block)
    return outside[0]


def heap_start() -> int | None:
    """Where the heap begins that grows by `brk`; None if there is none."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.endswith("[heap]"):
            return int(line.partition("-")[0], 16)
    return None
