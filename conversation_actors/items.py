"""Items of a conversation's history, with LiveKit's field names so that they map one to one.

A caller builds `Message`, `FunctionCall`, `FunctionCallOutput`, `AgentHandoff` or `DataMessage`. A wrong type or an
unknown field is an `InvalidInputError` at once; a value that JSON cannot hold is one when the item is encoded. What was
*stored* is read leniently: fields of a newer version are kept, and an item of an unknown kind becomes an `OtherItem`.
On its way through the system an item is a `StoredItem`: its bytes, untouched, and the few facts that are needed to
bound the history.
"""

import base64
import binascii
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from conversation_actors.errors import InvalidInputError
from conversation_actors.values import check_id, decode, encode

Role = Literal["system", "developer", "user", "assistant"]
PINNED_ROLES = frozenset({"system", "developer"})
"""Roles whose messages stay in the window, because they say how to conduct the conversation."""
DATA_MESSAGE = "data_message"
"""The type of a `DataMessage`."""
LANGUAGE = "language"
"""In the `extra` of a message: the language in which it was said, by its author's recogniser: ``en-US``."""
_TELLING = frozenset({"type", "id", "created_at", "role", "call_id"})
"""Fields that are stored even if they have their default values: an item cannot be read back without them."""


class StoredItem(NamedTuple):
    """An item as it is stored: `data` is its JSON, byte for byte as its author encoded it.

    `role` is empty for anything but a message, `call_id` for anything but a call or its output.
    """

    id: str
    type: str
    role: str
    call_id: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the stored form."""
        return len(self.data)

    @property
    def pinned(self) -> bool:
        """Whether the item stays when older ones leave the window."""
        return self.role in PINNED_ROLES

    @property
    def is_readable(self) -> bool:
        """Whether `parse` could read these facts back. An item with other facts would be damage once it is stored."""
        # not all(…), which is slower: every item is checked
        identity, kind, role, call_id, _ = self
        return str is type(identity) is type(kind) is type(role) is type(call_id) and bool(identity and kind)

    def to_item(self) -> "Item":
        """Return the decoded item: an `OtherItem` if it does not read as its kind, as when a newer version wrote it."""
        fields = decode(self.data)
        try:
            return item_from_dict(fields)
        except InvalidInputError:
            return OtherItem.model_construct(**fields)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the facts out of stored bytes. Raises `ValueError` if the bytes are not those of an item."""
        fields = decode(data)
        if not isinstance(fields, dict):
            message = "an item is a JSON object"
            raise ValueError(message)  # noqa: TRY004  # one error for all bytes that are not an item
        kind, identity = fields.get("type"), fields.get("id")
        if not (isinstance(kind, str) and kind and isinstance(identity, str) and identity):
            message = "an item has a type and an id"
            raise ValueError(message)
        role, call_id = _facts(kind, fields)
        if not (isinstance(role, str) and isinstance(call_id, str)):
            message = f"{kind}: role and call_id are text"
            raise ValueError(message)  # noqa: TRY004  # one error for all bytes that are not an item
        return cls(identity, kind, role, call_id, data)


def bytes_of(items: Sequence[StoredItem]) -> int:
    """Return the bytes of all stored forms together."""
    if len(items) == 1:  # nearly always
        return len(items[0].data)
    return sum([len(item.data) for item in items])


