"""The example agent, and the models it uses."""

PRELOADED = (
    *("agent_worker.example.answer", "openai.resources.chat", "openai.resources.audio", "openai.pagination"),
    # the OpenAI client imports these at its first request, which takes half a second in a call just taken over
    *("pydantic.v1", "anyio._backends._asyncio"),
)
"""Modules that a worker imports before its calls, so that no call waits for them."""
