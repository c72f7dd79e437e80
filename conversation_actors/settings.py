"""Settings, read once at the edge of a process and passed on; the only module that reads the environment.

Every field can be given as a keyword, as an environment variable (prefix ``CONVERSATION_``) or in a
``.env.local`` or ``.env`` file, in this order. Durations are seconds (``1.5``) or ISO 8601 (``PT30M``).
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from conversation_actors.errors import InvalidInputError
from conversation_actors.state import Limits
from conversation_actors.state.facts import LEAST_REQUESTS


def _seconds(value: object) -> object:
    """Read ``"90"`` and ``"1.5"`` as seconds; pydantic reads the ISO 8601 forms itself."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?", value.strip()):
        return float(value)
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        message = "must be longer than zero"
        raise ValueError(message)
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_positive)]


class _ByFieldName(PydanticBaseSettingsSource):
    """What another source says, under the fields' own names.

    Sources give a value under that of its names which they know. Releases of pydantic-settings differ in which of two
    names wins, so that the environment could beat a keyword, and a file the environment.
    """

    def __init__(self, settings_class: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_class)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what the source knows of one field."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """Return what the source says; of two names of one field, the first counts."""
        told = dict(self._source())
        for name, field in self.settings_cls.model_fields.items():
            choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
            values = [told.pop(choice) for choice in (name, *choices) if isinstance(choice, str) and choice in told]
            if values:
                told[name] = values[0]
        return told


class OrderedSettings(BaseSettings):
    """Settings whose sources come in one order: keyword, environment, file; whichever name a value has there."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep pydantic's order."""
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        return tuple(_ByFieldName(settings_cls, source) for source in sources)


