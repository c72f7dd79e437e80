"""Settings, read once at the edge of a process and passed on; only this module and `sources` read the environment.

Every field can be given as a keyword, as an environment variable (prefix ``CONVERSATION_``) or in a ``.env.local`` or
``.env`` file; the first of these counts. Empty counts as unset. Durations: ``300``, ``500ms``, ``5m``, ``PT5M``.
docs/settings.md lists all settings.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from urllib.parse import quote

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PrivateAttr, SecretStr, model_validator

from conversation_actors.destinations import ONLY_NAME, Destination, Destinations, Events, Secrets, Url, origin_of
from conversation_actors.errors import InvalidInputError
from conversation_actors.sources import Duration, OrderedSettings, SettingsGroup, settings_config
from conversation_actors.sources.groups import ENVIRONMENT, all_names, origin
from conversation_actors.state import Limits
from conversation_actors.state.facts import MIN_REQUESTS

__all__ = [
    "DEFAULT_TENANT",
    "ArchiveSettings",
    "BackendSettings",
    "DevelopmentSettings",
    "Direct",
    "Durability",
    "Duration",
    "HistoryLimits",
    "OrderedSettings",
    "PoolSettings",
    "RedisServer",
    "SessionSettings",
    "Settings",
    "SettingsGroup",
    "Tenant",
    "Timeouts",
    "WebhookSettings",
    "all_names",
    "data_directory",
    "quick_crash_detection",
    "settings_config",
]


class Durability(StrEnum):
    """What an acknowledgement means, beyond "the server's memory has it"."""

    REDIS = "redis"
    FSYNC = "fsync"
    REPLICAS = "replicas"


class Placement(StrEnum):
    """The nodes on which owners start."""

    SPREAD = "spread"
    PACK = "pack"


class Direct(StrEnum):
    """Whether clients and owners talk by lines of their own."""

    AUTO = "auto"
    OFF = "off"


class HistoryLimits(SettingsGroup):
    """Bounds of what one conversation may hold (``CONVERSATION_HISTORY_…``). Bytes are of the stored form.

    Example:
        Settings(history=HistoryLimits(items=500, bytes=4 << 20))
    """

    model_config = settings_config("CONVERSATION_HISTORY_")

    items: int = Field(default=200, ge=4, le=100_000)
    """Items in the window."""
    bytes: int = Field(default=1 << 20, ge=4096, le=64 << 20)
    """Bytes in the window."""
    item_bytes: int = Field(default=128 << 10, ge=512, le=16 << 20)
    """Bytes of one item. At most a quarter of `bytes`, so that a call and its output always fit."""
    attributes_bytes: int = Field(default=256 << 10, ge=512, le=4 << 20)
    """Bytes of all shared attributes together."""
    participant_bytes: int = Field(default=16 << 10, ge=512, le=1 << 20)
    """Bytes of one participant."""
    participants: int = Field(default=100, ge=1, le=10_000)
    """Participants remembered; the one that left longest ago is forgotten first."""
    leases: int = Field(default=32, ge=1, le=1000)
    """Leases held at one time."""
    requests: int = Field(default=1000, ge=MIN_REQUESTS, le=100_000)
    """Requests remembered, so that a repeat returns the first result."""
    request_age: Duration = timedelta(minutes=15)
    """How long a request is remembered."""

    def limits(self) -> Limits:
        """Return the same bounds, for the state."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Limits(**{**values, "request_age": self.request_age.total_seconds()})

    @model_validator(mode="after")
    def _an_exchange_fits(self) -> Self:
        if self.item_bytes * 4 > self.bytes:
            message = f"item_bytes: {self.item_bytes} is more than a quarter of bytes ({self.bytes})"
            raise InvalidInputError(message, field="item_bytes")
        return self


