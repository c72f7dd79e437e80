"""The plug-in of pytest: a fixture with a client on an empty ``memory://``.

pytest imports it at each start, so nothing of the package is imported before a test asks for the fixture.
"""

from collections.abc import AsyncIterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conversation_actors import ConversationClient


async def conversation_client() -> "AsyncIterator[ConversationClient]":
    """Yield a `ConversationClient` of this test alone, without Ray or Redis and with the same guarantees.

    See `conversation_actors.testing`, which can also have an owner crash.
    """
    from conversation_actors.testing import local_client  # noqa: PLC0415  # see the module's docstring

    async with local_client() as client:
        yield client


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixture to whatever runs coroutines here: pytest-asyncio, if it is active, or anyio."""
    fixture = import_module("pytest_asyncio").fixture if config.pluginmanager.hasplugin("asyncio") else pytest.fixture
    fixtures = ModuleType("pytest_conversation_actors.fixtures")  # pytest looks for them in modules and classes
    vars(fixtures)["conversation_client"] = fixture(conversation_client)
    config.pluginmanager.register(fixtures)
