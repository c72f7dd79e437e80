"""`session.userdata`: what the application keeps of a call, noted as it changes, and given back to the next job.

It is stored field by field, as JSON: no pickle, and nothing is imported that a stored name asks for. A newer version of
the application reads what an older one left: fields that it does not know are passed over, and those that are missing
keep the values they were made with.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any, is_typeddict

from livekit.agents import AgentSession, AgentStateChangedEvent
from livekit.agents.voice.events import ToolCallEnded, ToolExecutionUpdatedEvent

from agent_worker.failures import Failures
from agent_worker.session.handlers import total
from agent_worker.session.notes import Noted, NoteTaker, look_up
from agent_worker.session.record_fields import Form, Shape, UnstorableError, fields_of, put_into
from conversation_actors.errors import InvalidInputError, ItemTooLargeError
from conversation_actors.values import encode

logger = logging.getLogger(__name__)

USERDATA = "livekit.userdata"
"""``{fields: {name: value}, forms: {name: form}}``; forms other than `Form.ITSELF`."""
MOST_BYTES = 64 << 10
"""Of the attribute; a field that is larger by itself is left out, and if all are too much the last ones stay."""

_WHOLE = ""
"""The name of the one field of userdata that has no fields."""


class Userdata:
    """Keeps the attribute up to date: at the end of each turn, and after each tool, if something changed."""

    def __init__(
        self,
        session: AgentSession[Any],
        conversation: NoteTaker,
        failures: Failures | None = None,
        *,
        kind: type | None = None,
    ) -> None:
        """Nothing is noted before `start`. `kind`: the type of the userdata; None: that of what the session has."""
        self._session, self._conversation = session, conversation
        self._failures = failures or Failures()
        self._kind = kind
        self._shapes: dict[type, Shape] = {}
        self._noted: dict[str, Any] | None = None
        self._told: set[str] = set()
        self._at_start: dict[str, Any] | None = None
        self._shape(self._value)
        told = "the session's userdata was not noted"
        handlers: dict[Any, Callable[[Any], None]] = {
            "agent_state_changed": self._on_agent_state,
            "tool_execution_updated": self._on_tool,
        }
        self._handlers = {name: total(handler, self._failures, "userdata", told) for name, handler in handlers.items()}
        self._look_safely = total(self._look, self._failures, "userdata", told)

    def start(self) -> None:
        """Note from now on, and what is there already. Call it after `restore`."""
        for name, handler in self._handlers.items():
            self._session.on(name, handler)
        self.keep()

    def stop(self) -> None:
        """Look a last time."""
        for name, handler in self._handlers.items():
            self._session.off(name, handler)
        self.keep()

    def keep(self) -> None:
        """Look now. Never raises."""
        self._look_safely()

    async def restore(self, noted: Noted) -> None:
        """Give the session what an earlier job noted, in the object that it has, if that can be changed.

        A field that cannot be read keeps the value it has; the log names it. Never raises.
        """
        told = "the session's userdata did not come back"
        total(self._restore, self._failures, "userdata", told)(noted)

    def remember(self) -> None:
        """Know later what the userdata was now. Never raises."""
        total(self._remember, self._failures, "userdata", "the session's userdata was not looked at")()

    async def restore_late(self, noted: Noted) -> None:
        """Do as `restore`, in a session that runs: a field that has changed since `remember` stays. Never raises."""
        told = "the session's userdata did not come back"
        total(self._restore_untouched, self._failures, "userdata", told)(noted)

    def _remember(self) -> None:
        value = self._value
        self._at_start = {} if value is None else self._written(value)["fields"]

    def _restore_untouched(self, noted: Noted) -> None:
        stored, value, before = look_up(noted, USERDATA), self._value, self._at_start or {}
        fields = stored.get("fields") if isinstance(stored, Mapping) else None
        if value is None or not isinstance(stored, Mapping) or not isinstance(fields, Mapping):
            self._restore(noted)
            return
        now, there, absent = self._written(value)["fields"], _fields(value), object()
        untouched = [
            name
            for name in fields
            if before.get(name, absent) == now.get(name, absent) and (name in now or name not in there)
        ]
        self._restore({USERDATA: {**stored, "fields": {name: fields[name] for name in untouched}}})

    @property
    def _value(self) -> Any:
        try:
            return self._session.userdata
        except ValueError:  # LiveKit's way to say that there is none
            return None

    def _shape(self, value: object) -> Shape:
        """How the fields are written and read; the first object of a type tells what the fields of others hold."""
        kind = self._kind if self._kind is not None and is_typeddict(self._kind) else type(value)
        if kind not in self._shapes:
            self._shapes[kind] = Shape(kind, _fields(value))
        return self._shapes[kind]

    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        if event.new_state == "listening":
            self._look()

    def _on_tool(self, event: ToolExecutionUpdatedEvent) -> None:
        if isinstance(event.update, ToolCallEnded):
            self._look()

    def _look(self) -> None:
        value = self._value
        if value is None:
            return
        told = self._written(value)
        try:
            encode(told, "userdata", limit=MOST_BYTES)
        except InvalidInputError as error:
            self._tell_once({"": str(error)}, "the session's userdata is not stored")
            return
        if told != self._noted:
            self._noted = told
            self._conversation.note(USERDATA, told)

    def _written(self, value: object) -> dict[str, Any]:
        """Return the fields that can be stored. The attribute is a copy: the session's own goes on changing."""
        shape, fields = self._shape(value), {}
        forms: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for name, one in _fields(value).items():
            try:
                fields[name], form = shape.write(name, one, limit=MOST_BYTES)
            except (UnstorableError, ItemTooLargeError) as error:
                left_out[name] = str(error)
            else:
                if form is not Form.ITSELF:
                    forms[name] = form.value
        self._tell_once(left_out, "fields of the session's userdata are not stored")
        return copy.deepcopy({"fields": fields, "forms": forms})

    def _tell_once(self, reasons: Mapping[str, str], told: str) -> None:
        news = {name: reason for name, reason in reasons.items() if name not in self._told}
        if news:
            self._told.update(news)
            logger.warning(told, extra={"fields": sorted(news), "reasons": sorted(set(news.values()))})

    def _restore(self, noted: Noted) -> None:
        stored, value = look_up(noted, USERDATA), self._value
        fields = stored.get("fields") if isinstance(stored, Mapping) else None
        if not isinstance(stored, Mapping) or not isinstance(fields, Mapping):
            return
        if value is None and self._kind is not None:
            value = self._kind()
        if value is None:
            return
        forms = stored.get("forms")
        read = self._read(value, fields, forms if isinstance(forms, Mapping) else {})
        self._session.userdata = read[_WHOLE] if _WHOLE in read else put_into(value, read)

    def _read(self, value: object, fields: Mapping[str, Any], forms: Mapping[str, object]) -> dict[str, Any]:
        shape, read, unread = self._shape(value), {}, []
        for name, stored in fields.items():
            if not shape.may_have(name):
                continue
            try:
                read[name] = shape.read(name, copy.deepcopy(stored), Form(str(forms.get(name, Form.ITSELF))))
            except (UnstorableError, ValueError):  # of a form that a newer version knows
                unread.append(name)
        if unread:
            logger.warning("fields of the session's userdata keep their new values", extra={"fields": unread})
        return read


def _fields(value: object) -> dict[str, Any]:
    """Return the fields of userdata; a list, or a text, is one field by itself."""
    fields = fields_of(value)
    return {_WHOLE: value} if fields is None else fields
