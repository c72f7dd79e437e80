"""Refuse requests as OpenAI does: its error bodies, and the key that it requires."""

import json
import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

BodyT = TypeVar("BodyT", bound=BaseModel)


class RequestRefusedError(Exception):
    """A request that OpenAI would answer with an error. `body` is the body of that error."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Make the error body. `status` is the HTTP status, `param` the path of the field that is wrong."""
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004  # HTTP's own boundary
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def require_key(headers: Mapping[str, str]) -> None:
    """Raise `RequestRefusedError` with status 401 if there is no bearer key. Any key is accepted."""
    if credentials(headers, "bearer") is None:
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        raise RequestRefusedError(401, message)


def credentials(headers: Mapping[str, str], scheme: str) -> str | None:
    """Return the key of the ``Authorization`` header, or None if it has none of this scheme (in lower case)."""
    found, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() or None if found.lower() == scheme else None


def read_body(model: type[BodyT], body: bytes) -> BodyT:
    """Read and check a request's body. Raises `RequestRefusedError` with status 400."""
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            message = "We could not parse the JSON body of your request."
            raise RequestRefusedError(400, message) from None
        first = error.errors(include_url=False, include_input=False)[0]
        # OpenAI writes messages[0].role; pydantic also names the branch of a union, which does not help a caller
        path = [part for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part)]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        message = f"Invalid '{param}': {first['msg']}."
        raise RequestRefusedError(400, message, param=param or None) from None
