"""The alternatives for a developer, each as one call that appends one message of 200 bytes to one conversation."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from benchmarks.driver import TEXT

ITEMS = 200
TTL_SECONDS = 604_800
FENCED_APPEND = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""

Call = Callable[[], Awaitable[object]]


class UnavailableError(Exception):
    """An error for a peer that cannot be measured. Its text is the reason, which is shown in a sentence."""


@asynccontextmanager
async def plain_pipeline(url: str) -> AsyncIterator[Call]:
    """Yield an append with redis-py: everything in one round trip, without a transaction."""
    redis: Any = Redis.from_url(url)

    async def append() -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.rpush("peer:pipeline", json.dumps({"role": "user", "content": TEXT}))
            pipeline.ltrim("peer:pipeline", -ITEMS, -1)
            pipeline.expire("peer:pipeline", TTL_SECONDS)
            await pipeline.execute()

    yield append
    await redis.aclose()


@asynccontextmanager
async def plain_calls(url: str) -> AsyncIterator[Call]:
    """Yield an append with redis-py that awaits each command."""
    redis: Any = Redis.from_url(url)

    async def append() -> None:
        await redis.rpush("peer:calls", json.dumps({"role": "user", "content": TEXT}))
        await redis.ltrim("peer:calls", -ITEMS, -1)
        await redis.expire("peer:calls", TTL_SECONDS)

    yield append
    await redis.aclose()


@asynccontextmanager
async def plain_script(url: str) -> AsyncIterator[Call]:
    """Yield an append with redis-py that is one Lua script: the same writes, behind a fence that never shuts."""
    redis: Any = Redis.from_url(url)
    script = redis.register_script(FENCED_APPEND)
    keys = ["{peer:script}:meta", "{peer:script}:items"]

    async def append() -> None:
        await script(keys=keys, args=[1, json.dumps({"role": "user", "content": TEXT}), -ITEMS, TTL_SECONDS])

    yield append
    await redis.aclose()


@asynccontextmanager
async def openai_agents(url: str) -> AsyncIterator[Call]:
    """Yield an append with `RedisSession` of openai-agents, which keeps everything for ever unless told otherwise."""
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    try:
        from agents.extensions.memory.redis_session import RedisSession  # noqa: PLC0415  # an optional peer
    except ImportError as error:
        message = f"openai-agents is not installed ({error})"
        raise UnavailableError(message) from error
    session = RedisSession.from_url("bench", url=url)
    yield lambda: session.add_items([{"role": "user", "content": TEXT}])
    await session.close()


@asynccontextmanager
async def langgraph(url: str) -> AsyncIterator[Call]:
    """Yield a write with `AsyncRedisSaver`: one checkpoint of 200 messages, without a graph or reading it back."""
    try:
        from langgraph.checkpoint.base import empty_checkpoint  # noqa: PLC0415  # an optional peer
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver  # noqa: PLC0415  # same
    except ImportError as error:
        message = f"langgraph-checkpoint-redis is not installed ({error})"
        raise UnavailableError(message) from error
    redis: Any = Redis.from_url(url)
    loaded = {str(module.get("name") or module.get(b"name")).lower() for module in await redis.module_list()}
    await redis.aclose()
    if not all(any(wanted in name for name in loaded) for wanted in ("json", "search")):
        message = "the server has no modules JSON and search; name one that does with --modules-redis"
        raise UnavailableError(message)
    messages = [{"role": "user", "content": TEXT}] * ITEMS
    async with AsyncRedisSaver.from_conn_string(url) as saver:
        await saver.asetup()
        version = 0

        async def append() -> None:
            nonlocal version
            version += 1
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": messages}
            checkpoint["channel_versions"] = {"messages": version}
            config: Any = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}
            await saver.aput(config, checkpoint, {}, {"messages": version})

        yield append


PIPELINE = "redis-py, one pipeline"
CALLS = "redis-py, three awaited calls"
SCRIPT = "redis-py, one Lua script"
SESSION = "openai-agents RedisSession"
SAVER = "langgraph AsyncRedisSaver"


PEERS = (PIPELINE, CALLS, SCRIPT, SESSION, SAVER)


async def available(
    stack: AsyncExitStack, url: str, modules_url: str | None, *, wanted: Collection[str] = PEERS
) -> tuple[dict[str, Call], list[str]]:
    """Return the wanted peers that can be measured here, and a sentence for each of those that cannot."""
    calls: dict[str, Call] = {}
    reasons = []
    makers = {
        PIPELINE: plain_pipeline,
        CALLS: plain_calls,
        SCRIPT: plain_script,
        SESSION: openai_agents,
        SAVER: langgraph,
    }
    for name in wanted:
        try:
            call = await stack.enter_async_context(makers[name](modules_url or url if name == SAVER else url))
            await call()
        except Exception as error:  # noqa: BLE001  # the other peers are measured in any case
            told = str(error) if isinstance(error, UnavailableError) else f"it failed: {error!r:.200}"
            reasons.append(f"{name} is left out: {told}.")
        else:
            calls[name] = call
    return calls, reasons
