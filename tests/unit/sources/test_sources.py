"""Where settings come from: how durations are written, what a file may hold, and what a misspelt name is told."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent_worker.settings import CallSettings, LanguageModelSettings, SpeechSettings
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Settings, Timeouts, data_directory
from conversation_actors.sources import files, spelling

OURS = ("CONVERSATION_", "AGENT_", "REDIS_", "RAY_", "OPENAI_", "DEEPGRAM_")


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Empty the environment, in an empty directory, and forget what was told, as a new process would."""
    import os

    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    spelling.forget()
    yield tmp_path
    spelling.forget()


def refusal() -> str:
    """Return what reading the settings is refused with, which is one sentence."""
    with pytest.raises(InvalidInputError) as refused:
        Settings()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("45s", 45),
        ("5m", 300),
        (" 5m ", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("0.5h", 1800),
        ("7d", 604_800),
        ("1d2h3m4s5ms", 93_784.005),
        ("PT5M", 300),
        ("P7D", 604_800),
    ],
)
def test_a_duration_is_written_as_people_write_it(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """Seconds, numbers with units from the largest to the smallest, or ISO 8601."""
    monkeypatch.setenv("CONVERSATION_TIMEOUT_COMMAND", text)
    assert Timeouts().command == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["soon", "5 minutes", "5x", "m", "30m1h", "1h1h", "5m30", "1e5", "nan", "9" * 30, "P", "5µs"]
)
def test_a_refused_duration_names_the_forms_that_are_allowed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Nobody has to know another library's parser."""
    monkeypatch.setenv("CONVERSATION_TTL", text)
    expected = "ttl (environment: CONVERSATION_TTL): must be a duration such as 300, 1.5, 500ms, 5m, 1h30m, 7d or PT5M"
    assert refusal() == expected


@pytest.mark.parametrize("text", ["0", "-5", "0m", "-PT5S", "PT0S"])
def test_a_duration_is_longer_than_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """That it was read is told apart from that it is too short."""
    monkeypatch.setenv("CONVERSATION_TTL", text)
    assert refusal() == "ttl (environment: CONVERSATION_TTL): must be longer than zero"


# What a mistake is told