class Timeouts(SettingsGroup):
    """How long anything may take (``CONVERSATION_TIMEOUT_…``).

    Example:
        Settings(timeouts=Timeouts(command=timedelta(seconds=10)))
    """

    model_config = settings_config("CONVERSATION_TIMEOUT_")

    command: Duration = timedelta(seconds=30)
    """A handle's call, with all its repeats across crashes, until the caller gets an error."""
    open: Duration = timedelta(seconds=60)
    """`client.open`: a cold start of a worker process on a busy machine takes seconds."""
    write: Duration = timedelta(seconds=5)
    """How long the owner lets a caller wait for Redis before it answers with a retryable error."""
    attempt: Duration = timedelta(seconds=15)
    """One remote call to the actor before the handle asks again."""
    redis: Duration = timedelta(seconds=2)
    """One Redis command, and one Redis connect."""
    connect: Duration = timedelta(seconds=30)
    """Joining the Ray cluster."""
    close: Duration = timedelta(seconds=10)
    """Sending what is still in the outbox when a client closes."""
    poll: Duration = timedelta(seconds=25)
    """A long poll that brings nothing; randomised by a fifth, so that handles do not come in step."""
    hang: Duration = timedelta(seconds=10)
    """An owner's process that gives no sign of life for so long, while somebody waits for it, is replaced."""


class PoolSettings(SettingsGroup):
    """Workers kept ready on each node (``CONVERSATION_POOL_…``). The first client's settings hold for the cluster.

    Example:
        Settings(pool=PoolSettings(maximum=0))  # no workers ahead of time
    """

    model_config = settings_config("CONVERSATION_POOL_")

    minimum: int = Field(default=2, ge=0, le=1000)
    """How many, while no conversation is opened."""
    maximum: int = Field(default=16, ge=0, le=1000)
    """How many at most, while many conversations are opened: as many more as in the last ten seconds. 0: no pool."""
    keep_alive: Duration = timedelta(minutes=10)
    """A worker that nobody took for this long ends. Another one takes its place if it was among the minimum."""


class ArchiveSettings(SettingsGroup):
    """Where the whole record of every conversation goes (``CONVERSATION_ARCHIVE_…``).

    Example:
        Settings(archive=ArchiveSettings(url=SecretStr("postgresql+psycopg://user:password@db.internal/conversations")))
    """

    model_config = settings_config("CONVERSATION_ARCHIVE_")

    url: SecretStr | None = None
    """``postgresql+psycopg://user:password@host/database`` or ``sqlite+aiosqlite:///path``. Without it, what leaves the
    window is gone. With it, all that is acknowledged waits in Redis until `conversation-actors archive` has it."""
    timeout: Duration = timedelta(seconds=2)
    """What a client waits for the archive's database to answer: for a page of the history, or when it opens a
    conversation that Redis does not have. The archiver itself waits longer."""
    required: bool = False
    """Whether a conversation that Redis does not have can be opened only while the archive answers. If not, and the
    archive does not answer in time, a new conversation begins under the id."""
    retention: Duration | None = None
    """How long the archive keeps a conversation after its last entry; for ever if it is not set."""
    backlog_bytes: int = Field(default=16 << 20, ge=64 << 10, le=256 << 20)
    """Bytes of one conversation's entries that wait in Redis for the archive at most. Beyond it the oldest are given
    up, and the archive keeps an entry about the gap."""
    backlog_age: Duration = timedelta(days=30)
    """How long they wait in Redis after the conversation's last entry."""
    picture_bytes: int = Field(default=32 << 10, ge=1 << 10, le=16 << 20)
    """Pictures that take this much as base64, or more, are kept in the archive, and only named in the history."""


