"""The worker's settings, read once from the environment; the vendors' under the names their plugins use.

The project's own have the prefix ``AGENT_``. Durations: ``300``, ``1.5``, ``500ms``, ``5m``, ``1h30m``, ``PT5M``.
A ``.env`` file is read too, and ``.env.local`` after it, as LiveKit's starter has it.
"""

import ipaddress
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, model_validator

from agent_worker.lines import Welcome, filled, in_language
from agent_worker.setting_types import LIVEKITS_TOPICS, Lines, Steps, Topics
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import Duration, SettingsGroup, settings_config

AGENT_NAME = "conversation-agent"
_DESCRIBING = frozenset("*?[")
_LIVEKIT_SCHEMES = frozenset({"ws", "wss", "http", "https"})


class LanguageModelSettings(SettingsGroup):
    """Which language model is spoken to (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``, ``OPENAI_MODEL``, or ``.env``)."""

    model_config = settings_config("OPENAI_")

    base_url: str = "https://api.openai.com/v1"
    """The server's address; any server that speaks OpenAI's API will do."""
    api_key: SecretStr | None = None
    """The account's key; a server on this machine needs none."""
    model: str = Field(default="gpt-4.1", min_length=1)
    """The model's name."""

    def require_key(self) -> str:
        """Return the key to send. A server on this machine needs none; for any other a missing key is an error."""
        return _require_key(self.api_key, self.base_url, "OPENAI_API_KEY", "OPENAI_BASE_URL")


class SpeechSettings(SettingsGroup):
    """How the agent hears and speaks: Deepgram (``DEEPGRAM_…``) and OpenAI's voices (``OPENAI_TTS_…``)."""

    model_config = settings_config("DEEPGRAM_")

    stt_url: str = Field(
        default="https://api.deepgram.com/v1/listen", validation_alias=AliasChoices("DEEPGRAM_BASE_URL")
    )
    """The address of the server that recognises speech."""
    stt_key: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DEEPGRAM_API_KEY"))
    """The account's key; a server on this machine needs none."""
    stt_model: str = Field(default="nova-3", min_length=1, validation_alias=AliasChoices("DEEPGRAM_MODEL"))
    """The model that recognises speech."""
    stt_language: str = Field(default="en-US", min_length=1, validation_alias=AliasChoices("DEEPGRAM_LANGUAGE"))
    """The language that is spoken."""
    tts_model: str = Field(default="gpt-4o-mini-tts", min_length=1, validation_alias=AliasChoices("OPENAI_TTS_MODEL"))
    """The model that speaks, on the same server as the language model."""
    tts_voice: str = Field(default="ash", min_length=1, validation_alias=AliasChoices("OPENAI_TTS_VOICE"))
    """The voice."""

    def require_stt_key(self) -> str:
        """Return the key for speech recognition. A server on this machine needs none."""
        return _require_key(self.stt_key, self.stt_url, "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL")

    @property
    def is_local(self) -> bool:
        """Whether speech is recognised by a server on this machine, such as the offline one."""
        return is_loopback(self.stt_url)


class LiveKitSettings(SettingsGroup):
    """Where LiveKit is, and the right to use it (``LIVEKIT_URL``, ``LIVEKIT_API_KEY``, ``LIVEKIT_API_SECRET``)."""

    model_config = settings_config("LIVEKIT_")

    url: str | None = None
    """The LiveKit server: ``ws://127.0.0.1:7880``, ``wss://…``."""
    api_key: str | None = None
    """The key that names who asks the server."""
    api_secret: SecretStr | None = None
    """The secret that belongs to the key."""
    agent_name: str = Field(default=AGENT_NAME, min_length=1, max_length=128)
    """The name by which rooms ask for an agent. A name that your own server gives wins. If the server gives none, this
    one holds if the variable is set."""

    @property
    def given_agent_name(self) -> str:
        """The agent's name where somebody gave one; empty where it is only the default."""
        return self.agent_name if "agent_name" in self.model_fields_set else ""

    def require(self) -> tuple[str, str, str]:
        """URL, key and secret. Raises `InvalidInputError`, one sentence, for one that is missing, or is no URL."""
        secret = self.api_secret.get_secret_value() if self.api_secret else ""
        given = {"LIVEKIT_URL": self.url, "LIVEKIT_API_KEY": self.api_key, "LIVEKIT_API_SECRET": secret}
        for name, value in given.items():
            if not value:
                message = f"{name.removeprefix('LIVEKIT_').lower()}: set {name} to use a LiveKit server"
                raise InvalidInputError(message, field=name.removeprefix("LIVEKIT_").lower())
        _check_livekit_url(self.url or "")
        return self.url or "", self.api_key or "", secret


