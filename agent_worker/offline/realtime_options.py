"""The options of a realtime session, by the rules of OpenAI's Realtime API. Pure: no I/O, no clock."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from agent_worker.offline.realtime_items import Event, EventRefusedError

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TURN_DETECTIONS = frozenset({"server_vad", "semantic_vad"})
RATE = 24_000
"""Samples a second of sound in both directions. OpenAI takes no other rate as ``audio/pcm``."""


class SessionOptions:
    """A session's options. An update that is refused changes none of them."""

    def __init__(self, model: str) -> None:
        """Begin with the options of a new session."""
        sound = {"type": "audio/pcm", "rate": RATE}
        self._told: Event = {
            "type": "realtime",
            "object": "realtime.session",
            "model": model,
            "instructions": "",
            "output_modalities": ["audio"],
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "audio": {
                "input": {"format": sound, "transcription": None, "turn_detection": {"type": "server_vad"}},
                "output": {"format": sound, "voice": "marin", "speed": 1.0},
            },
        }

    def told(self) -> Event:
        """Return a copy of all options, in the form in which clients are told."""
        return copy.deepcopy(self._told)

    @property
    def instructions(self) -> str:
        """The instructions of the model; empty if there are none."""
        return str(self._told["instructions"] or "")

    @property
    def tools(self) -> dict[str, Event]:
        """The definition of each tool, by name."""
        return {tool["name"]: tool for tool in self._told["tools"]}

    @property
    def tool_choice(self) -> object:
        """OpenAI's ``tool_choice``: whether tools may be used."""
        return self._told["tool_choice"]

    @property
    def is_spoken(self) -> bool:
        """Whether the model answers with sound. If not, it answers with text."""
        return list(self._told["output_modalities"]) == ["audio"]

    @property
    def is_transcribed(self) -> bool:
        """Whether the client is told what was heard."""
        return self._told["audio"]["input"]["transcription"] is not None

    @property
    def turn_detection(self) -> Mapping[str, Any] | None:
        """How the server finds turns. None if the client commits them."""
        found: Mapping[str, Any] | None = self._told["audio"]["input"]["turn_detection"]
        return found

    def update(self, wanted: object, *, has_spoken: bool) -> None:
        """Apply a client's update. Raises `EventRefusedError` if the update is not allowed.

        `has_spoken` says whether there was sound from the model already; the voice cannot change then.
        """
        if not isinstance(wanted, Mapping) or wanted.get("type") != "realtime":
            message = "Missing required parameter: 'session.type'."
            raise EventRefusedError(message, code="missing_required_parameter", param="session.type")
        changed = _merged(self._told, wanted)
        if changed["model"] != self._told["model"]:
            message = "The model of a session cannot be changed."
            raise EventRefusedError(message, code="invalid_value", param="session.model")
        if has_spoken and changed["audio"]["output"]["voice"] != self._told["audio"]["output"]["voice"]:
            message = "Cannot update a conversation's voice if assistant audio is present."
            raise EventRefusedError(message, code="cannot_update_voice", param="session.audio.output.voice")
        _check(changed)
        self._told = changed


def check_tools(tools: object, param: str) -> None:
    """Raise `EventRefusedError` if a tool's name is not valid. `param` is the name of the parameter in the error."""
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        name = tool.get("name") if isinstance(tool, Mapping) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            message = f"Invalid '{param}[{index}].name': must be up to 64 letters, digits, underscores and dashes."
            raise EventRefusedError(message, code="invalid_value", param=f"{param}[{index}].name")


def _check(options: Event) -> None:
    if options["output_modalities"] not in (["audio"], ["text"]):
        message = "Invalid modalities: it is not possible to request both text and audio at the same time."
        raise EventRefusedError(message, code="invalid_value", param="session.output_modalities")
    detection = options["audio"]["input"]["turn_detection"]
    if detection is not None and detection.get("type") not in _TURN_DETECTIONS:
        message = f"Invalid value: '{detection.get('type')}'."
        raise EventRefusedError(message, code="invalid_value", param="session.audio.input.turn_detection.type")
    for side in ("input", "output"):
        if options["audio"][side]["format"] != {"type": "audio/pcm", "rate": RATE}:
            message = "Only a 24kHz sample rate is supported."
            raise EventRefusedError(message, code="invalid_value", param=f"session.audio.{side}.format")
    check_tools(options["tools"], "session.tools")


def _merged(old: Event, new: Mapping[str, Any]) -> Event:
    """Return `old` with the values that `new` names. Groups of audio options are merged, all else is replaced."""
    merged = dict(old)
    for name, value in new.items():
        is_group = name in {"audio", "input", "output"} and isinstance(value, Mapping)
        merged[name] = _merged(old[name], value) if is_group else copy.deepcopy(value)
    return merged