class WebhookSettings(SettingsGroup):
    """Where what happens in calls is sent (``CONVERSATION_WEBHOOK_…``). Clients and owners do not read these."""

    model_config = settings_config("CONVERSATION_WEBHOOK_")

    url: Url | None = None
    """The endpoint, ``https://host/path``. It is called `default`."""
    secret: Secrets = ()
    """``whsec_`` and base64. Several, with commas between them, while one takes the place of another: everything is
    signed with each."""
    events: Events = ()
    """The types to send, with commas between them; without it, all."""
    destinations: Destinations = ()
    """More endpoints, as JSON: ``[{"name": …, "url": …, "secret": …, "events": …}]``. How far each is delivered goes by
    its name."""
    timeout: Duration = timedelta(seconds=10)
    """What an endpoint may take to answer."""
    attempts: int = Field(default=1000, ge=1, le=1_000_000)
    """After so many, at most 15 minutes apart, a happening is a dead letter, and the next one goes on. 1000 take more
    than a week."""
    private_networks: bool = False
    """Whether endpoints may be at private addresses, and without TLS."""
    bytes: int = Field(default=256 << 10, ge=1 << 10, le=16 << 20)
    """Bytes of what is sent at once; beyond it, texts are cut."""
    keep: Duration = timedelta(days=7)
    """How long the outbox keeps what every endpoint has. What one does not have is kept until it has it.
    Nothing is kept longer than the archive keeps its conversation."""

    @property
    def all(self) -> tuple[Destination, ...]:
        """All endpoints."""
        if self.url is None:
            return self.destinations
        return (Destination(name=ONLY_NAME, url=self.url, secret=self.secret, events=self.events), *self.destinations)

    @model_validator(mode="after")
    def _are_whole(self) -> Self:
        if self.url is not None and not self.secret:
            message = "secret: CONVERSATION_WEBHOOK_SECRET is needed: everything that is sent is signed"
            raise InvalidInputError(message, field="secret")
        if self.url is not None and any(one.name == ONLY_NAME for one in self.destinations):
            message = f"destinations: {ONLY_NAME} is the name of the one in CONVERSATION_WEBHOOK_URL"
            raise InvalidInputError(message, field="destinations")
        if not self.private_networks and not all(one.is_encrypted for one in self.all):
            message = "url: must begin with https://, unless CONVERSATION_WEBHOOK_PRIVATE_NETWORKS is set"
            raise InvalidInputError(message, field="url")
        return self


def _token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{1,4096}", value.get_secret_value(), re.ASCII):
        message = "must be printable ASCII without spaces, as a header takes it"
        raise ValueError(message)
    return value


class BackendSettings(SettingsGroup):
    """A back end of your own, by HTTP (``CONVERSATION_BACKEND_…``): see docs/backend.md. It needs the archive.

    Example:
        archive = ArchiveSettings(url=SecretStr("sqlite+aiosqlite:///outbox.db"))
        Settings(archive=archive, backend=BackendSettings(url=SecretStr("https://backend.internal"), messages=50))
    """

    model_config = settings_config("CONVERSATION_BACKEND_")

    url: Url | None = None
    """Its base, ``https://host`` or ``https://host/path``; without it, there is none."""
    token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    """What it is told with each request: ``Authorization: Bearer …``."""
    timeout: Duration = timedelta(seconds=10)
    """What it may take to answer what it is sent."""
    attempts: int = Field(default=1000, ge=1, le=1_000_000)
    """After so many, at most 15 minutes apart, a happening is a dead letter, and the next one goes on."""
    bytes: int = Field(default=1 << 20, ge=1 << 10, le=64 << 20)
    """Bytes of what is sent at once; beyond it, texts are cut."""
    private_networks: bool = False
    """Whether it may be at a private address, and without TLS."""
    messages: int = Field(default=100, ge=0, le=10_000)
    """How many of a conversation's newest messages it is asked for, when neither Redis nor the archive has any. 0: it
    is not asked."""
    recall_timeout: Duration = timedelta(seconds=2)
    """What a client waits for its answer then, and when it tells the back end to delete a conversation."""
    required: bool = False
    """Whether a conversation that neither Redis nor the archive has can be opened only while the back end answers."""
    instead: bool = False
    """Whether the back end is the record, in place of the archive: after ``CONVERSATION_ARCHIVE_RETENTION`` the
    archive's database gives up what the back end has, and only that."""
    context: bool = False
    """Whether it is asked, at each turn, for what the agent is to know."""
    context_budget: Duration = timedelta(milliseconds=150)
    """How long a turn waits for that; then it goes on without."""
    interim: bool = False
    """Whether it is sent what a speaker is heard to say before it is final."""
    stacks: bool = False
    """Whether errors are noted with the lines of code where they happened."""

    @property
    def shown(self) -> str:
        """Scheme and host, for people; empty if there is no back end."""
        return "" if self.url is None else origin_of(self.url)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        written = "" if self.url is None else self.url.get_secret_value()
        if "?" in written:
            message = "url: must have no query: paths are put behind it"
            raise InvalidInputError(message, field="url")
        if written and not written.startswith("https:") and not self.private_networks:
            message = "url: must begin with https://, unless CONVERSATION_BACKEND_PRIVATE_NETWORKS is set"
            raise InvalidInputError(message, field="url")
        return self


