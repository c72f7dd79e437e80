"""Settings: where they come from, how a mistake is told, and what never shows."""

import pickle
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Durability, HistoryLimits, Settings, Timeouts, data_directory
from conversation_actors.state import Limits

PASSWORD = "pa55word"
URL = f"redis://:{PASSWORD}@localhost:6379/0"
GROUPS: list[type[BaseSettings]] = [Settings, HistoryLimits, Timeouts]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty the environment, in an empty directory, where a test may put a `.env` file."""
    for group in GROUPS:
        for name in group.model_fields:
            monkeypatch.delenv(f"{group.model_config['env_prefix']}{name}".upper(), raising=False)
    for name in ("REDIS_URL", "RAY_ADDRESS", "CONVERSATION_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


# Sources


def test_defaults_need_no_environment() -> None:
    """And the state's own defaults are the same."""
    settings = Settings()
    assert (settings.redis_url, settings.ray_address, settings.durability) == (None, None, "redis")
    assert settings.history.limits() == Limits()


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("CONVERSATION_TTL", "PT2H", lambda s: s.ttl == timedelta(hours=2)),
        ("CONVERSATION_IDLE_TIMEOUT", "90", lambda s: s.idle_timeout == timedelta(seconds=90)),
        ("CONVERSATION_DURABILITY", "fsync", lambda s: s.durability == "fsync"),
        ("CONVERSATION_OUTBOX_ITEMS", "7", lambda s: s.outbox_items == 7),
        ("CONVERSATION_HISTORY_ITEMS", "50", lambda s: s.history.items == 50),
        ("CONVERSATION_HISTORY_BYTES", "600000", lambda s: s.history.bytes == 600_000),
        ("CONVERSATION_HISTORY_REQUEST_AGE", "1.5", lambda s: s.history.limits().request_age == 1.5),
        ("CONVERSATION_TIMEOUT_WRITE", "0.25", lambda s: s.timeouts.write == timedelta(milliseconds=250)),
        ("CONVERSATION_REDIS_URL", URL, lambda s: s.require_redis_url() == URL),
        ("REDIS_URL", URL, lambda s: s.require_redis_url() == URL),
        ("CONVERSATION_RAY_ADDRESS", "ray:6379", lambda s: s.ray_address == "ray:6379"),
        ("RAY_ADDRESS", "ray:6379", lambda s: s.ray_address == "ray:6379"),
    ],
)
def test_setting_comes_from_environment_or_file(
    monkeypatch: pytest.MonkeyPatch, environment: Path, variable: str, text: str, read: Any
) -> None:
    """Under the same name in both."""
    environment.write_text(f"{variable}={text}\nSOMETHING_ELSE=1\n")
    assert read(Settings())
    environment.unlink()
    monkeypatch.setenv(variable, text)
    assert read(Settings())


def test_keyword_beats_environment_beats_file(monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    """What is said closest to the program counts."""
    environment.write_text("CONVERSATION_TTL=1000\nCONVERSATION_REDIS_URL=redis://file\n")
    assert (Settings().ttl, Settings().require_redis_url()) == (timedelta(seconds=1000), "redis://file")
    monkeypatch.setenv("CONVERSATION_TTL", "2000")
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://environment")
    assert (Settings().ttl, Settings().require_redis_url()) == (timedelta(seconds=2000), "redis://environment")
    settings = Settings(ttl=timedelta(seconds=3000), redis_url=SecretStr("redis://keyword"))
    assert (settings.ttl, settings.require_redis_url()) == (timedelta(seconds=3000), "redis://keyword")


@pytest.mark.parametrize("name", ["REDIS_URL", "RAY_ADDRESS"])
def test_own_variable_beats_the_usual_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """REDIS_URL may belong to another program on the machine."""
    monkeypatch.setenv(name, "redis://usual")
    monkeypatch.setenv(f"CONVERSATION_{name}", "redis://own")
    settings = Settings()
    assert (settings.require_redis_url() if name == "REDIS_URL" else settings.ray_address) == "redis://own"


def test_environment_beats_the_file_under_whichever_name(monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    """The order of the sources comes before that of the names."""
    environment.write_text("CONVERSATION_REDIS_URL=redis://file\n")
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    assert Settings().require_redis_url() == "redis://environment"


def test_groups_can_be_given() -> None:
    """As objects."""
    settings = Settings(history=HistoryLimits(items=9), timeouts=Timeouts(open=timedelta(seconds=1)))
    assert (settings.history.items, settings.timeouts.open) == (9, timedelta(seconds=1))


# Mistakes


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90", timedelta(seconds=90)),
        (" 1.5 ", timedelta(seconds=1.5)),
        ("PT30M", timedelta(minutes=30)),
        ("P1DT2H", timedelta(days=1, hours=2)),
        ("PT0.25S", timedelta(milliseconds=250)),
        ("00:01:30", timedelta(seconds=90)),
    ],
)
def test_duration_is_seconds_or_iso_8601(monkeypatch: pytest.MonkeyPatch, text: str, duration: timedelta) -> None:
    """Always a timedelta in the program."""
    monkeypatch.setenv("CONVERSATION_TIMEOUT_COMMAND", text)
    assert Timeouts().command == duration


