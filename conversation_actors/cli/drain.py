"""``python -m conversation_actors.cli.drain ADDRESS SECONDS``: save and end every conversation of a cluster.

This is a process of its own, so that `dev` is not a client of the Ray that it stops. It prints how many conversations
it saved, and of how many.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence

from conversation_actors.errors import ConversationError
from conversation_actors.runtime import connect, drain
from conversation_actors.settings import Settings


async def _drain(address: str, seconds: float) -> tuple[int, int]:
    await connect(Settings(ray_address=address))
    return await drain(seconds)


def main(arguments: Sequence[str]) -> int:
    """Drain the cluster. Returns the exit code."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        print(*asyncio.run(_drain(arguments[0], float(arguments[1]))))  # noqa: T201  # the interface
    except ConversationError as error:
        print(error, file=sys.stderr)  # noqa: T201  # the interface
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