@pytest.mark.parametrize("text", ["disk", "replicas", "replicas=0", "replicas=100", "Redis"])
def test_a_refused_durability_names_those_there_are(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """And shows nobody a regular expression."""
    monkeypatch.setenv("CONVERSATION_DURABILITY", text)
    expected = "durability (environment: CONVERSATION_DURABILITY): must be redis, fsync or replicas=N (N from 1 to 99)"
    assert refusal() == expected


@pytest.mark.parametrize("text", ["a b", "-x", "x" * 65])
def test_a_refused_tenant_says_what_a_name_may_hold(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """In words, too."""
    monkeypatch.setenv("CONVERSATION_TENANT", text)
    assert refusal().startswith("tenant (environment: CONVERSATION_TENANT): must be 1 to 64 letters, digits")


def test_a_mistake_names_the_file_it_came_from(directory: Path) -> None:
    """Not the environment, where nobody would find it."""
    (directory / ".env").write_text("CONVERSATION_TTL=soon\n")
    assert refusal().startswith("ttl (.env: CONVERSATION_TTL): ")
    (directory / ".env.local").write_text("CONVERSATION_TTL=later\n")
    assert refusal().startswith("ttl (.env.local: CONVERSATION_TTL): ")


def test_a_mistake_in_a_part_names_the_whole_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no variable for the second of four durations."""
    monkeypatch.setenv("AGENT_RETENTION", "300,soon")
    with pytest.raises(InvalidInputError, match=r"^retention\.1 \(environment: AGENT_RETENTION\): must be a duration "):
        CallSettings()


def test_the_models_settings_are_refused_with_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other library's error leaves a group of settings."""
    with pytest.raises(InvalidInputError, match=r"^model \(environment: OPENAI_MODEL\): "):
        LanguageModelSettings(model="")
    with pytest.raises(InvalidInputError, match=r"^tts_voice \(environment: OPENAI_TTS_VOICE\): "):
        SpeechSettings(tts_voice="")


def test_a_variable_of_another_program_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field's own name is no variable."""
    for name in ("MODEL", "BASE_URL", "API_KEY", "STT_MODEL", "TTS_VOICE"):
        monkeypatch.setenv(name, "of-another-program")
    model, speech = LanguageModelSettings(), SpeechSettings()
    assert (model.model, model.api_key, speech.stt_model, speech.tts_voice) == ("gpt-4.1", None, "nova-3", "ash")
    assert "of-another-program" not in model.base_url


# Empty


@pytest.mark.parametrize("text", ["", "  "])
@pytest.mark.parametrize(
    "name", ["CONVERSATION_TTL", "CONVERSATION_TIMEOUT_OPEN", "CONVERSATION_REDIS_URL", "REDIS_URL"]
)
def test_empty_counts_as_unset(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, text: str) -> None:
    """In the environment and in a file."""
    monkeypatch.setenv(name, text)
    from_environment = Settings()
    monkeypatch.delenv(name)
    (directory / ".env").write_text(f'{name}="{text}"\n')
    settings = Settings()
    assert settings == from_environment
    assert (settings.ttl, settings.timeouts.open, settings.redis_url) == (timedelta(days=7), timedelta(minutes=1), None)


def test_what_is_empty_leaves_the_word_to_the_next(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """To the file behind the environment, and to the usual name behind our own."""
    (directory / ".env").write_text("CONVERSATION_TTL=1000\n")
    monkeypatch.setenv("CONVERSATION_TTL", "")
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL", "redis://usual")
    assert Settings().ttl == timedelta(seconds=1000)
    assert Settings().require_redis_url() == "redis://usual"


def test_a_line_that_is_empty_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only settings in which an empty text is a value: who wants to have nothing said."""
    assert CallSettings().back_line
    monkeypatch.setenv("AGENT_BACK_LINE", "")
    assert CallSettings().back_line == {"": ""}


# Files


def test_the_data_directory_may_be_named_in_a_file(directory: Path) -> None:
    """As any setting."""
    (directory / ".env").write_text("CONVERSATION_DATA_DIR=here/data\n")
    assert data_directory() == Path("here/data")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"CONVERSATION_TTL=1000\n\n\nthis is no line\n", "line 4: not NAME=value"),
        (b'A=1\nB="no end\nC=2\n', "line 2: not NAME=value"),
        (b"A=1\nCONVERSATION_TTL\n", "CONVERSATION_TTL has no value; write CONVERSATION_TTL=…"),
        (b"A=1\r\nB=2\r\nC=\xff\r\n", "line 3: not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", [".env", ".env.local"])
def test_a_malformed_file_is_one_sentence_with_its_line(
    directory: Path, caplog: pytest.LogCaptureFixture, name: str, content: bytes, told: str
) -> None:
    """And no other library says anything beside."""
    (directory / name).write_bytes(content)
    assert refusal() == f"{directory / name}: {told}"
    assert not caplog.records


def test_a_directory_is_no_file(directory: Path) -> None:
    """Docker makes one where it is to mount a file that is not there; what should be in it is missing."""
    (directory / ".env").mkdir()
    assert refusal() == f"{directory / '.env'}: is a directory, and should be a file of NAME=value lines"


def test_a_virtual_environment_may_be_called_so(directory: Path) -> None:
    """Many are; nobody means it to hold settings."""
    (directory / ".env").mkdir()
    (directory / ".env" / "pyvenv.cfg").touch()
    assert Settings().ttl == timedelta(days=7)


def test_a_file_that_cannot_be_read_says_why(directory: Path) -> None:
    """Whatever the system says; a link to itself, which root cannot read either."""
    (directory / ".env").symlink_to(".env")
    assert refusal().startswith(f"{directory / '.env'}: cannot be read (")


def test_a_file_is_read_as_before(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Comments, quotes, exports, and variables inside of values."""
    monkeypatch.setenv("SECRET", "s3cret")
    (directory / ".env").write_text(
        "# ours\nexport CONVERSATION_REDIS_URL=\"redis://:${SECRET}@db\"  # a comment\nconversation_ttl='PT1H'\nOTHER\n"
    )
    assert Settings().require_redis_url() == "redis://:s3cret@db"
    assert Settings().ttl == timedelta(hours=1)


# Redis by its parts


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({"HOST": "db"}, "redis://db:6379/0"),
        ({"HOST": "db", "PORT": "6380", "PASSWORD": "p@ss/w:rd"}, "redis://:p%40ss%2Fw%3Ard@db:6380/0"),
        ({"HOST": "db", "USERNAME": "app", "PASSWORD": "x", "DB": "2", "SSL": "true"}, "rediss://app:x@db:6379/2"),
        ({"HOST": "::1"}, "redis://[::1]:6379/0"),
        ({"HOST": "db", "PORT": "tcp://10.0.0.7:6381"}, "redis://db:6381/0"),
        ({"HOST": "db", "PORT": "", "PASSWORD": ""}, "redis://db:6379/0"),
    ],
)
def test_redis_may_be_named_by_its_parts(
    monkeypatch: pytest.MonkeyPatch, directory: Path, parts: dict[str, str], url: str
) -> None:
    """Where no URL is given; Kubernetes sets REDIS_PORT to tcp://…, where a service is called redis."""
    for name, value in parts.items():
        monkeypatch.setenv(f"REDIS_{name}", value)
    assert Settings().require_redis_url() == url
    assert Settings().redis_source == "REDIS_HOST"
    (directory / ".env").write_text("CONVERSATION_REDIS_URL=redis://own\n")
    assert Settings().require_redis_url() == "redis://own"


def test_parts_without_a_host_are_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port alone is in every pod beside a service called redis; it may even be no number."""
    monkeypatch.setenv("REDIS_PORT", "many")
    monkeypatch.setenv("REDIS_PASSWORD", "x")
    assert Settings().redis_url is None


@pytest.mark.parametrize(("name", "value"), [("PORT", "many"), ("PORT", "70000"), ("DB", "-1"), ("SSL", "perhaps")])
def test_a_wrong_part_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """By its variable."""
    monkeypatch.setenv("REDIS_HOST", "db")
    monkeypatch.setenv(f"REDIS_{name}", value)
    assert refusal().startswith(f"{name.lower()} (environment: REDIS_{name}): ")


@pytest.mark.parametrize("host", ["redis://db:6379", "db:6379", "db 1", "user@db"])
def test_a_host_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A URL belongs in REDIS_URL."""
    monkeypatch.setenv("REDIS_HOST", host)
    told = refusal()
    assert told.startswith("host (environment: REDIS_HOST): must be a host's name or address")
    assert ("REDIS_URL" in told) == (":" in host)


def test_the_source_of_the_url_is_known(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """To whoever has to change it."""
    assert Settings(redis_url="redis://given").redis_source == "redis_url="
    (directory / ".env").write_text("REDIS_URL=redis://file\n")
    assert Settings().redis_source == "REDIS_URL in .env"
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://own")
    assert Settings().redis_source == "CONVERSATION_REDIS_URL"


# Misspelt names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CONVERSATION_DURABILTY", "CONVERSATION_DURABILITY"),
        ("CONVERSATION_WRITE_TIMEOUT", "CONVERSATION_TIMEOUT_WRITE"),
        ("CONVERSATION_TIMEOUTS_WRITE", "CONVERSATION_TIMEOUT_WRITE"),
        ("CONVERSATION_REDIS", "CONVERSATION_REDIS_URL"),
        ("CONVERSATION_HISTORY_ITEM", "CONVERSATION_HISTORY_ITEMS"),
        ("CONVERSATON_REDIS_URL", "CONVERSATION_REDIS_URL"),
        ("AGENT_GREETNG", "AGENT_GREETING"),
        ("AGENT_TAKEOVER_HEARTBEATS", "AGENT_TAKEOVER_HEARTBEAT"),
        ("AGENTS_GREETING", "AGENT_GREETING"),
        ("AGENT_HELTH_PORT", "AGENT_HEALTH_PORT"),
    ],
)
def test_a_misspelt_name_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, meant: str
) -> None:
    """With the nearest one; it is no error, as it may be somebody else's."""
    monkeypatch.setenv(name, "1")
    for _ in range(2):
        Settings()
        CallSettings()
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [(logging.WARNING, f"{name} (environment) is no setting, and is ignored; did you mean {meant}?")]


