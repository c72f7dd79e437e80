"""Endpoints in the settings: what is refused, and that no error, `repr` or log shows a secret."""

import base64
import json

import pytest

from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import WebhookSettings
from conversation_actors.sources.groups import all_names
from tests.support.receivers import OTHER_SECRET, SECRET

URL = "https://crm.example/hooks/hunter2"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A developer's own settings are not read."""
    monkeypatch.chdir(str(tmp_path))
    for name in all_names():
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **values: str) -> WebhookSettings:
    """Return the settings of these variables."""
    for name, value in values.items():
        monkeypatch.setenv(f"CONVERSATION_WEBHOOK_{name}", value)
    return WebhookSettings()


def test_without_any_there_is_no_endpoint() -> None:
    """And no mistake."""
    assert WebhookSettings().all == ()


def test_one_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the secrets that take each other's place, the newest first."""
    (one,) = given(monkeypatch, URL=URL, SECRET=f"{OTHER_SECRET}, {SECRET}", EVENTS="call.ended,session.recorded").all
    assert (one.name, one.url.get_secret_value(), one.shown) == ("default", URL, "https://crm.example")
    assert [secret.get_secret_value() for secret in one.secret] == [OTHER_SECRET, SECRET]
    assert [one.wants(event) for event in ("call.ended", "call.started")] == [True, False]


def test_several_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one by its URL."""
    told = json.dumps([{"name": "bi", "url": "https://bi.example/", "secret": [SECRET], "events": ["call.ended"]}])
    chosen = given(monkeypatch, URL=URL, SECRET=SECRET, DESTINATIONS=told)
    assert [one.name for one in chosen.all] == ["default", "bi"]


def test_nothing_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is one too: receivers put tokens into paths."""
    chosen = given(monkeypatch, URL=URL, SECRET=SECRET)
    for shown in (repr(chosen), str(chosen), repr(chosen.all), f"{chosen.all[0].shown}"):
        assert "hunter2" not in shown
        assert SECRET.removeprefix("whsec_") not in shown


SHORT = "whsec_" + base64.b64encode(b"hunter2").decode()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"URL": URL}, "secret"),
        ({"URL": URL, "SECRET": "hunter2"}, "secret.0"),
        ({"URL": URL, "SECRET": SHORT}, "secret.0"),
        ({"URL": URL, "SECRET": f"{SECRET},whsec_hunter2!"}, "secret.1"),
        ({"URL": "http://crm.example/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "ftp://crm.example/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "crm.example/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://user:hunter2@crm.example/", "SECRET": SECRET}, "url"),
        ({"URL": "https://crm.example/#hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://crm.example/hunter2\r\nHost: inside", "SECRET": SECRET}, "url"),
        ({"URL": "https://crm.example:99999/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://127.1/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://2130706433/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://0x7f.1/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": "https://127.0.0.0x1/hunter2", "SECRET": SECRET}, "url"),
        ({"URL": URL, "SECRET": SECRET, "EVENTS": "call.hunter2"}, "events.0"),
        ({"DESTINATIONS": "hunter2"}, "destinations"),
        ({"DESTINATIONS": json.dumps({"url": URL})}, "destinations"),
        ({"DESTINATIONS": json.dumps([{"name": "a", "url": URL}])}, "destinations.0.secret"),
        ({"DESTINATIONS": json.dumps([{"name": "a b", "url": URL, "secret": SECRET}])}, "destinations.0.name"),
        ({"DESTINATIONS": json.dumps([{"name": "a", "url": URL, "secret": SECRET}] * 2)}, "destinations"),
        (
            {"DESTINATIONS": json.dumps([{"name": "a", "url": URL, "secret": SECRET, "x": "hunter2"}])},
            "destinations.0.x",
        ),
    ],
)
def test_mistakes_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, values: dict[str, str], field: str) -> None:
    """One sentence, with the field."""
    with pytest.raises(InvalidInputError) as refused:
        given(monkeypatch, **values)
    assert refused.value.field == field
    assert "hunter2" not in str(refused.value)
    assert SECRET.removeprefix("whsec_") not in str(refused.value)


def test_private_networks_allow_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a receiver beside the deliverer."""
    (one,) = given(monkeypatch, URL="http://10.0.0.7:8080/x", SECRET=SECRET, PRIVATE_NETWORKS="true").all
    assert one.shown == "http://10.0.0.7:8080"
