"""Where a back end is, and how requests show that they may ask it."""

from pydantic import SecretStr

from conversation_actors.settings import BackendSettings


def address(settings: BackendSettings, path: str) -> SecretStr:
    """Return the URL of a path. There must be a back end in the settings."""
    assert settings.url is not None
    return SecretStr(settings.url.get_secret_value().rstrip("/") + path)


def headers(settings: BackendSettings) -> dict[str, str]:
    """Return the headers of every request: the token, if there is one."""
    return {} if settings.token is None else {"Authorization": f"Bearer {settings.token.get_secret_value()}"}
