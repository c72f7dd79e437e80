"""The worker's settings: what the environment may say, what is refused, and what is never shown."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from agent_worker.call.welcome import retention
from agent_worker.environment import (
    INSTANCE_VARIABLE,
    child_environment,
    instance_from_environment,
    offline_environment,
)
from agent_worker.lines import Welcome
from agent_worker.settings import (
    CallSettings,
    LanguageModelSettings,
    LiveKitSettings,
    RoomSettings,
    SpeechSettings,
    TakeoverSettings,
    WorkerSettings,
    is_loopback,
)
from conversation_actors import Participant
from conversation_actors.errors import InvalidInputError

MINUTE = timedelta(minutes=1)


def test_the_defaults_hold_together() -> None:
    """An agent is heard several times before it counts as dead; a worker looks more often than that."""
    takeover = TakeoverSettings()
    assert takeover.valid_for >= takeover.heartbeat * 3
    assert takeover.poll_interval < takeover.heartbeat
    assert takeover.poll_interval * 6 <= takeover.valid_for
    assert CallSettings().session_items >= 100
    assert WorkerSettings().host == "127.0.0.1"


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds, ISO 8601, numbers, truths."""
    monkeypatch.setenv("AGENT_TAKEOVER_HEARTBEAT", "0.5")
    monkeypatch.setenv("AGENT_TAKEOVER_ATTEMPTS", "9")
    monkeypatch.setenv("AGENT_GRACE", "PT1M")
    monkeypatch.setenv("AGENT_PARTICIPANT_IDENTITY", "true")
    monkeypatch.setenv("AGENT_MOST_CALLS", "3")
    assert TakeoverSettings().heartbeat == timedelta(seconds=0.5)
    assert TakeoverSettings().attempts == 9
    assert CallSettings().grace == MINUTE
    assert CallSettings().participant_identity
    assert WorkerSettings().most_calls == 3


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("AGENT_TAKEOVER_HEARTBEAT", "soon", "heartbeat"),
        ("AGENT_TAKEOVER_HEARTBEAT", "0", "heartbeat"),
        ("AGENT_TAKEOVER_HEARTBEAT", "1.01", "valid_for"),
        ("AGENT_TAKEOVER_POLL_INTERVAL", "0.51", "poll_interval"),
        ("AGENT_TAKEOVER_ATTEMPTS", "0", "attempts"),
        ("AGENT_TAKEOVER_ATTEMPTS", "101", "attempts"),
    ],
)
def test_takeover_mistakes(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str) -> None:
    """Typed, with the field and its variable; one beat alone would make a pause a death."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError) as error:
        TakeoverSettings()
    assert error.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_RETENTION", ","),
        ("AGENT_RETENTION", "600,300"),
        ("AGENT_RETENTION", "300,soon"),
        ("AGENT_RETENTION", "0"),
        ("AGENT_RETENTION", "[300,"),
        ("AGENT_SESSION_ITEMS", "7"),
        ("AGENT_LINGER", "-1"),
        ("AGENT_GREETING", '{"en": '),
        ("AGENT_GREETING", '{"en": 7}'),
        ("AGENT_GREETING", '{"en": {"a": "b"}}'),
    ],
)
def test_call_mistakes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As above."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError) as error:
        CallSettings()
    assert name.removeprefix("AGENT_").lower() in error.value.field


@pytest.mark.parametrize("value", ["300,600,1800", "PT5M,PT10M,PT30M", " 300, 600 ,1800", "[300, 600, 1800]"])
def test_retention_in_steps(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A list with commas, or as JSON."""
    monkeypatch.setenv("AGENT_RETENTION", value)
    assert CallSettings().retention == (5 * MINUTE, 10 * MINUTE, 30 * MINUTE)


def test_retention_by_default() -> None:
    """Who never came back: 5 minutes; once or twice: 10; more often: 30."""
    people = [Participant(identity="alice", reconnect_count=returns) for returns in range(5)]
    kept = [retention([one], CallSettings().retention) / MINUTE for one in people]
    assert kept == [5, 10, 10, 30, 30]


def test_one_step_of_retention(monkeypatch: pytest.MonkeyPatch) -> None:
    """For everybody."""
    monkeypatch.setenv("AGENT_RETENTION", "300")
    assert CallSettings().retention == (5 * MINUTE,)


@pytest.mark.parametrize(
    ("language", "line"),
    [
        (None, "Hello"),
        ("", "Hello"),
        ("en", "Hello"),
        ("de", "Hallo"),
        ("de-AT", "Servus"),
        ("de-CH", "Hallo"),
        ("fr", "Hello"),
        ("-", "Hello"),
    ],
)
def test_a_line_in_a_language(monkeypatch: pytest.MonkeyPatch, language: str | None, line: str) -> None:
    """The closest there is, else the first."""
    monkeypatch.setenv("AGENT_GREETING", '{"en": "Hello", "de": "Hallo", "de-AT": "Servus"}')
    assert CallSettings().line(Welcome.FIRST, language) == line


