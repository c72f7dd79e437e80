"""Fixtures that more than one module of unit tests takes."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fakes import Activations


@pytest.fixture
async def start() -> AsyncIterator[Activations]:
    """Make a starter of activations; they are stopped behind the test."""
    async with Activations() as starting:
        yield starting
