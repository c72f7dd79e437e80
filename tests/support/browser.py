"""A headless Chromium for tests of the caller's page: with a microphone that plays a tone, and sound that may start."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Page

DESKTOP = (1280, 800)
PHONE = (390, 844)

_FLAGS = (
    "--no-sandbox",  # tests run as root in containers
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)


def _chromium() -> str | None:
    """Return the one that `CHROMIUM` names, else Debian's, else the first on PATH."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if os.access(named, os.X_OK) else None
    places = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
    return next((found for place in places if (found := shutil.which(place)) is not None), None)


def chromium_missing() -> str | None:
    """Return what to install for `open_page`, in a sentence; None if everything is there."""
    if find_spec("playwright") is None:
        return "the package playwright is not installed: run `make install`"
    if _chromium() is None:
        return "no Chromium found: run `make setup`, or name a Chrome or Chromium by CHROMIUM=/path"
    return None


@asynccontextmanager
async def open_page(*, size: tuple[int, int] = DESKTOP, dark: bool = False) -> "AsyncIterator[Page]":
    """Open an empty page in a browser of its own, `size` in CSS pixels; the browser ends with the block.

    The page's own storage is empty and private to it. Raises `RuntimeError` with `chromium_missing`'s sentence.
    """
    if (missing := chromium_missing()) is not None:
        raise RuntimeError(missing)
    from playwright.async_api import ViewportSize, async_playwright  # not everybody has it

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_chromium(), args=_FLAGS)
        try:
            viewport = ViewportSize(width=size[0], height=size[1])
            context = await browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
            yield await context.new_page()
        finally:
            await browser.close()
