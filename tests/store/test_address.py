"""Redis URLs: what is understood, and that no mistake shows a password."""

from pathlib import Path

import pytest

from conversation_actors.errors import InvalidInputError
from conversation_actors.store.address import Address, Topology, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address(Topology.SERVER, (("h", 6379),))),
        ("redis://", Address(Topology.SERVER, (("localhost", 6379),))),
        ("redis://h:1/3", Address(Topology.SERVER, (("h", 1),), database=3)),
        ("redis://h?db=3", Address(Topology.SERVER, (("h", 6379),), database=3)),
        ("redis://[::1]:7", Address(Topology.SERVER, (("::1", 7),))),
        ("rediss://h", Address(Topology.SERVER, (("h", 6379),), uses_tls=True)),
        ("redis://u:p%40s@h", Address(Topology.SERVER, (("h", 6379),), username="u", password="p@s")),
        ("redis://:p@h", Address(Topology.SERVER, (("h", 6379),), password="p")),
        ("unix:///run/r.sock?db=2", Address(Topology.UNIX, path="/run/r.sock", database=2)),
        ("unix://u:p@/run/r.sock", Address(Topology.UNIX, path="/run/r.sock", username="u", password="p")),
        ("redis+sentinel://a,b:2/s", Address(Topology.SENTINEL, (("a", 26379), ("b", 2)), service="s")),
        ("redis+sentinel://a/s/4", Address(Topology.SENTINEL, (("a", 26379),), service="s", database=4)),
        (
            "redis+sentinel://a/s?sentinel_password=x",
            Address(Topology.SENTINEL, (("a", 26379),), service="s", sentinel_password="x"),
        ),
        ("redis+cluster://a,b:2", Address(Topology.CLUSTER, (("a", 6379), ("b", 2)))),
        ("rediss+cluster://a", Address(Topology.CLUSTER, (("a", 6379),), uses_tls=True)),
    ],
)  # fmt: skip
def test_every_documented_url_is_read_into_its_parts(url: str, address: Address) -> None:
    """Every documented form is read into its parts."""
    assert parse(url) == address


def test_tls_options_become_what_redis_py_wants(tmp_path: Path) -> None:
    """TLS options are read into what redis-py wants; no verification means no check of the name either."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    assert parse(f"rediss://h?ssl_ca_certs={authority}&ssl_check_hostname=false").tls == {
        "ssl_ca_certs": str(authority),
        "ssl_check_hostname": False,
    }
    assert parse("rediss://h?ssl_cert_reqs=none").tls == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "http://u:hunter2@h",
        "REDIS//u:hunter2@h",
        "redis://u:hunter2@h:port",
        "redis://u:hunter2@h:0",
        "redis://u:hunter2@h:70000",
        "redis://u:hunter2@[::1",
        "redis://u:hun/ter2@h",
        "redis://u:hunter2/x@h",
        "redis://u:hunter2@a,b",
        "redis://u:hunter2@a,,b",
        "redis://u:hunter2@h/zero",
        "redis://u:hunter2@h/0/1",
        "redis://u:hunter2@h?ssl_ca_certs=/x",
        "redis://u:hunter2@h?nonsense",
        "rediss://u:hunter2@h?ssl_ca_certs=/does/not/exist",
        "rediss://u:hunter2@h?ssl_cert_reqs=perhaps",
        "rediss://u:hunter2@h?nonsense=1",
        "unix://u:hunter2@",
        "unix://u:hunter2@host/path",
        "redis+sentinel://u:hunter2@h",
        "redis+cluster://u:hunter2@h/1",
    ],
)
def test_bad_url_names_the_field_and_no_password(url: str) -> None:
    """A URL that cannot be read is refused before anything is sent; its text is safe to log."""
    with pytest.raises(InvalidInputError) as caught:
        parse(url)
    assert caught.value.field == "redis_url"
    assert "hun" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_repr_of_an_address_shows_no_password() -> None:
    """``repr`` shows neither password."""
    address = parse("redis+sentinel://u:hunter2@h/s?sentinel_password=hunter3")
    assert "hunter" not in repr(address)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_question_mark_in_a_password_shows_nothing_of_it(scheme: str) -> None:
    """What looks like an option then is a piece of the password, and is not named."""
    with pytest.raises(InvalidInputError, match="%3F") as refusal:
        parse(f"{scheme}://default:12345?c2VjcmV0=@host/0")
    assert "c2VjcmV0" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@db:6380/2", "redis://db:6380/2"),
        ("rediss://app:secret@[::1]/0", "rediss://app@[::1]:6379/0"),
        ("unix://:secret@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+sentinel://app:secret@a,b:1/mymaster/0", "redis+sentinel://app@a:26379,b:1/mymaster/0"),
        ("redis+cluster://:secret@a,b", "redis+cluster://a:6379,b:6379"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    """As the URL that it is, for people."""
    assert parse(url).shown == shown
    assert "secret" not in repr(parse(url))
