"""What Ray takes from a process's environment, read as Ray reads it: its token, its TLS, its view on versions.

No setting of this project is read here. Ray itself reads most of this once, when it is imported: what `use_token` sets
has to be set before.
"""

import os
import secrets
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from conversation_actors.errors import ClusterMisconfiguredError

MODE = "RAY_AUTH_MODE"
_TOKEN, _TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
FIRST_WITH_TOKENS = (2, 52)
"""The first Ray that knows tokens; to an older one everybody who reaches its ports may talk."""


@dataclass(frozen=True, slots=True)
class Token:
    """This user's token for Ray; `repr` does not show it."""

    value: str | None
    """None: there is none."""
    place: str
    """Where it is, or would be: a file, or the name of a variable."""

    def __repr__(self) -> str:
        """Name the place only."""
        return f"Token({self.place})"


def knows_tokens() -> bool:
    """Whether the Ray that is installed here has tokens."""
    major, minor = metadata.version("ray").split(".")[:2]
    return (int(major), int(minor)) >= FIRST_WITH_TOKENS


def token_mode() -> str | None:
    """``token``, ``disabled``, or what else somebody chose; None if nobody did."""
    return os.environ.get(MODE, "").lower() or None


def has_other_mode() -> bool:
    """Whether somebody chose a way of letting in that is none of ours; Ray has one for Kubernetes."""
    return token_mode() not in {None, "token", "disabled"}


def use_token() -> None:
    """Have the Ray that this process imports later, and its children, send the token and ask for it."""
    os.environ[MODE] = "token"


def token() -> Token:
    """Return this user's token, looked for where Ray looks, in Ray's order."""
    if value := os.environ.get(_TOKEN):
        return Token(value.strip(), _TOKEN)
    path = _token_file()
    try:
        return Token(path.read_text().strip() or None, _shown(path))
    except FileNotFoundError:
        return Token(None, _shown(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"Ray's token in {_shown(path)} cannot be read: {reason}"
        raise ClusterMisconfiguredError(message) from None


def ensure_token() -> Token:
    """Return this user's token, made if there is none. The file, if it is this user's, is nobody else's to read.

    Raises `ClusterMisconfiguredError` if it cannot be written.
    """
    found = token()
    path = _token_file()
    try:
        if found.value is None:
            _write(path, secrets.token_hex(32))
        elif found.place != _TOKEN and path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)  # Ray's own command makes it readable for everybody
    except OSError as error:
        message = f"Ray's token cannot be kept in {_shown(path)}: {error.strerror}"
        raise ClusterMisconfiguredError(message) from None
    return token()


def chosen_token_variables() -> dict[str, str]:
    """Variables by which this terminal names its token; empty if that is in its ordinary place."""
    return {name: value for name in (_TOKEN, _TOKEN_FILE) if (value := os.environ.get(name))}


def tls_files() -> tuple[Path, Path, Path] | None:
    """Certificate of the authority, key and certificate, where Ray speaks TLS."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in {"1", "true"}:
        return None
    names = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
    authority, key, certificate = (Path(os.environ.get(name, "")) for name in names)
    return authority, key, certificate


def compares_python_patch() -> bool:
    """Whether Ray wants the same patch release of Python everywhere, as it does by default."""
    return os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch") == "patch"


def address_of_this_terminal() -> str | None:
    """Return what ``auto`` means first: RAY_ADDRESS."""
    return os.environ.get("RAY_ADDRESS") or None


def _token_file() -> Path:
    named = os.environ.get(_TOKEN_FILE)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def _shown(path: Path) -> str:
    """Return the path as people write it."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _write(path: Path, value: str) -> None:
    """Write the token, unless somebody else has written one meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(value)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
