"""What holds for every test: a clean environment, hypothesis profiles, and no skipped test in CI."""

import logging
import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# Set before any fixture runs: importing livekit.agents may come first.
os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"
"""Keeps every agent process from loading turn-detection models that no test uses."""

_SERVERS = {"REDIS_URL", "RAY_ADDRESS", "LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"}
"""Variables that name a developer's own servers. The fixture `livekit_server` reads LiveKit's before they are gone."""

IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}
ALLOWED_SKIP = "not on this platform"

# How fast examples are made depends on what else the machine does.
_UNTIMED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("dev", _UNTIMED)
hypothesis.settings.register_profile("ci", _UNTIMED, derandomize=True)
hypothesis.settings.register_profile("quick", _UNTIMED, max_examples=10, stateful_step_count=20)
hypothesis.settings.load_profile("quick" if os.environ.get("QUICK") else "ci" if IN_CI else "dev")


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for what asyncio says of tasks that LiveKit has left, whenever those are collected."""
    return "was never retrieved" not in record.getMessage()


def pytest_configure() -> None:
    """Drop such records: they would count in another test's log, or follow the last one as a page of tracebacks."""
    logging.getLogger("asyncio").addFilter(_is_news)


def forbidden_skip(longrepr: object) -> str | None:
    """Why a skip is not acceptable in CI; None where it is."""
    reason = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")
    if reason.startswith(ALLOWED_SKIP):
        return None
    return f"skipped in CI, where nothing may be: {reason!r} (only reasons that start with {ALLOWED_SKIP!r} pass)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test fails, with its reason."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and (why := forbidden_skip(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = why
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a skipped module (`importorskip`) fails as well."""
    report = yield
    if IN_CI and report.skipped and (why := forbidden_skip(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = why
    return report


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep a developer's settings out: no variables, and a working directory without a `.env` file."""
    for name in list(os.environ):
        if name.startswith("CONVERSATION_") or name in _SERVERS:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