@pytest.mark.parametrize("text", ["0", "-5", "-PT5S", "PT0S", "soon", "nan", "inf", "5 minutes", "9" * 30, "1e5"])
def test_bad_duration_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """By the field and by the variable it came from."""
    monkeypatch.setenv("CONVERSATION_IDLE_TIMEOUT", text)
    with pytest.raises(InvalidInputError, match=r"^idle_timeout .*CONVERSATION_IDLE_TIMEOUT") as refusal:
        Settings()
    assert refusal.value.field == "idle_timeout"


@pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1), -1, float("nan"), float("inf"), [], {}])
def test_bad_duration_as_keyword_is_refused(value: Any) -> None:
    """Of whatever type."""
    with pytest.raises(InvalidInputError) as refusal:
        Timeouts(write=value)
    assert refusal.value.field == "write"


@pytest.mark.parametrize(
    ("variable", "text", "field"),
    [
        ("CONVERSATION_DURABILITY", "replicas=0", "durability"),
        ("CONVERSATION_DURABILITY", "replicas", "durability"),
        ("CONVERSATION_DURABILITY", "disk", "durability"),
        ("CONVERSATION_OUTBOX_ITEMS", "0", "outbox_items"),
        ("CONVERSATION_HISTORY_ITEMS", "3", "items"),
        ("CONVERSATION_HISTORY_ITEMS", "many", "items"),
        ("CONVERSATION_HISTORY_BYTES", "10", "bytes"),
        ("CONVERSATION_HISTORY_REQUESTS", "1", "requests"),
    ],
)
def test_mistake_names_field_and_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str
) -> None:
    """Of a group too: the operator has set a variable, not a field."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(InvalidInputError) as refusal:
        Settings()
    assert refusal.value.field == field
    assert f"{field} (environment: {variable}): " in str(refusal.value)


def test_item_leaves_room_for_an_exchange() -> None:
    """A call, its output and what is said about them fit."""
    assert HistoryLimits(item_bytes=1024, bytes=4096).item_bytes == 1024
    with pytest.raises(InvalidInputError, match="item_bytes: 1025 is more than a quarter of bytes") as refusal:
        HistoryLimits(item_bytes=1025, bytes=4096)
    assert refusal.value.field == "item_bytes"


def test_stored_state_outlives_an_idle_owner() -> None:
    """It would expire under an owner that only refreshes it when it writes."""
    assert Settings(idle_timeout=timedelta(seconds=5), ttl=timedelta(seconds=10)).ttl == timedelta(seconds=10)
    with pytest.raises(InvalidInputError, match="less than twice idle_timeout") as refusal:
        Settings(idle_timeout=timedelta(seconds=5), ttl=timedelta(seconds=9))
    assert refusal.value.field == "ttl"


@pytest.mark.parametrize("variable", ["CONVERSATION_HISTORY", "CONVERSATION_TIMEOUTS"])
def test_group_in_one_variable_that_is_not_json_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Somebody's own CONVERSATION_HISTORY must not end in a stack trace of another library."""
    monkeypatch.setenv(variable, "forty")
    with pytest.raises(InvalidInputError, match=variable):
        Settings()


def test_file_that_is_not_utf8_is_a_typed_error(environment: Path) -> None:
    """As any bad input."""
    environment.write_bytes(b"CONVERSATION_TTL=\xff\n")
    with pytest.raises(InvalidInputError, match=r"\.env"):
        Settings()


def test_missing_redis_url_says_how_to_get_one() -> None:
    """One sentence with the variable and the command."""
    with pytest.raises(InvalidInputError, match="CONVERSATION_REDIS_URL, or run `conversation-actors dev`") as refusal:
        Settings().require_redis_url()
    assert refusal.value.field == "redis_url"


