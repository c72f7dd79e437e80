"""Reads a Redis URL. Every mistake is an `InvalidInputError` whose text never contains the password."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, unquote

from conversation_actors.errors import InvalidInputError

REDIS_PORT = 6379
SENTINEL_PORT = 26379
_HIGHEST_PORT = 65535


class Topology(StrEnum):
    """What kind of servers the URL leads to."""

    SERVER = "server"
    UNIX = "unix"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": (Topology.SERVER, False),
    "rediss": (Topology.SERVER, True),
    "unix": (Topology.UNIX, False),
    "redis+sentinel": (Topology.SENTINEL, False),
    "rediss+sentinel": (Topology.SENTINEL, True),
    "redis+cluster": (Topology.CLUSTER, False),
    "rediss+cluster": (Topology.CLUSTER, True),
}
_TEXTS = ("ssl_password", "ssl_ciphers")
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_TLS_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_CHOICES: Mapping[str, Mapping[str, object]] = {
    "ssl_cert_reqs": {"none": "none", "optional": "optional", "required": "required"},
    "ssl_check_hostname": _BOOLEANS,
    "ssl_min_version": _TLS_VERSIONS,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is, and who we are there. ``repr`` shows no password."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...] = ()
    uses_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    path: str = ""
    tls: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    connections: int = 64
    """How many a process may have to each server."""
    source: str = "redis_url="
    """The variable or keyword to change for another address."""

    @property
    def shown(self) -> str:
        """The URL without its password and options, for people."""
        scheme = next(name for name, kind in _SCHEMES.items() if kind == (self.topology, self.uses_tls))
        if self.topology is Topology.UNIX:
            return f"{scheme}://{self.path}?db={self.database}"
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        database = [] if self.topology is Topology.CLUSTER else [str(self.database)]
        return "/".join([f"{scheme}://{user}{hosts}", *filter(None, [quote(self.service)]), *database])


def parse(url: str | Address) -> Address:
    """Read ``scheme://[user:password@]host[:port][,host…][/service][/db][?options]``.

    Options: ``db``, ``sentinel_username``, ``sentinel_password``, and for TLS ``ssl_ca_certs``,
    ``ssl_ca_path``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_password``, ``ssl_cert_reqs``,
    ``ssl_check_hostname``, ``ssl_min_version``, ``ssl_ciphers``. What has been read already stays as it is.
    """
    if isinstance(url, Address):
        return url
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        _refuse(f"must start with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    topology, uses_tls = _SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(query)
    service, database = _service_and_database(topology, path, options)
    return Address(
        topology=topology,
        hosts=_hosts(topology, hosts),
        uses_tls=uses_tls,
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=database,
        service=service,
        path=unquote(slash + path) if topology is Topology.UNIX else "",
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls=_tls(options, uses_tls=uses_tls),
    )


def _refuse(what: str) -> NoReturn:
    message = f"redis_url: {what}"
    raise InvalidInputError(message, field="redis_url") from None


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        _refuse("what follows the question mark must be name=value pairs joined by &")
    return dict(pairs)


def _hosts(topology: Topology, text: str) -> tuple[tuple[str, int], ...]:
    if topology is Topology.UNIX:
        if text:
            _refuse("unix:// takes a path that starts with a slash, and no host")
        return ()
    port = SENTINEL_PORT if topology is Topology.SENTINEL else REDIS_PORT
    hosts = tuple(_host(part, port) for part in (text or "localhost").split(","))
    if topology is Topology.SERVER and len(hosts) > 1:
        _refuse("several hosts need redis+sentinel:// or redis+cluster://")
    return hosts


def _host(text: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            _refuse("an IPv6 address needs a closing bracket, then perhaps a colon and a port")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
    if not host:
        # An unescaped slash or @ in a password ends up here: the piece may be secret, it is not shown.
        _refuse("a host is empty; in a user name or password write @ as %40, : as %3A, / as %2F")
    if not port:
        return host, default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _HIGHEST_PORT):
        _refuse(f"a port must be 1 to {_HIGHEST_PORT}; in a user name or password write @ as %40, : as %3A, / as %2F")
    return host, int(port)


def _service_and_database(topology: Topology, path: str, options: dict[str, str]) -> tuple[str, int]:
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if topology is Topology.UNIX:
        if not parts:
            _refuse("unix:// needs the path of a socket")
        parts = []
    if topology is Topology.SENTINEL:
        if not parts:
            _refuse("redis+sentinel:// needs the name of the service after the hosts: …/mymaster or …/mymaster/0")
        service = parts.pop(0)
    database = options.pop("db", parts.pop(0) if parts else "0")
    if parts or not (database.isascii() and database.isdigit()):
        _refuse("the database must be a number and the last part of the path")
    if topology is Topology.CLUSTER and int(database):
        _refuse("Redis Cluster has database 0 only")
    return service, int(database)


def _tls(options: dict[str, str], *, uses_tls: bool) -> dict[str, Any]:
    if options and not uses_tls:
        _refuse(f"{_named(min(options))} is not for a URL without TLS; TLS needs rediss://")
    read: dict[str, Any] = {name: _tls_option(name, value) for name, value in options.items()}
    if read.get("ssl_cert_reqs") == "none":
        read["ssl_check_hostname"] = False
    return read


def _named(option: str) -> str:
    """Return how an option may be called: a password with a `?` in it looks like one, and is not to be shown."""
    known = option in _FILES or option in _CHOICES or option in _TEXTS
    return f"option {option!r}" if known else "an option after the ? (in a password, write ? as %3F)"


def _tls_option(name: str, value: str) -> object:
    if name in _TEXTS:
        return value
    if name in _FILES:
        if not Path(value).exists():
            _refuse(f"{name}: {value!r} does not exist")
        return value
    choices = _CHOICES.get(name, {})
    if not choices:
        _refuse(f"{_named(name)} is not known")
    if value not in choices:
        _refuse(f"{name} must be one of {', '.join(choices)}")
    return choices[value]