def require_outbox(archive: ArchiveSettings, backend: BackendSettings) -> None:
    """Raise `InvalidInputError` for a back end without an archive."""
    if backend.url is not None and archive.url is None:
        message = (
            "backend.url (CONVERSATION_BACKEND_URL): a back end is sent to from the archive's outbox; "
            "set CONVERSATION_ARCHIVE_URL too (a SQLite file will do)"
        )
        raise InvalidInputError(message, field="backend.url")


class SessionSettings(SettingsGroup):
    """When a call counts as over if nobody says so (``CONVERSATION_SESSION_…``).

    Example:
        Settings(sessions=SessionSettings(idle=timedelta(minutes=30)))
    """

    model_config = settings_config("CONVERSATION_SESSION_")

    idle: Duration = timedelta(minutes=10)
    """A call of which nothing came for so long, and whose agent gives no sign of life, is recorded as lost. Archivers
    decide that: see docs/archive.md."""


DEFAULT_TENANT = "default"
MEMORY = "memory://"
"""The beginning of a URL that stands for this process's own memory; a name may follow."""


def _tenant(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value, re.ASCII):
        message = "must be 1 to 64 letters, digits, ., _ and -, and begin with a letter or digit"
        raise ValueError(message)
    return value


Tenant = Annotated[str, AfterValidator(_tenant)]
"""The tenant that conversations belong to: part of every key and of every actor's name, so that two tenants may use the
same ids."""


class _RedisHost(SettingsGroup):
    """The part of Redis's address that decides whether all parts are read: the others alone may belong to anything."""

    model_config = settings_config("REDIS_")

    host: str | None = None


def _port(value: object) -> object:
    """Return the port out of ``tcp://10.0.0.7:6379``, which Kubernetes sets if a service is called redis.

    Return any other value as it is.
    """
    return value.rpartition(":")[2] if isinstance(value, str) and value.startswith("tcp://") else value


def _host(value: str) -> str:
    if "://" in value or re.fullmatch(r"[^:]*:\d+", value):
        message = "must be a host's name or address; a URL goes into REDIS_URL, a port into REDIS_PORT"
        raise ValueError(message)
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", value, re.ASCII):
        message = "must be a host's name or address"
        raise ValueError(message)
    return value


class RedisServer(SettingsGroup):
    """Redis by its parts (``REDIS_…``), as many platforms set them; read if there is a host and no URL."""

    model_config = settings_config("REDIS_")

    host: Annotated[str, AfterValidator(_host)] = ""
    """A name or an address. Without it, none of these is read."""
    port: Annotated[int, BeforeValidator(_port)] = Field(default=6379, ge=1, le=65535)
    """The server's port."""
    username: str | None = None
    """A user of an ACL; without it, the default user."""
    password: SecretStr | None = None
    """The user's password."""
    db: int = Field(default=0, ge=0)
    """The number of the database."""
    ssl: bool = False
    """Whether the server speaks TLS."""

    def url(self) -> SecretStr:
        """Return the same server as a URL."""
        secret = quote(self.password.get_secret_value(), safe="") if self.password else ""
        identity = f"{quote(self.username or '', safe='')}:{secret}@" if secret or self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return SecretStr(f"redis{'s' if self.ssl else ''}://{identity}{host}:{self.port}/{self.db}")


def _named_by_parts() -> SecretStr | None:
    return None if _RedisHost().host is None else RedisServer().url()


def _durability(value: str) -> str:
    if not re.fullmatch(r"redis|fsync|replicas=[1-9][0-9]?", value, re.ASCII):
        message = "must be redis, fsync or replicas=N (N from 1 to 99)"
        raise ValueError(message)
    return value