# Secrets


def test_password_is_never_shown() -> None:
    """In no form that ends in a log."""
    settings = Settings(redis_url=SecretStr(URL))
    for shown in (repr(settings), str(settings), f"{settings}", repr(settings.redis_url), settings.model_dump_json()):
        assert PASSWORD not in shown
    assert PASSWORD not in repr(settings.model_dump())


@pytest.mark.parametrize(
    "given",
    [
        {"redis_url": URL, "ttl": timedelta(seconds=-1)},
        {"redis_url": URL, "durability": "none"},
        {"redis_url": URL, "idle_timeout": timedelta(days=7)},
        {"redis_url": [URL]},
        {"redis_url": URL.encode() + b"\xff"},
        {"durability": URL},
        {"idle_timeout": URL},
        {"history": URL},
    ],
)
def test_password_is_in_no_error(given: dict[str, Any]) -> None:
    """Not in its text, its traceback, nor its pickled form."""
    with pytest.raises(InvalidInputError) as refusal:
        Settings(**given)
    error = refusal.value
    shown = "".join(traceback.format_exception(error))
    assert PASSWORD not in shown.replace(repr(given), "")
    assert PASSWORD not in str(error)
    assert PASSWORD.encode() not in pickle.dumps(error)


def test_refused_assignment_shows_no_password() -> None:
    """Settings are frozen, and the error about it is silent on the value."""
    with pytest.raises(ValidationError, match="frozen") as refusal:
        Settings().redis_url = SecretStr(URL)
    assert PASSWORD not in str(refusal.value)


@pytest.mark.parametrize("group", GROUPS)
def test_settings_are_frozen(group: type[BaseSettings]) -> None:
    """Built once, passed on."""
    settings = group()
    for name in group.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))


def test_settings_arrive_in_another_process() -> None:
    """With the secret, which the owner needs, and without that process's environment."""
    settings = Settings(redis_url=SecretStr(URL), ttl=timedelta(hours=3))
    twin = pickle.loads(pickle.dumps(settings))
    assert twin == settings
    assert twin.require_redis_url() == URL


def test_settings_are_equal_wherever_they_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set counts, and not by whom."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", URL)
    read, given = Settings(), Settings(redis_url=SecretStr(URL))
    assert read.redis_source != given.redis_source
    assert (read, hash(read)) == (given, hash(given))
    assert read != Settings(redis_url=SecretStr(URL), ttl=timedelta(hours=3))
    assert read != URL


def test_settings_of_an_older_version_are_completed() -> None:
    """An owner that restarts on a newer node is given what its client had pickled: what is new is as by default."""
    settings = Settings(redis_url=SecretStr(URL), ttl=timedelta(hours=3))
    older = pickle.loads(pickle.dumps(settings))
    for name in ("redis_connections", "placement", "read_url"):
        del older.__dict__[name]
    del older.timeouts.__dict__["hang"]
    object.__setattr__(older, "__pydantic_private__", None)
    assert pickle.loads(pickle.dumps(older)) == settings
    assert pickle.loads(pickle.dumps(older)).redis_source == "redis_url="
    assert pickle.loads(pickle.dumps(Settings(redis_url=SecretStr(URL)))).redis_source == "redis_url="


# Derived


@pytest.mark.parametrize(
    ("text", "required"),
    [("redis", (Durability.REDIS, 0)), ("fsync", (Durability.FSYNC, 0)), ("replicas=2", (Durability.REPLICAS, 2))],
)
def test_durability_tells_kind_and_replicas(text: str, required: tuple[Durability, int]) -> None:
    """As the store asks for it."""
    assert Settings(durability=text).required_durability == required


def test_limits_of_the_state_are_those_of_the_settings() -> None:
    """Each of them, under the same name."""
    limits = HistoryLimits(items=9, bytes=8192, item_bytes=1000, request_age=timedelta(minutes=1)).limits()
    assert (limits.items, limits.bytes, limits.item_bytes, limits.request_age) == (9, 8192, 1000, 60.0)


def test_data_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own variable, else the desktop's convention, else the home directory."""
    monkeypatch.setenv("HOME", "/home/me")
    assert data_directory() == Path("/home/me/.local/share/conversation-actors")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_directory() == Path("/data/conversation-actors")
    monkeypatch.setenv("CONVERSATION_DATA_DIR", "~/mine")
    assert data_directory() == Path("/home/me/mine")