def test_a_misspelt_name_in_a_file_is_told_too(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the file."""
    (directory / ".env").write_text("CONVERSATION_DURABILTY=fsync\n")
    Settings()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "CONVERSATION_DURABILTY (.env) is no setting, and is ignored; did you mean CONVERSATION_DURABILITY?"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "CONVERSATION_TTL",
        "CONVERSATION_HISTORY_BYTES",
        "CONVERSATION_HISTORY",
        "CONVERSATION_POOL_MINIMUM",
        "CONVERSATION_DATA_DIR",
        "CONVERSATION_ID",
        "AGENT_WORKER_INSTANCE",
        "AGENT_WORKER_REGISTRATION",
        "AGENT_TAKEOVER_RETRY",
        "AGENT_NAME",
        "AGENT_HOSTNAME",
        "CONVERSION_RATE",
        "CONVERSATION_API_URL",
        "AGENT",
        "AGENT_ID",
        "AGENT_SESSION_ID",
        "AGENT_SESSION_TOKEN",
        "AGENT_TRACE",
        "AGENT_HOMEDIRECTORY",
        "AGENT_LOG_LEVEL",
    ],
)
def test_other_names_are_no_news(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Those of other groups, our own that are no settings, and what is like none of ours."""
    monkeypatch.setenv(name, {"CONVERSATION_HISTORY": "{}", "CONVERSATION_HISTORY_BYTES": "700000"}.get(name, "1000"))
    Settings()
    CallSettings()
    assert not caplog.records


def test_what_kubernetes_sets_for_a_service_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In each pod, seven variables for a service, which may well be called conversation-redis, or agent."""
    for service in ("CONVERSATION_REDIS", "CONVERSATION_RAY_HEAD", "AGENT", "AGENT_HEALTH", "CONVERSATION_READ"):
        port = f"{service}_PORT_6379_TCP"
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.7")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "6379")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_REDIS", "6379")
        if service not in {"AGENT", "AGENT_HEALTH"}:
            monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.7:6379")
        for name in (port, f"{port}_PROTO", f"{port}_PORT", f"{port}_ADDR"):
            monkeypatch.setenv(name, "6379")
    Settings()
    CallSettings()
    assert not caplog.records


def test_a_name_is_told_once_however_many_settings_are_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package that is imported later may have a nearer one."""
    monkeypatch.setenv("CONVERSATION_DURABILTY", "fsync")
    for nearest in ("CONVERSATION_DURABILITY", "CONVERSATION_DURABLE"):
        spelling.warn("CONVERSATION_DURABILTY", "environment", nearest)
    assert len(caplog.records) == 1


# What it costs


def test_settings_are_cheap_to_read(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """A job makes several: what was found out once about a file, and about names, is not found out again."""
    (directory / ".env").write_text("CONVERSATION_TTL=1000\nCONVERSATION_DURABILTY=fsync\n")
    assert Settings().ttl == timedelta(seconds=1000)
    costs = []
    for module, name in ((files, "parse_stream"), (files, "dotenv_values"), (spelling, "SequenceMatcher")):
        monkeypatch.setattr(module, name, lambda *_, **__: costs.append("again"))
    assert Settings().ttl == timedelta(seconds=1000)
    assert not costs
    monkeypatch.undo()
    monkeypatch.chdir(directory)
    (directory / ".env").write_text("CONVERSATION_TTL=2000\n")
    assert Settings().ttl == timedelta(seconds=2000)


def test_what_a_file_takes_from_the_environment_is_read_anew(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Though the file is the same."""
    (directory / ".env").write_text("REDIS_URL=redis://${PLACE}\n")
    for place in ("here", "there"):
        monkeypatch.setenv("PLACE", place)
        assert Settings().require_redis_url() == f"redis://{place}"


def test_a_directory_that_is_gone_has_no_files(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """A process may outlive the directory that it was started in."""
    gone = directory / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Settings().ttl == timedelta(days=7)
