"""Destinations of webhooks, and how their URLs, secrets and types are written in settings. No error shows a value."""

import base64
import binascii
import json
import re
from collections import Counter
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from conversation_actors.calls import HAPPENINGS

ONLY_NAME = "default"
"""The name of the destination that is given by ``CONVERSATION_WEBHOOK_URL``."""
BACKEND_NAME = "backend"
"""The name of the destination that the back end is (``CONVERSATION_BACKEND_URL``)."""
_PREFIX = "whsec_"
_KEY_BYTES = (24, 64)
"""How long a key may be, by Standard Webhooks."""
_HOST = re.compile(r"[A-Za-z0-9.:_-]+", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


def _words(value: object) -> object:
    """Read ``"one, two"``, or the same as a JSON list."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else value.replace(",", " ").split()


def _secret(value: SecretStr) -> SecretStr:
    written = value.get_secret_value()
    least, most = _KEY_BYTES
    try:
        key = base64.b64decode(written.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not written.startswith(_PREFIX) or not least <= len(key) <= most:
        message = f"must be {_PREFIX} and {least} to {most} bytes as base64; several are separated by commas"
        raise ValueError(message)
    return value


def _event(value: str) -> str:
    if value not in HAPPENINGS:
        message = f"must be some of {', '.join(HAPPENINGS)}"
        raise ValueError(message)
    return value


def is_numeric(host: str) -> bool:
    """Tell whether a host is written in numbers: an address, or one of the forms that systems take for an address."""
    last = host.rstrip(".").rpartition(".")[2]
    return ":" in host or re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", last, re.ASCII) is not None


def _url(value: SecretStr) -> SecretStr:
    written = value.get_secret_value()
    try:
        parts = urlsplit(written)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = SplitResult("", "", "", "", ""), ""
    is_whole = parts.scheme in {"http", "https"} and _HOST.fullmatch(host) and _PRINTABLE.fullmatch(written)
    if not is_whole or parts.username is not None or parts.fragment:
        message = "must be https://host/path, without user, password and fragment"
        raise ValueError(message)
    if is_numeric(host):
        try:
            ip_address(host)
        except ValueError:
            message = "must name a host, or be an address in the usual form"
            raise ValueError(message) from None
    return value


Events = Annotated[tuple[Annotated[str, AfterValidator(_event)], ...], NoDecode, BeforeValidator(_words)]
"""Types of happenings."""
Secrets = Annotated[tuple[Annotated[SecretStr, AfterValidator(_secret)], ...], NoDecode, BeforeValidator(_words)]
"""Secrets of Standard Webhooks; with several, everything is signed with each of them."""
Url = Annotated[SecretStr, AfterValidator(_url)]
"""Where to send to. It is a secret: receivers put tokens into paths."""


def _name(value: str) -> str:
    if value == BACKEND_NAME:
        message = "is the name of the back end"
        raise ValueError(message)
    return value


def origin_of(url: SecretStr) -> str:
    """Return scheme, host and port of a URL, which may be shown."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc}"


class Destination(BaseModel):
    """One endpoint that happenings are sent to. Neither ``repr`` nor `shown` has a secret.

    How far a destination is delivered goes by its `name`: with another URL, it goes on where it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_name)] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    url: Url
    secret: Secrets = Field(min_length=1)
    events: Events = ()
    """The types to send; without any, all that businesses are told."""

    @property
    def shown(self) -> str:
        """Scheme and host, for people."""
        return origin_of(self.url)

    @property
    def is_encrypted(self) -> bool:
        """Whether it is reached by TLS."""
        return self.url.get_secret_value().startswith("https:")

    def wants(self, event: str) -> bool:
        """Tell whether happenings of this type are sent."""
        return event in (self.events or HAPPENINGS)


def _list(value: object) -> object:
    """Read a JSON list of objects."""
    if not isinstance(value, str):
        return value
    try:
        read: Any = json.loads(value)
    except ValueError:
        message = 'must be a JSON list, such as [{"name": "crm", "url": "https://…", "secret": "whsec_…"}]'
        raise ValueError(message) from None
    return read


def _distinct(value: tuple[Destination, ...]) -> tuple[Destination, ...]:
    if any(count > 1 for count in Counter(one.name for one in value).values()):
        message = "each must have a name of its own"
        raise ValueError(message)
    return value


Destinations = Annotated[tuple[Destination, ...], NoDecode, BeforeValidator(_list), AfterValidator(_distinct)]
