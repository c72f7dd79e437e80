"""How OpenAI says no: its error bodies, and the key it wants."""

import json
import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

BodyT = TypeVar("BodyT", bound=BaseModel)


class RequestRefusedError(Exception):
    """A request that OpenAI would answer with an error; `body` is its error body."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """`status`: HTTP status. `param`: path of the field that is wrong."""
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004  # HTTP's own boundary
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def require_key(headers: Mapping[str, str]) -> None:
    """Any bearer key will do; raises `RequestRefusedError` with status 401 if there is none."""
    if credentials(headers, "bearer") is None:
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        raise RequestRefusedError(401, message)


def credentials(headers: Mapping[str, str], scheme: str) -> str | None:
    """Return the key of the ``Authorization`` header, if it has one of this scheme."""
    found, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() or None if found.lower() == scheme else None


def read_body(model: type[BodyT], body: bytes) -> BodyT:
    """Check a request's body; raises `RequestRefusedError` with status 400."""
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            message = "We could not parse the JSON body of your request."
            raise RequestRefusedError(400, message) from None
        first = error.errors(include_url=False, include_input=False)[0]
        # OpenAI writes messages[0].role; pydantic adds the branch of a union it tried, which says nothing to a caller
        path = [part for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part)]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        message = f"Invalid '{param}': {first['msg']}."
        raise RequestRefusedError(400, message, param=param or None) from None
