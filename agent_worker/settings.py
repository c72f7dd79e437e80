"""The worker's settings, read once from the environment under the names LiveKit's plugins use."""

import ipaddress
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from conversation_actors.errors import InvalidInputError


class LanguageModelSettings(BaseSettings):
    """Which language model is spoken to (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``, ``OPENAI_MODEL``, or ``.env``)."""

    model_config = SettingsConfigDict(
        env_file=".env", frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    base_url: str = Field(
        default="https://api.openai.com/v1", validation_alias=AliasChoices("base_url", "OPENAI_BASE_URL")
    )
    api_key: SecretStr | None = Field(default=None, validation_alias=AliasChoices("api_key", "OPENAI_API_KEY"))
    model: str = Field(default="gpt-4.1", min_length=1, validation_alias=AliasChoices("model", "OPENAI_MODEL"))

    def require_key(self) -> str:
        """The key to send. A server on this machine needs none; for any other a missing key is an error."""
        if self.api_key is not None and self.api_key.get_secret_value():
            return self.api_key.get_secret_value()
        if _is_loopback(self.base_url):
            return "offline"
        message = (
            f"api_key: no key for {urlsplit(self.base_url).hostname}; set OPENAI_API_KEY, or point OPENAI_BASE_URL "
            "at a local server such as `python -m agent_worker.offline`"
        )
        raise InvalidInputError(message, field="api_key")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