class Settings(SettingsGroup):
    """Everything a client, and the owners it starts, need to know. ``repr`` shows no secret.

    Example:
        settings = Settings(redis_url=SecretStr("redis://127.0.0.1:6379/0"), ttl=timedelta(days=1))
        client = ConversationClient(settings)
    """

    model_config = settings_config("CONVERSATION_")

    also_known: ClassVar = ("CONVERSATION_WORKER_FORKED", "CONVERSATION_NODE_PYTHON")

    redis_url: SecretStr | None = Field(
        default_factory=_named_by_parts, validation_alias=AliasChoices("CONVERSATION_REDIS_URL", "REDIS_URL")
    )
    """``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://h1:26379,h2/service/0``, ``redis+cluster://h1,h2``;
    user, password and TLS options in the URL. Redis 6.2 or newer, or Valkey, without modules. ``memory://`` is this
    process's own memory, without Redis and without Ray: see docs/testing.md."""
    read_url: SecretStr | None = None
    """A replica of that Redis, which `read(…, stale_ok=True)` asks; the forms of its URL are the same."""
    redis_connections: int = Field(default=64, ge=1, le=10_000)
    """Connections that a client, or an owner, has to each of Redis's servers at most. A call that needs one more waits
    for it."""
    ray_address: str | None = Field(
        default=None, validation_alias=AliasChoices("CONVERSATION_RAY_ADDRESS", "RAY_ADDRESS")
    )
    """The Ray cluster; without it the local one. An existing Ray connection of the process comes first."""
    tenant: Tenant = DEFAULT_TENANT
    """Whose conversations these are: 1 to 64 letters, digits, ``.``, ``_`` and ``-``; part of every key, index and
    actor's name, so that two tenants may use the same ids. Nothing enforces it yet."""
    hashed_names: bool = False
    """Name actors by a hash, so that Ray's logs and lists show no id. The same for all clients of a conversation."""
    durability: Annotated[str, AfterValidator(_durability)] = "redis"
    """When a write is acknowledged. ``redis``: the server has it. ``fsync``: it is on the server's disk (AOF, Redis 7.2
    or newer, or Valkey). ``replicas=n``: n replicas have it too. A server that cannot do it is refused at the start."""
    placement: Placement = Placement.SPREAD
    """``spread``: over all nodes in turn. ``pack``: each node is half full before the next, so that others can go."""
    direct: Direct = Direct.AUTO
    """``auto``: a handle and its owner talk by a line of their own (a Unix socket on one node, else TCP) while that is
    possible, and by Ray's calls otherwise. ``off``: by Ray's calls alone, and no owner listens."""
    idle_timeout: Duration = timedelta(minutes=5)
    """An owner that nobody asked or watched for this long saves a snapshot and exits."""
    ttl: Duration = timedelta(days=7)
    """A stored conversation is forgotten this long after its last use, unless its own retention says otherwise."""
    outbox_items: int = Field(default=10_000, ge=1, le=1_000_000)
    """Commands a handle holds while they cannot be sent; beyond it, `OverloadedError`."""
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    backend: BackendSettings = Field(default_factory=BackendSettings)
    history: HistoryLimits = Field(default_factory=HistoryLimits)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    pool: PoolSettings = Field(default_factory=PoolSettings)
    sessions: SessionSettings = Field(default_factory=SessionSettings)

    _redis_source: str = PrivateAttr(default="redis_url=")

    if not TYPE_CHECKING:  # see `SettingsGroup`

        def __init__(self, **values: Any) -> None:
            super().__init__(**values)
            if "redis_url" not in self.model_fields_set:
                self._redis_source = "REDIS_HOST"
            elif not {"redis_url", "CONVERSATION_REDIS_URL", "REDIS_URL"} & values.keys():
                place, _, name = origin(type(self), "redis_url").partition(": ")
                self._redis_source = name if place == ENVIRONMENT else f"{name} in {place}"

    def __eq__(self, other: object) -> bool:
        """Compare the values of both, wherever each value was read."""
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        """Hash the values that `__eq__` compares."""
        return hash(tuple(self.__dict__.values()))

    @property
    def redis_source(self) -> str:
        """What to change for another Redis: the variable, with its file, or the keyword ``redis_url=``."""
        return self._redis_source

    @model_validator(mode="after")
    def _outlives_idleness(self) -> Self:
        if self.ttl < self.idle_timeout * 2:
            message = f"ttl: {self.ttl} is less than twice idle_timeout ({self.idle_timeout}): owners would outlive it"
            raise InvalidInputError(message, field="ttl")
        return self

    @model_validator(mode="after")
    def _has_an_outbox(self) -> Self:
        if not self.is_in_memory:
            require_outbox(self.archive, self.backend)
        return self

    @property
    def required_durability(self) -> tuple[Durability, int]:
        """The kind of durability, and the number of replicas it needs (0 unless ``replicas=n``)."""
        kind, _, count = self.durability.partition("=")
        return Durability(kind), int(count or 0)

    @property
    def is_in_memory(self) -> bool:
        """Whether conversations and their owners live in this process: the URL is ``memory://``."""
        return self.redis_url is not None and self.redis_url.get_secret_value().startswith(MEMORY)

    def in_memory(self, name: str = "") -> Self:
        """Return these settings with ``memory://`` and a name in the place of all servers."""
        servers = {"redis_url": SecretStr(MEMORY + name), "read_url": None, "ray_address": None, "durability": "redis"}
        changed = self.model_copy(update=servers)
        changed._redis_source = "name="  # noqa: SLF001  # one of its own class
        return changed

    def require_redis_url(self, *, shared_by: str = "") -> str:
        """Return the Redis URL with its secrets, or raise `InvalidInputError` with one sentence on how to get one.

        With `shared_by`, the name of a program of several processes, ``memory://`` is refused too.
        """
        if self.redis_url is None:
            message = (
                "redis_url: no Redis is configured; set CONVERSATION_REDIS_URL, or run `conversation-actors dev`, "
                "which starts a server and prints the variable"
            )
            raise InvalidInputError(message, field="redis_url")
        if shared_by:
            self.refuse_memory(shared_by)
        return self.redis_url.get_secret_value()

    def refuse_memory(self, program: str) -> None:
        """Raise `InvalidInputError` if the URL is ``memory://``: the `program` works with several processes."""
        if self.is_in_memory:
            message = (
                f"redis_url ({self._redis_source}): memory:// is the memory of one process, "
                f"and `{program}` works with several; name a Redis server"
            )
            raise InvalidInputError(message, field="redis_url")


