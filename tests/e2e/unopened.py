"""Agents that are in a call without having opened its conversation: one leaves, one stays that way."""

import asyncio
import json
import os
from pathlib import Path

from livekit.agents import JobContext

CAME = "UNOPENED_CAME"
"""A file that gets a line of JSON for each job that has connected."""


async def entrypoint(ctx: JobContext) -> None:
    """Do what the job's metadata says."""
    await {"leaving": leaving, "raising": raising, "preparing": preparing}[ctx.job.metadata](ctx)


def _come(ctx: JobContext) -> None:
    with Path(os.environ[CAME]).open("a") as came:
        came.write(json.dumps({"job": ctx.job.id, "pid": os.getpid(), "room": ctx.room.name}) + "\n")


async def leaving(ctx: JobContext) -> None:
    """Find that there is nothing to do, and go."""
    await ctx.connect()
    _come(ctx)
    await asyncio.sleep(1)
    ctx.shutdown("nothing to do here")


async def raising(ctx: JobContext) -> None:
    """Fail before there is a conversation: LiveKit ends the job in order."""
    await ctx.connect()
    _come(ctx)
    message = "nothing to do here"
    raise ValueError(message)


async def preparing(ctx: JobContext) -> None:
    """Be connected, and never get to the point where it would attach."""
    await ctx.connect()
    _come(ctx)
    await asyncio.Event().wait()
