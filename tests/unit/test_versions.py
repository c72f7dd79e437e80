"""Versions of other libraries that nobody has tested: used, with a warning."""

from collections.abc import Iterator
from importlib import metadata

import pytest

from conversation_actors import versions


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    """Forget what was told: a process tells once, and each test is a new one."""
    versions.tell_untested.cache_clear()
    yield
    versions.tell_untested.cache_clear()


@pytest.mark.parametrize(
    ("installed", "is_told"),
    [("2.60.0", False), ("2.60.9", False), ("2.44.0", False), ("2.61.0", True), ("3.0.0rc1", True)],
)
def test_an_untested_version_is_spoken_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: str, *, is_told: bool
) -> None:
    """A minor that nobody tested is used all the same, with one warning that names what was tested."""
    monkeypatch.setattr(metadata, "version", lambda name: installed if name == "ray" else versions.NEWEST_TESTED[name])
    for _ in range(3):
        versions.tell_untested("ray", "redis")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == int(is_told)
    if is_told:
        assert f"ray {installed} (tested up to {versions.NEWEST_TESTED['ray']})" in told[0]
        assert "redis" not in told[0]


def test_what_is_not_installed_is_no_news(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A client has no livekit-agents."""

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    versions.tell_untested("livekit-agents")
    assert not caplog.records