class DevelopmentSettings(SettingsGroup):
    """What only the commands for development need (``CONVERSATION_…``)."""

    model_config = settings_config("CONVERSATION_")

    data_dir: Path | None = None
    """Where these commands keep what must survive a restart; by default in ``XDG_DATA_HOME``, or ``~/.local/share``."""


def data_directory() -> Path:
    """Return where development commands keep what must survive a restart (``CONVERSATION_DATA_DIR``)."""
    explicit = DevelopmentSettings().data_dir
    if explicit is not None:
        return explicit.expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "conversation-actors"


_CRASH_DETECTION = {"RAY_timeout_ms_task_wait_for_death_info": "10", "RAY_core_worker_internal_heartbeat_ms": "20"}
"""How long a caller waits to hear why an actor died, and how often it looks; 1000 ms each by default.

A line that closes tells of a death at once. But what is asked next is Ray's call, which would wait as long for Ray's
own news; and without a line there is no other news at all.
"""
_LASTING = {"RAY_gcs_rpc_server_reconnect_timeout_s": "31536000"}
"""How long a process goes on without Ray's head before it ends itself: a year, instead of Ray's default of a minute."""


@contextmanager
def quick_crash_detection() -> Iterator[None]:
    """Let a process that joins a Ray cluster inside this block learn of a dead actor in 30 ms instead of 1 to 2 s."""
    with _while_joining(_CRASH_DETECTION):
        yield


@contextmanager
def lasting_connection() -> Iterator[None]:
    """Let a process that joins a Ray cluster inside this block outlive the cluster's head."""
    with _while_joining(_LASTING):
        yield


@contextmanager
def _while_joining(chosen: dict[str, str]) -> Iterator[None]:
    """Set variables that Ray reads its configuration from when it connects.

    They are removed afterwards, so that no child process inherits them. A variable that is set already keeps its value.
    If Ray is connected already, nothing changes.
    """
    added = {name: value for name, value in chosen.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
