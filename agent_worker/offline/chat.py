"""OpenAI's chat-completions protocol as far as a server needs it: check requests, and cut answers into chunks.

Pure: no I/O, no clock, no randomness.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_worker.offline.refusals import RequestRefusedError, read_body
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall, text_of

ARGUMENT_PIECE = 7
"""How many characters of a tool call's arguments are in one chunk; so few that every real call comes in pieces."""


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class _CalledFunction(_Loose):
    name: str = Field(min_length=1)
    arguments: str


class _Call(_Loose):
    id: str = Field(min_length=1)
    type: Literal["function"]
    function: _CalledFunction


class _Part(_Loose):
    type: str


class _Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = Field(default=None, min_length=1)
    tool_call_id: str | None = None


class _Function(_Loose):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")


class _Tool(_Loose):
    type: Literal["function"]
    function: _Function


class _StreamOptions(_Loose):
    include_usage: bool = False


class CompletionRequest(_Loose):
    """The body of ``POST /v1/chat/completions``. Fields that are not named here are accepted and ignored."""

    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @property
    def usage_wanted(self) -> bool:
        """Whether the stream has to end with a chunk that holds the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_chat(self) -> ChatRequest:
        """Return the parts of the request that a script decides from."""
        return ChatRequest(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            tools=frozenset(tool.function.name for tool in self.tools or []),
            tools_allowed=self.tool_choice != "none",
        )


def read_request(body: bytes) -> CompletionRequest:
    """Read and check a request's body. Raises `RequestRefusedError` with status 400."""
    request = read_body(CompletionRequest, body)
    _check_tool_order(request.messages)
    return request


def _check_tool_order(messages: list[_Message]) -> None:
    """Check that each tool call is answered by the tool messages right after it, and that no tool message is alone.

    Raises `RequestRefusedError` with status 400.
    """
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                text = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise RequestRefusedError(400, f"Invalid parameter: {text}", param=f"messages.[{index}].role")
            open_calls.discard(message.tool_call_id)
            continue
        _check_answered(open_calls, index)
        open_calls = {call.id for call in message.tool_calls or []}
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str], index: int) -> None:
    if open_calls:
        text = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(sorted(open_calls))
        )
        raise RequestRefusedError(400, text, param=f"messages.[{index}].role")


def usage(request: CompletionRequest, reply: Reply) -> dict[str, int]:
    """Count words instead of tokens, because there is no tokenizer here and nothing is billed."""
    prompt = sum(len(text_of(message).split()) for message in request.to_chat().messages)
    completion = len(reply.text.split()) + sum(len(call.arguments.split()) for call in reply.calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(identity: str, created: int, request: CompletionRequest, reply: Reply) -> dict[str, Any]:
    """Return the body of an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [_whole_call(call) for call in reply.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    return {
        **_envelope(identity, created, request, "chat.completion"),
        "choices": [choice],
        "usage": usage(request, reply),
    }


def chunks(identity: str, created: int, request: CompletionRequest, reply: Reply) -> Iterator[Mapping[str, Any]]:
    """Yield the chunks of a streamed answer in order, without the closing ``[DONE]``."""
    envelope = _envelope(identity, created, request, "chat.completion.chunk")
    for delta in _deltas(reply):
        yield {**envelope, "choices": [_choice(delta, None)]}
    yield {**envelope, "choices": [_choice({}, _finish_reason(reply))]}
    if request.usage_wanted:
        yield {**envelope, "choices": [], "usage": usage(request, reply)}


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if reply.text else None}
    for word in re.findall(r"\S+\s*", reply.text):
        yield {"content": word}
    for index, call in enumerate(reply.calls):
        yield {"tool_calls": [{"index": index, **_whole_call(call, arguments="")}]}
        for start in range(0, len(call.arguments), ARGUMENT_PIECE):
            piece = call.arguments[start : start + ARGUMENT_PIECE]
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _whole_call(call: RequestedCall, arguments: str | None = None) -> dict[str, Any]:
    text = call.arguments if arguments is None else arguments
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": text}}


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _envelope(identity: str, created: int, request: CompletionRequest, kind: str) -> dict[str, Any]:
    return {"id": identity, "object": kind, "created": created, "model": request.model, "service_tier": "default"}