def _check_livekit_url(url: str) -> None:
    """Refuse what no worker could ever connect to; a password in it is not repeated."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in _LIVEKIT_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        given = "" if "@" in url else f", and is {url!r}"
        message = f"url: LIVEKIT_URL has to be a URL such as ws://127.0.0.1:7880 or wss://example.livekit.cloud{given}"
        raise InvalidInputError(message, field="url")


class TakeoverSettings(SettingsGroup):
    """When an agent counts as dead, and what is done about it (``AGENT_TAKEOVER_…``)."""

    model_config = settings_config("AGENT_TAKEOVER_")

    heartbeat: Duration = timedelta(seconds=0.75)
    """How often an agent shows that it is alive."""
    valid_for: Duration = timedelta(seconds=3)
    """How long a heartbeat is believed if no other one follows; at least three times `AGENT_TAKEOVER_HEARTBEAT`, so
    that one may get lost. An agent whose event loop pauses longer loses the call; a pause of Redis costs no call."""
    poll_interval: Duration = timedelta(seconds=0.25)
    """How often a worker looks for agents whose heartbeat stopped; at least six times while one is believed. Redis may
    take a sixth of that time to answer: if it takes longer, nobody is found."""
    retry: Duration = timedelta(seconds=3)
    """How long a dispatched successor may take before another is dispatched; doubled with each attempt."""
    attempts: int = Field(default=6, ge=1, le=100)
    """Successors dispatched for one call without progress, before it is given up."""
    progress: Duration = timedelta(seconds=20)
    """A successor that lived for this long made progress: attempts after it count from one again."""
    handover: Duration = timedelta(seconds=20)
    """How long a planned handover waits for the speaker to finish."""

    @model_validator(mode="after")
    def _several_beats(self) -> Self:
        if self.valid_for < self.heartbeat * 3:
            message = f"valid_for: {self.valid_for} is less than three heartbeats ({self.heartbeat})"
            raise InvalidInputError(message, field="valid_for")
        if self.poll_interval * 6 > self.valid_for:
            message = f"poll_interval: {self.poll_interval} is more than a sixth of valid_for ({self.valid_for})"
            raise InvalidInputError(message, field="poll_interval")
        return self


class CallSettings(SettingsGroup):
    """How an agent behaves in a call (``AGENT_…``)."""

    model_config = settings_config("AGENT_")

    open_timeout: Duration = timedelta(seconds=5)
    """How long a job waits for the conversation before it starts without it; the conversation joins the job later."""
    grace: Duration = timedelta(seconds=30)
    """Somebody who comes back within this time has not been away: no second greeting."""
    linger: Duration = timedelta(seconds=20)
    """How long an agent stays in a room that the last person has left."""
    retention: Steps = (
        timedelta(minutes=5),
        timedelta(minutes=10),
        timedelta(minutes=10),
        timedelta(minutes=30),
    )
    """How long a conversation is kept after its last use: for callers who never came back, who came back
    once, twice, … (the last one for all above)."""
    session_items: int = Field(default=200, ge=8, le=10_000)
    """Items kept in the session's own history and in the agent's context, system messages not counted: cut to three
    quarters when it is near that."""
    participant_identity: bool = False
    """Whether a participant's attribute ``conversation_id`` may name the conversation. Only attributes that
    the participant cannot change itself are believed."""
    greeting: Lines = Field(default_factory=dict)
    """Said once to somebody who is here for the first time; empty: nothing, an agent greets by itself. One sentence, or
    JSON by language: ``{"en": "…", "de": "…"}``. ``{name}`` and ``{visits}`` in it stand for what the person is called
    and how often they have come (``{{`` for a brace). The example has lines of its own."""
    welcome_back: Lines = Field(default_factory=dict)
    """Said once to somebody who comes back after having been away; empty: nothing."""
    back_line: Lines = Field(default_factory=lambda: {"": "Sorry, I'm back."})
    """Said by an agent that took a call over from a dead one; empty: nothing."""
    farewell: Lines = Field(default_factory=dict)
    """Said once before the application ends a call while somebody is still in it; empty: nothing."""

    def line(self, wanted: Welcome, language: str | None, *, name: str = "", visits: int = 1) -> str:
        """Return what to say to an arrival, in its language if there is a line in it (``de`` is good for ``de-AT``)."""
        lines = {Welcome.FIRST: self.greeting, Welcome.BACK: self.welcome_back, Welcome.RESUME: self.back_line}
        return filled(in_language(lines.get(wanted, {}), language), name=name, visits=visits)

    def farewell_line(self, language: str | None, *, name: str = "", visits: int = 1) -> str:
        """Return what to say to somebody at the end, in the same way."""
        return filled(in_language(self.farewell, language), name=name, visits=visits)


class ContentSettings(SettingsGroup):
    """What is kept of what is said and shown in a call (``AGENT_…``)."""

    model_config = settings_config("AGENT_")

    context_edits: Literal["follow", "keep"] = "follow"
    """``follow``: what is taken out of an agent's context, or changed there, is taken out of the conversation, and of
    Redis; ``keep``: it stays, and only the agent forgets it."""
    image_pixels: int = Field(default=1024, ge=64, le=4096)
    """The longer edge of a picture that is kept."""
    image_bytes: int = Field(default=48 << 10, ge=4 << 10, le=1 << 20)
    """A picture that is kept, as base64. All of a history has `CONVERSATION_HISTORY_BYTES`, a message with its pictures
    `CONVERSATION_HISTORY_ITEM_BYTES`."""


class ToolSettings(SettingsGroup):
    """What becomes of a tool whose call is not durable yet (``AGENT_UNRECORDED_TOOLS…``)."""

    model_config = settings_config("AGENT_")

    unrecorded_tools: Literal["wait", "refuse", "run"] = "wait"
    """``wait``: the tool waits until its call is durable, and is refused if that takes too long. ``refuse``: the tool
    is refused unless its call is durable within a second. ``run``: after a second the tool runs, whatever became of
    its call; then a successor may find no trace of the call, and run the tool again."""
    unrecorded_tools_wait: Duration = timedelta(seconds=5)
    """How long ``wait`` lasts."""


class RoomSettings(SettingsGroup):
    """What is kept of a room beside who is there and what is said (``AGENT_TRACKS``, ``AGENT_DATA_…``)."""

    model_config = settings_config("AGENT_")

    tracks: bool = True
    """Whether each participant's open microphone, camera and screen are recorded: a write for each change."""
    data_topics: Topics = ()
    """Topics whose data messages are kept in the history, with ``*`` and ``?`` and ``[…]`` as in file names; never
    LiveKit's own (``lk.…``). Streams come only for topics that are named here, or that the application reads."""
    data_bytes: int = Field(default=8 << 10, ge=0, le=4 << 20)
    """Bytes of a data message that are kept. Of a larger one, only its size and its digest are kept."""

    def keeps(self, topic: str) -> bool:
        """Return whether data messages of this topic are kept."""
        is_livekits = topic.startswith(LIVEKITS_TOPICS)
        return not is_livekits and any(fnmatchcase(topic, pattern) for pattern in self.data_topics)

    @property
    def named_topics(self) -> tuple[str, ...]:
        """The topics that are named, and not described."""
        return tuple(topic for topic in self.data_topics if not _DESCRIBING.intersection(topic))


class WorkerSettings(SettingsGroup):
    """The worker process (``AGENT_…``)."""

    model_config = settings_config("AGENT_")
    also_known: ClassVar = ("AGENT_WORKER_INSTANCE", "AGENT_WORKER_REGISTRATION")

    idle_processes: int = Field(default=1, ge=0, le=64)
    """Job processes kept ready, each connected to Ray: a call taken over starts in half a second."""
    job_threshold: float = Field(default=0.9, gt=0.0, le=1.0)
    """Load from which no more calls are taken in production. The load is that of the CPU, or see ``AGENT_MOST_CALLS``.
    Your own server has its own."""
    most_calls: int | None = Field(default=None, ge=1, le=1000)
    """If given, the load is the number of calls divided by this number, whatever else the machine does. The same
    holds for your own server, unless it has a ``load_fnc``."""
    host: str = "127.0.0.1"
    """Interface of the health endpoint and of the page."""
    port: int = Field(default=8081, ge=0, le=65535)
    """LiveKit's own health endpoint in production, of a server of ours; in development a free port."""
    health_port: int = Field(default=8082, ge=0, le=65535)
    """``/health``: whether Ray, Redis and LiveKit can be reached. In development a free port."""
    page_port: int = Field(default=8080, ge=0, le=65535)
    """The caller's page in development; 0: a free port."""
    open_tokens: bool = False
    """Whether the page's token endpoint answers everybody who can reach it, without the key in its address."""
    drain: Duration = timedelta(hours=1)
    """How long calls that no other worker takes may go on after SIGTERM."""


class LogFormat(StrEnum):
    """What a log line looks like."""

    TEXT = "text"
    JSON = "json"


class LogSettings(SettingsGroup):
    """The log lines of the worker's commands (``AGENT_LOG_…``)."""

    model_config = settings_config("AGENT_LOG_")

    format: LogFormat | None = None
    """``text`` or ``json``, one object a line; without it ``json`` in production, else ``text``."""


def _require_key(key: SecretStr | None, url: str, key_variable: str, url_variable: str) -> str:
    if key is not None and key.get_secret_value():
        return key.get_secret_value()
    if is_loopback(url):
        return "offline"
    message = (
        f"api_key: no key for {urlsplit(url).hostname}: set {key_variable}, or use --offline, which needs no account, "
        f"or point {url_variable} at a server on this machine"
    )
    raise InvalidInputError(message, field="api_key")


def is_loopback(url: str) -> bool:
    """Return whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