class SettingsGroup(OrderedSettings):
    """A frozen group of settings whose mistakes are `InvalidInputError`; also for packages beside this one."""

    if not TYPE_CHECKING:  # type checkers know the fields, and would see only **values

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except SettingsError as error:
                # Its text names the field and the source, and holds no value.
                prefix = self.model_config.get("env_prefix", "")
                field = re.search(r'"(\w+)"', str(error))
                name = field.group(1) if field else type(self).__name__
                message = f"{name} (environment: {prefix}{name.upper()}): not JSON; set its fields one by one"
                raise InvalidInputError(message, field=name) from None
            except UnicodeDecodeError as error:
                message = f".env: byte {error.start} is not UTF-8"
                raise InvalidInputError(message, field=".env") from None

    @model_validator(mode="wrap")
    @classmethod
    def _typed_error(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        try:
            return handler(data)  # type: ignore[no-any-return]  # pydantic types the handler as Any
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or cls.__name__
            prefix = cls.model_config.get("env_prefix", "")
            message = f"{field} (environment: {prefix}{field.upper()}): {first['msg']}"
            raise InvalidInputError(message, field=field) from None


def settings_config(prefix: str = "") -> SettingsConfigDict:
    """How a group of settings is read: variables with this prefix, ``.env`` files, no value in an error's text."""
    return SettingsConfigDict(
        env_prefix=prefix,
        env_file=(".env", ".env.local"),
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )


class Durability(StrEnum):
    """What an acknowledgement means, beyond "the server's memory has it"."""

    REDIS = "redis"
    FSYNC = "fsync"
    REPLICAS = "replicas"


class HistoryLimits(SettingsGroup):
    """Bounds of what one conversation may hold (``CONVERSATION_HISTORY_…``). Bytes are of the stored form."""

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
    requests: int = Field(default=1000, ge=LEAST_REQUESTS, le=100_000)
    """Requests remembered, so that a repeat returns the first result."""
    request_age: Duration = timedelta(minutes=15)
    """How long a request is remembered."""

    def limits(self) -> Limits:
        """The same bounds, for the state."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Limits(**{**values, "request_age": self.request_age.total_seconds()})

    @model_validator(mode="after")
    def _an_exchange_fits(self) -> Self:
        if self.item_bytes * 4 > self.bytes:
            message = f"item_bytes: {self.item_bytes} is more than a quarter of bytes ({self.bytes})"
            raise InvalidInputError(message, field="item_bytes")
        return self


class Timeouts(SettingsGroup):
    """How long anything may take (``CONVERSATION_TIMEOUT_…``)."""

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
    """Workers kept ready on each node (``CONVERSATION_POOL_…``); those of whoever comes first hold for the cluster."""

    model_config = settings_config("CONVERSATION_POOL_")

    minimum: int = Field(default=2, ge=0, le=1000)
    """How many, while nothing is opened."""
    maximum: int = Field(default=16, ge=0, le=1000)
    """How many at most, while many are opened: as many more as in the last ten seconds. 0: no pool."""
    keep_alive: Duration = timedelta(minutes=10)
    """A worker that nobody took for this long ends, and another one takes its place while it is among the minimum."""


DEFAULT_TENANT = "default"
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Whose conversations: part of every key and of every actor's name, so that two tenants may use the same ids."""


class Settings(SettingsGroup):
    """Everything a client, and the owners it starts, need to know. ``repr`` shows no secret."""

    model_config = settings_config("CONVERSATION_")

    redis_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("CONVERSATION_REDIS_URL", "REDIS_URL")
    )
    """``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://h1:26379,h2/service/0``, ``redis+cluster://h1,h2``."""
    ray_address: str | None = Field(
        default=None, validation_alias=AliasChoices("CONVERSATION_RAY_ADDRESS", "RAY_ADDRESS")
    )
    """The Ray cluster; without it the local one. An existing Ray connection of the process comes first."""
    tenant: Tenant = DEFAULT_TENANT
    """Whose conversations these are: 1 to 64 letters, digits, ``.``, ``_`` and ``-``. Nothing enforces it yet."""
    hashed_names: bool = False
    """Name actors by a hash, so that Ray's logs and lists show no id. The same for all clients of a conversation."""
    durability: str = Field(default="redis", pattern=r"^(redis|fsync|replicas=[1-9][0-9]?)$")
    """``redis``: the server has it. ``fsync``: it is on the server's disk. ``replicas=n``: n replicas have it too."""
    idle_timeout: Duration = timedelta(minutes=5)
    """An owner that nobody asked or watched for this long saves a snapshot and exits."""
    ttl: Duration = timedelta(days=7)
    """A stored conversation is forgotten this long after its last use, unless its own retention says otherwise."""
    outbox_items: int = Field(default=10_000, ge=1, le=1_000_000)
    """Commands a handle holds while they cannot be sent; beyond it, `OverloadedError`."""
    history: HistoryLimits = Field(default_factory=HistoryLimits)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    pool: PoolSettings = Field(default_factory=PoolSettings)

    @model_validator(mode="after")
    def _outlives_idleness(self) -> Self:
        if self.ttl < self.idle_timeout * 2:
            message = f"ttl: {self.ttl} is less than twice idle_timeout ({self.idle_timeout}): owners would outlive it"
            raise InvalidInputError(message, field="ttl")
        return self

    @property
    def required_durability(self) -> tuple[Durability, int]:
        """The kind of durability, and the number of replicas it needs (0 unless ``replicas=n``)."""
        kind, _, count = self.durability.partition("=")
        return Durability(kind), int(count or 0)

    def require_redis_url(self) -> str:
        """The Redis URL with its secrets, or one sentence on how to get one."""
        if self.redis_url is None:
            message = (
                "redis_url: no Redis is configured; set CONVERSATION_REDIS_URL, or run `conversation-actors dev`, "
                "which starts a server and prints the variable"
            )
            raise InvalidInputError(message, field="redis_url")
        return self.redis_url.get_secret_value()


def data_directory() -> Path:
    """Where development commands keep what must survive a restart (``CONVERSATION_DATA_DIR``)."""
    explicit = os.environ.get("CONVERSATION_DATA_DIR")
    if explicit:
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "conversation-actors"


_CRASH_DETECTION = {"RAY_timeout_ms_task_wait_for_death_info": "10", "RAY_core_worker_internal_heartbeat_ms": "20"}
"""How long a caller waits to hear why an actor died, and how often it looks; 1000 ms each by default."""
_LASTING = {"RAY_gcs_rpc_server_reconnect_timeout_s": "31536000"}
"""After how long without Ray's head a process ends itself, by default after a minute: a year."""


@contextmanager
def quick_crash_detection() -> Iterator[None]:
    """Join a Ray cluster inside of this, and this process learns of a dead actor in 30 ms instead of 1 to 2 s."""
    with _while_joining(_CRASH_DETECTION):
        yield


@contextmanager
def lasting_connection() -> Iterator[None]:
    """Join a Ray cluster inside of this, and this process outlives the cluster's head."""
    with _while_joining(_LASTING):
        yield


@contextmanager
def _while_joining(chosen: dict[str, str]) -> Iterator[None]:
    """Set variables that Ray reads its configuration from when it connects.

    They are gone afterwards, so that no child process inherits them. A value that is set already stays; where Ray was
    connected before, nothing changes.
    """
    added = {name: value for name, value in chosen.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
