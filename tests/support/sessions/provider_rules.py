"""What the vendors' documentation says a request must be, for each format that LiveKit writes.

Each function takes what `ChatContext.to_provider_format` gives, and tells what the vendor would refuse in it. The rules
are the published ones, cited by page and section; where a vendor's page is silent, the text of the vendor's own error.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from livekit.agents.llm import ChatContext, ChatItem, ChatMessage

Entry = Mapping[str, Any]
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def openai(messages: Sequence[Entry]) -> Iterator[str]:
    """OpenAI, guide "Function calling", "Handling function calls", and the API reference of chat completions.

    The messages behind an assistant's ``tool_calls`` answer each of them, once, before anything else is said. Errors:
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'", and
    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'".
    """
    awaited: Counter[str] = Counter()
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if not awaited[message["tool_call_id"]]:
                yield f"{number}: a tool message without a call"
            awaited[message["tool_call_id"]] -= 1
            continue
        if +awaited:
            yield f"{number}: calls without a tool message"
        calls = message.get("tool_calls", ())
        awaited = Counter(call["id"] for call in calls)
        if any(count > 1 for count in awaited.values()):
            yield f"{number}: two calls of one id"
        if not calls and message.get("content") is None:
            yield f"{number}: nothing said, and nothing called"
    if +awaited:
        yield "the last calls have no tool message"


def openai_responses(items: Sequence[Entry]) -> Iterator[str]:
    """OpenAI, guide "Function calling", the tab of the Responses API; API reference "Create a model response", `input`.

    Each ``function_call`` has one ``function_call_output`` of its ``call_id`` behind it. The errors: "No tool output
    found for function call", and "No tool call found for function call output with call_id".
    """
    calls = Counter(item["call_id"] for item in items if item.get("type") == "function_call")
    outputs = Counter(item["call_id"] for item in items if item.get("type") == "function_call_output")
    if calls != outputs or any(count > 1 for count in calls.values()):
        yield "calls and outputs are not one to one"
    known: set[str] = set()
    for number, item in enumerate(items):
        if item.get("type") == "function_call":
            known.add(item["call_id"])
        elif item.get("type") == "function_call_output" and item["call_id"] not in known:
            yield f"{number}: an output before its call"


def anthropic(messages: Sequence[Entry]) -> Iterator[str]:
    """Anthropic, "Handle tool calls" ("Implement tool use"), "Formatting requirements", and the Messages API reference.

    "Tool result blocks must immediately follow their corresponding tool use blocks in the message history"; they come
    first in the content, text after them. The first message is the user's; no content is empty, no text blank; an id of
    a tool use is unique, of ``^[a-zA-Z0-9_-]+$``.
    """
    yield from _alternating(messages, "assistant")
    ids = [block["id"] for message in messages for block in message["content"] if block["type"] == "tool_use"]
    if len(ids) != len(set(ids)) or not all(_ID.fullmatch(one) for one in ids):
        yield "ids of tool uses"
    awaited: list[str] = []
    for number, message in enumerate(messages):
        kinds = [block["type"] for block in message["content"]]
        results = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        if sorted(results) != sorted(awaited):
            yield f"{number}: results that are not those of the message before"
        if any(kind == "tool_result" for kind in kinds[len(results) :]):
            yield f"{number}: text in front of a result"
        if any(block["type"] == "text" and not block["text"].strip() for block in message["content"]):
            yield f"{number}: blank text"
        awaited = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    if awaited:
        yield "the last tool uses have no results"


def google(turns: Sequence[Entry]) -> Iterator[str]:
    """Google, "Function calling with the Gemini API", "Multi-turn", by the texts of the errors that the API gives.

    "Please ensure that function call turn comes immediately after a user turn or after a function response turn",
    "… that function response turn comes immediately after a function call turn", "… that the number of function
    response parts is equal to the number of function call parts of the function call turn". A name is never empty
    (API reference "FunctionResponse"). The last turn is the user's.
    """
    called = 0
    for number, turn in enumerate(turns):
        calls = sum("function_call" in part for part in turn["parts"])
        responses = [part["function_response"] for part in turn["parts"] if "function_response" in part]
        if calls and (number == 0 or turns[number - 1]["role"] != "user"):
            yield f"{number}: a call behind no turn of the user"
        if len(responses) != called:
            yield f"{number}: {len(responses)} responses to {called} calls"
        if responses and len(responses) != len(turn["parts"]):
            yield f"{number}: words among responses"
        if not all(response["name"] for response in responses):
            yield f"{number}: a response without a name"
        if not turn["parts"]:
            yield f"{number}: an empty turn"
        called = calls
    if turns and turns[-1]["role"] != "user":
        yield "the last turn is not the user's"


def aws(messages: Sequence[Entry]) -> Iterator[str]:
    """Amazon Bedrock, API reference "Message", "ToolUseBlock", and user guide "Call a tool with the Converse API".

    "A conversation must start with a user message", and roles alternate; a message with tool uses is followed by one
    with a result of each ("Expected toolResult blocks at … for the following Ids"); ids and names are 1 to 64 of
    ``[a-zA-Z0-9_-]``; "The text field in the ContentBlock object … is blank".
    """
    yield from _alternating(messages, "assistant")
    awaited: list[str] = []
    for number, message in enumerate(messages):
        results = [block["toolResult"]["toolUseId"] for block in message["content"] if "toolResult" in block]
        uses = [block["toolUse"] for block in message["content"] if "toolUse" in block]
        if sorted(results) != sorted(awaited):
            yield f"{number}: results that are not those of the message before"
        if any("text" in block and not block["text"].strip() for block in message["content"]):
            yield f"{number}: blank text"
        if not all(_ID.fullmatch(use["toolUseId"]) and _ID.fullmatch(use["name"]) for use in uses):
            yield f"{number}: an id, or a name, of a tool use"
        awaited = [use["toolUseId"] for use in uses]
        if len(awaited) != len(set(awaited)):
            yield f"{number}: two tool uses of one id"
    if awaited:
        yield "the last tool uses have no results"


def mistralai(entries: Sequence[Entry]) -> Iterator[str]:
    """Mistral, "Agents & Conversations", "Function calling", and the API's "FunctionCallEntry", "FunctionResultEntry".

    Each ``function.call`` is answered by one ``function.result`` of its ``tool_call_id`` before the talk goes on. The
    errors: "Not the same number of function calls and responses", "Unexpected role 'tool'". The last entry is none of
    the assistant's.
    """
    awaited: Counter[str] = Counter()
    for number, entry in enumerate(entries):
        if entry["type"] == "function.call":
            awaited[entry["tool_call_id"]] += 1
        elif entry["type"] == "function.result":
            if awaited[entry["tool_call_id"]] != 1:
                yield f"{number}: a result without a call"
            awaited[entry["tool_call_id"]] -= 1
        elif +awaited:
            yield f"{number}: calls without results"
    if +awaited:
        yield "the last calls have no results"
    if entries and entries[-1].get("role") == "assistant":
        yield "the last entry is the assistant's"


def _alternating(messages: Sequence[Entry], other: str) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    if roles != [("user", other)[number % 2] for number in range(len(roles))]:
        yield f"roles: {roles}"
    if not all(message["content"] for message in messages):
        yield "an empty message"


RULES: Mapping[str, Callable[[Sequence[Entry]], Iterator[str]]] = {
    "openai": openai,
    "openai.responses": openai_responses,
    "anthropic": anthropic,
    "google": google,
    "aws": aws,
    "mistralai": mistralai,
}


def refusals(context: Sequence[ChatItem]) -> dict[str, list[str]]:
    """What each vendor would refuse of a context, by the vendor; empty where all would take it.

    Behind it stands what the caller says next: how a request ends is LiveKit's to see to.
    """
    request = ChatContext([*context, ChatMessage(role="user", content=["And now?"])])
    found = {vendor: list(rules(request.to_provider_format(vendor)[0])) for vendor, rules in RULES.items()}
    return {vendor: faults for vendor, faults in found.items() if faults}
