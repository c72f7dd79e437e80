"""What a transcript says should be there at the end, and where in it to kill something."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Line = tuple[str, str]
"""Role and text."""


@dataclass(frozen=True, slots=True)
class DemoScript:
    """The call as written: what is said, in order, and which tools are used, how often."""

    turns: tuple[str, ...]
    lines: tuple[Line, ...]
    calls: Counter[str]
    steps: tuple[int, ...]
    """How many rounds of tools each turn has."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a transcript that the offline model has accepted, which checks it."""
        turns: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["turns"]
        lines: list[Line] = []
        calls: Counter[str] = Counter()
        for turn in turns:
            lines.append(("user", turn["user"]))
            for step in turn.get("steps", []):
                lines += [("assistant", step["say"])] if step.get("say") else []
                calls.update(call_key(call["name"], call["arguments"]) for call in step["calls"])
            lines.append(("assistant", turn["reply"]))
        steps = tuple(len(turn.get("steps", [])) for turn in turns)
        return cls(tuple(turn["user"] for turn in turns), tuple(lines), calls, steps)

    def cut(self, share: float, *, with_tools: bool = False) -> int:
        """Return the turn at which to interfere, near this share of the call: none of the first two, nor the last."""
        last = len(self.turns) - 2
        wanted = min(max(2, round(share * len(self.turns))), last)
        fitting = [turn for turn in range(2, last + 1) if self.steps[turn]] if with_tools else []
        return min(fitting, key=lambda turn: abs(turn - wanted), default=wanted)


def call_key(name: str, arguments: Any) -> str:
    """Return a tool call in a form that can be compared.

    `arguments` is an object, or the JSON text that a model wrote.
    """
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    return f"{name} {json.dumps(value, sort_keys=True)}"