def _facts(kind: str, fields: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the role and the call id, if this kind of item has them; another kind may use these names for anything."""
    if kind == "message":
        return fields.get("role"), ""
    return "", fields.get("call_id") if kind in {"function_call", "function_call_output"} else ""


def _reason(field: str, fault: str, told: str) -> str:
    """Return pydantic's reason, or a better one: for a union, pydantic reports only what the first of them lacks."""
    if fault == "extra_forbidden":
        return "no such field"
    if field == "content" and fault != "missing":
        return "expected text, or a list of texts and objects"
    return told


def _new_id() -> str:
    return "item_" + os.urandom(8).hex()


class Item(BaseModel):
    """Base of all items. `id` identifies the item: appending an `id` again replaces its content.

    `created_at` is in seconds since the epoch, by the author's clock. It does not order the history; `seq` does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    type: str
    id: str = Field(default_factory=_new_id)
    created_at: float = Field(default_factory=time.time, allow_inf_nan=False)

    if TYPE_CHECKING:  # not at run time: then pydantic would let no field of a subclass be called `text`

        @property
        def text(self) -> str:
            """The item in words, to be shown. Every kind of item has this; it is empty if there are no words."""

    @model_validator(mode="wrap")
    @classmethod
    def _typed_error(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        try:
            item: Self = handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = str(first["loc"][0]) if first["loc"] else cls.__name__
            message = f"{cls.__name__}: {field}: {_reason(field, first['type'], first['msg'])}"
            raise InvalidInputError(message, field=field) from None
        check_id(item.id, "id")
        if isinstance(item, (FunctionCall, FunctionCallOutput)):
            check_id(item.call_id, "call_id")
        return item

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form: the fields that were given, and those that an item cannot be read back without."""
        chosen = self.__pydantic_fields_set__
        fields = {}
        for name, value in self.__dict__.items():
            if name in chosen or name in _TELLING:
                fields[name] = value  # noqa: PERF403  # not a comprehension: that is a call, for every item
        extra = self.__pydantic_extra__
        return fields | extra if extra else fields

    def to_stored(self, *, limit: int | None = None) -> StoredItem:
        """Encode the item once, for everything that follows. Raises as `conversation_actors.values.encode` does.

        Also raises `InvalidInputError` if the item could not be read back: `model_copy` checks nothing, and may have
        emptied an id.
        """
        fields = self.to_dict()
        data = encode(fields, type(self).__name__, limit=limit)
        identity, kind = fields["id"], fields["type"]
        role, call_id = _facts(kind, fields)
        stored = StoredItem(identity, kind, role, call_id, data)
        if not stored.is_readable:
            message = (
                f"{type(self).__name__}: id and type must be plain text, and role and call_id where the type has them"
            )
            raise InvalidInputError(message, field="items")
        return stored


def speaker_in(extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return who said a message, by its `extra`; None if its author has not noted that. See `Message.participant`."""
    noted = extra.get("participant")
    if not isinstance(noted, Mapping) or not isinstance(noted.get("identity"), str):
        return None
    device = noted.get("device")
    return {"identity": noted["identity"], "device": device if isinstance(device, str) else None}


class Message(Item):
    """A message: something said, or an instruction. `content` is text, or a list of texts and content objects.

    Example:
        Message(role="user", content="Where is my order?")
        Message(role="user", content=["What is this?", {"type": "image_content", "image": "https://example.org/lamp.jpg"}])
    """

    type: Literal["message"] = "message"
    role: Role
    content: str | list[str | dict[str, Any]]
    interrupted: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """All text of the content, with its parts joined by line breaks; images and sounds are left out."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part for part in self.content if isinstance(part, str))

    @property
    def participant(self) -> Mapping[str, Any] | None:
        """Who said it, if its author has noted that: ``identity``, and ``device`` (None if it has no name)."""
        return speaker_in(self.extra)


class FunctionCall(Item):
    """The model's request to run a tool. `arguments` is JSON text as the model wrote it.

    Example:
        call = FunctionCall(call_id="call_1", name="look_up_order", arguments='{"order_id": "A-1042"}')
        assert call.text == 'look_up_order({"order_id": "A-1042"})'
    """

    type: Literal["function_call"] = "function_call"
    call_id: str
    name: str
    arguments: str
    extra: dict[str, Any] = Field(default_factory=dict)
    group_id: str | None = None

    @property
    def text(self) -> str:
        """The tool with its arguments: ``name({"a": 1})``."""
        return f"{self.name}({self.arguments})"


class FunctionCallOutput(Item):
    """The output of a tool. It shares `call_id` with its `FunctionCall`, and both leave the window together.

    Example:
        FunctionCallOutput(call_id="call_1", name="look_up_order", output="arriving on Wednesday")
    """

    type: Literal["function_call_output"] = "function_call_output"
    call_id: str
    name: str = ""
    output: str
    is_error: bool = False

    @property
    def text(self) -> str:
        """The output."""
        return self.output


class AgentHandoff(Item):
    """A change of agents: from here on another agent speaks.

    Example:
        assert AgentHandoff(old_agent_id="clerk", new_agent_id="cashier").text == "clerk → cashier"
    """

    type: Literal["agent_handoff"] = "agent_handoff"
    old_agent_id: str | None = None
    new_agent_id: str

    @property
    def text(self) -> str:
        """The agent that spoke before, and the one that speaks now: ``old → new``."""
        return f"{self.old_agent_id or ''} → {self.new_agent_id}".lstrip()


class DataMessage(Item):
    """Something that was sent besides the words: a command, a file. It is part of no model's history.

    `size` and `sha256` are of the whole payload. The payload is in `text` or, as base64, in `data`. Both are empty if
    it was too large to be kept.

    Example:
        sent = DataMessage(topic="commands", kind="packet", size=4, text="stop")
        assert sent.payload == b"stop"
    """

    type: Literal["data_message"] = "data_message"
    topic: str
    kind: Literal["packet", "text_stream", "byte_stream"]
    size: int = Field(ge=0)
    """Bytes that arrived."""
    participant: Mapping[str, str | None] | None = None
    """Who sent it: ``identity``, and ``device`` (None if it has no name). None if a server sent it."""
    name: str = ""
    """The name of a file, as its sender gave it."""
    mime_type: str = ""
    sha256: str | None = None
    text: str = ""
    data: str | None = None
    interrupted: bool = False
    """Whether the message broke off before its end."""
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("participant")
    @classmethod
    def _somebody(cls, value: Mapping[str, str | None] | None) -> Mapping[str, str | None] | None:
        if value is not None and not value.get("identity"):
            message = "an identity is missing"
            raise ValueError(message)
        return value

    @field_validator("text", mode="before")
    @classmethod
    def _no_text(cls, value: Any) -> Any:
        return "" if value is None else value  # earlier versions stored null if there was none

    @field_validator("data")
    @classmethod
    def _base64_alone(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("text"):
            message = "the payload is in text already"
            raise ValueError(message)
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            message = "expected base64"
            raise ValueError(message) from None
        return value

    @property
    def payload(self) -> bytes | None:
        """What was sent; None if only its facts were kept."""
        if self.data is not None:
            return base64.b64decode(self.data)
        return self.text.encode() if self.text or not self.size else None


class OtherItem(Item):
    """An item of a kind unknown to this version, kept as it is; `to_dict()` returns its fields.

    Example:
        item = item_from_dict({"type": "vote", "id": "v1", "choice": "yes"})
        assert isinstance(item, OtherItem)
        assert item.to_dict()["choice"] == "yes"
    """

    model_config = ConfigDict(extra="allow")

    @property
    def text(self) -> str:
        """The item's own field of this name if that is text, else an empty string."""
        own = (self.__pydantic_extra__ or {}).get("text")
        return own if isinstance(own, str) else ""


_KINDS: Mapping[str, type[Item]] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "agent_handoff": AgentHandoff,
    "data_message": DataMessage,
}


def item_from_dict(fields: Mapping[str, Any]) -> Item:
    """Read a stored or foreign form: unknown fields are kept, and an unknown `type` gives an `OtherItem`.

    Raises `InvalidInputError` if a known field has a wrong type, or `type` is missing.

    Example:
        item = item_from_dict({"type": "message", "role": "user", "content": "Hello"})
        assert isinstance(item, Message)
    """
    kind = fields.get("type") if isinstance(fields, Mapping) else None  # type: ignore[redundant-expr]  # foreign JSON
    if not isinstance(kind, str) or not kind:
        message = "type: an item needs one, as text"
        raise InvalidInputError(message, field="type")
    return _KINDS.get(kind, OtherItem).model_validate(dict(fields), extra="allow")