def test_one_line_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain text; an empty one, or none at all, says nothing."""
    monkeypatch.setenv("AGENT_WELCOME_BACK", "Hi again, {{you}}")
    monkeypatch.setenv("AGENT_BACK_LINE", "")
    monkeypatch.setenv("AGENT_GREETING", "{}")
    settings = CallSettings()
    assert settings.line(Welcome.BACK, "de") == "Hi again, {you}"
    assert settings.line(Welcome.RESUME, "de") == ""
    assert settings.line(Welcome.FIRST, "de") == ""
    assert settings.line(Welcome.NOTHING, "de") == ""


def test_no_data_message_is_kept_unless_somebody_asks() -> None:
    """Tracks are."""
    assert RoomSettings().tracks
    assert RoomSettings().data_topics == ()
    assert not RoomSettings().keeps("")


@pytest.mark.parametrize(
    "value", ["commands,files.*, seat-?", '["commands", "files.*", "seat-?"]', "commands,,files.*,seat-?,"]
)
def test_topics_of_data_messages(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Named or described, with commas or as JSON; upper and lower case are two topics."""
    monkeypatch.setenv("AGENT_DATA_TOPICS", value)
    settings = RoomSettings()
    assert settings.named_topics == ("commands",)
    wanted = {"commands": True, "files.": True, "files.a.b": True, "seat-3": True}
    others = dict.fromkeys(("", "Commands", "commands2", "file", "seat-33", "seat-"), False)
    assert {topic: settings.keeps(topic) for topic in wanted | others} == wanted | others


@pytest.mark.parametrize("topic", ["lk.chat", "lk.transcription", "lk.agent.session", "lk-chat-topic"])
def test_livekits_own_topics_are_never_kept(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    """Whatever is asked for: what is typed there is in the history, as a message."""
    monkeypatch.setenv("AGENT_DATA_TOPICS", "*")
    assert RoomSettings().keeps("anything")
    assert RoomSettings().keeps("")
    assert not RoomSettings().keeps(topic)
    monkeypatch.setenv("AGENT_DATA_TOPICS", f"commands,{topic}")
    with pytest.raises(InvalidInputError, match="LiveKit's own") as error:
        RoomSettings()
    assert error.value.field == "data_topics"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_TRACKS", "perhaps"),
        ("AGENT_DATA_TOPICS", '["a"'),
        ("AGENT_DATA_TOPICS", "[7]"),
        ("AGENT_DATA_BYTES", "-1"),
    ],
)
def test_room_mistakes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As above."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError) as error:
        RoomSettings()
    assert name.removeprefix("AGENT_").lower() in error.value.field


def test_settings_are_frozen() -> None:
    """Read once, passed on."""
    for settings in (TakeoverSettings(), CallSettings(), WorkerSettings(), LiveKitSettings(), RoomSettings()):
        name = next(iter(type(settings).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))


@pytest.mark.parametrize("missing", ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"])
def test_what_livekit_needs(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """One sentence that names the variable; nothing of what is there."""
    given = {"LIVEKIT_URL": "ws://host", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "very secret"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = LiveKitSettings()
    assert settings.require() == ("ws://host", "key", "very secret")
    assert "very secret" not in repr(settings)
    monkeypatch.setenv(missing, "")
    with pytest.raises(InvalidInputError, match=missing) as error:
        LiveKitSettings().require()
    assert "very secret" not in str(error.value)


def test_keys_are_asked_for_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine needs none."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInputError, match="OPENAI_API_KEY"):
        LanguageModelSettings().require_key()
    with pytest.raises(InvalidInputError, match="DEEPGRAM_API_KEY"):
        SpeechSettings().require_stt_key()
    monkeypatch.setenv("DEEPGRAM_API_KEY", "very secret")
    assert SpeechSettings().require_stt_key() == "very secret"
    assert "very secret" not in repr(SpeechSettings())
    assert not SpeechSettings().is_local
    for name, value in offline_environment("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/listen").items():
        monkeypatch.setenv(name, value)
    assert SpeechSettings().is_local
    assert LanguageModelSettings().require_key() == "offline"


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:1", True),
        ("https://api.openai.com/v1", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("", False),
    ],
)
def test_this_machine(url: str, *, is_ours: bool) -> None:
    """By address, not by looking names up."""
    assert is_loopback(url) is is_ours


def test_the_name_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given by its supervisor, in the environment; the rest of that is inherited."""
    monkeypatch.delenv(INSTANCE_VARIABLE, raising=False)
    assert instance_from_environment() is None
    monkeypatch.setenv("SOMETHING", "else")
    environment = child_environment("w-1", {"ADDED": "x"})
    assert (environment[INSTANCE_VARIABLE], environment["ADDED"], environment["SOMETHING"]) == ("w-1", "x", "else")
    monkeypatch.setenv(INSTANCE_VARIABLE, "w-1")
    assert instance_from_environment() == "w-1"
