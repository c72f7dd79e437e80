"""A back end in the settings: what is refused, and that nothing shows its token or its path."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from conversation_actors.calls import HAPPENINGS
from conversation_actors.calls.happenings import REPORTS
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import ArchiveSettings, BackendSettings, Settings, WebhookSettings
from conversation_actors.sources.groups import all_names
from tests.support.receivers import SECRET, destination

URL = "https://backend.example/hunter2"
TOKEN = "token-that-nobody-may-see"
ARCHIVE = "sqlite+aiosqlite:///archive.db"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own settings are not read."""
    monkeypatch.chdir(tmp_path)
    for name in all_names():
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    """Return the settings of these variables, with an archive."""
    monkeypatch.setenv("CONVERSATION_ARCHIVE_URL", ARCHIVE)
    for name, value in values.items():
        monkeypatch.setenv(f"CONVERSATION_BACKEND_{name}", value)
    return Settings()


def test_nothing_shows_its_token_or_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host is shown."""
    chosen = given(monkeypatch, URL=URL, TOKEN=TOKEN, CONTEXT_BUDGET="80ms")
    assert chosen.backend.context_budget.total_seconds() == 0.08
    assert chosen.backend.shown == "https://backend.example"
    for shown in (repr(chosen), str(chosen.backend), chosen.backend.shown):
        assert "hunter2" not in shown
        assert TOKEN not in shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("URL", "backend.example"),
        ("URL", "http://backend.example"),
        ("URL", f"https://user:{TOKEN}@backend.example"),
        ("URL", f"https://backend.example/?key={TOKEN}"),
        ("TOKEN", f"{TOKEN} and more"),
        ("TOKEN", f"{TOKEN}\r\nX-Other: 1"),
        ("TOKEN", f"{TOKEN}ü"),
        ("BYTES", "12"),
    ],
)
def test_what_cannot_be_a_back_end_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """By one sentence with the field's name, and without its value."""
    with pytest.raises(InvalidInputError) as refused:
        given(monkeypatch, **{"URL": "https://backend.example", variable: value})
    assert refused.value.field == variable.lower()
    assert TOKEN not in str(refused.value)


def test_one_without_tls_is_for_private_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that was said."""
    assert given(monkeypatch, URL="http://10.0.0.7:8080", PRIVATE_NETWORKS="true").backend.url is not None


def test_a_back_end_needs_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is its outbox; what is in one process's memory has none."""
    backend = BackendSettings(url=SecretStr(URL))
    with pytest.raises(InvalidInputError, match="CONVERSATION_ARCHIVE_URL") as refused:
        Settings(backend=backend)
    assert refused.value.field == "backend.url"
    monkeypatch.setenv("CONVERSATION_BACKEND_URL", URL)
    with pytest.raises(InvalidInputError, match="CONVERSATION_ARCHIVE_URL"):
        Settings()
    assert Settings(archive=ArchiveSettings(url=SecretStr(ARCHIVE))).backend == backend
    assert Settings(redis_url=SecretStr("memory://")).backend == backend


def test_no_webhook_has_the_name_of_the_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far each is goes by its name."""
    told = f'[{{"name": "backend", "url": "https://crm.example", "secret": "{SECRET}"}}]'
    monkeypatch.setenv("CONVERSATION_WEBHOOK_DESTINATIONS", told)
    with pytest.raises(InvalidInputError, match="the name of the back end"):
        WebhookSettings()


def test_a_webhook_is_not_sent_what_only_a_back_end_is_told() -> None:
    """Also one that wants all."""
    wants = destination("https://crm.example").wants
    assert [wants(event) for event in (*HAPPENINGS, *REPORTS)] == [True] * len(HAPPENINGS) + [False] * len(REPORTS)
