"""The example agent, and the models it uses."""

PRELOADED = (
    *("agent_worker.example.answer", "openai.resources.chat", "openai.resources.audio", "openai.pagination"),
    # imported by the OpenAI client at its first request: half a second in a call that has just been taken over
    *("pydantic.v1", "anyio._backends._asyncio"),
)
"""What a worker imports before its calls, so that none of them waits for it."""
