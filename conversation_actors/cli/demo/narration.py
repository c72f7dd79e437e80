"""What people see while the demo runs. On anything but a terminal: plain lines."""

import json
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from conversation_actors.calls import SessionRecord
from conversation_actors.cli.demo.performer import Told
from conversation_actors.cli.demo.verdict import Verdict

_SPOKEN_LINES = 7
"""Lines of the call that are shown after each step: a reader wants to see the call go on, not to read it."""
_WIDTH = 100


class Narration:
    """A narrator that tells the steps in plain words, and lets a few lines of the call be heard."""

    def __init__(self, console: Console) -> None:
        """Take the `console` to print to."""
        self._console = console
        self._status: Live | None = None
        self._heard = 0
        self.current = "start"

    def step(self, title: str, text: str) -> None:
        """Begin a step."""
        self.current, self._heard = title, 0
        self._console.print()
        self._console.print(Text(title, style="bold"))
        if text:
            self._console.print(Text(text), width=min(_WIDTH, self._console.width))

    def note(self, text: str, *, style: str = "") -> None:
        """Say what came of the step."""
        self._console.print(Padding(Text(f"→ {text}", style=style), (0, 0, 0, 2)), width=self._width)

    def busy(self, text: str) -> None:
        """Show what the demo waits for, if there is a terminal to show it on."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            # not `console.status`, which would let Ray's reports of our kills through
            self._status = Live(console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._status.start()
        self._status.update(Spinner("dots", Text(text)))

    def stop(self) -> None:
        """Remove what is shown only for the moment."""
        status, self._status = self._status, None
        if status is not None:
            status.stop()

    def hear(self, line: Told, *, who: str) -> None:
        """Show a line that an agent's process has printed."""
        match line["event"]:
            case "user":
                self._say("caller", "cyan", line["text"])
            case "assistant":
                self._say(who, "green", line["text"])
            case "tool_call":
                given = ", ".join(f"{name}={value}" for name, value in _arguments(line["arguments"]).items())
                self._say("  tool", "magenta", f"{line['name']}({given})")
            case "acknowledged":
                self.busy(f"the call goes on: turn {line['turn'] + 1}, {line['items']} items are safe")

    def table(self, kills: list[dict[str, Any]], verdict: Verdict, seconds: float) -> None:
        """Show what was done to the call, and what is left of it."""
        self.stop()
        self._console.print()
        self._console.print(Group(_kills(kills), Text(), _counts(verdict)), width=self._width)
        word, style = ("Nothing was lost.", "bold green") if verdict.passed else ("A promise was broken.", "bold red")
        self._console.print(Text(f"\n{word} ({seconds:.0f} s)", style=style))

    def record(self, record: SessionRecord) -> None:
        """Show the record of the call."""
        self._console.print(Text("\nThe record of the first call", style="bold"))
        told = "Whoever was not there reads this; `conversation-actors sessions` prints it of every call of yours."
        self._console.print(Text(told), width=self._width)
        self._console.print(Padding(Text(record.to_text()), (0, 0, 0, 2)), soft_wrap=True)

    @property
    def _width(self) -> int:
        return min(_WIDTH, self._console.width)

    def _say(self, who: str, style: str, text: str) -> None:
        self._heard += 1
        if self._heard == _SPOKEN_LINES + 1:
            self._console.print(Text("  …", style="dim"))
        if self._heard > _SPOKEN_LINES:
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=9, justify="right", style=style)
        grid.add_column()
        grid.add_row(who, Text(text))
        self._console.print(grid, width=self._width)


def _arguments(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError:
        return {"": text}
    return read if isinstance(read, dict) else {"": read}


def _kills(kills: list[dict[str, Any]]) -> RenderableType:
    table = Table(title="What was done to the call", title_style="bold", title_justify="left", expand=True)
    table.add_column("what", ratio=3)
    table.add_column("how", ratio=4)
    table.add_column("answer after", justify="right", no_wrap=True, min_width=12)
    table.add_column("what happened then", ratio=8)
    for kill in kills:
        table.add_row(kill["what"], kill["how"], f"{kill['seconds_until_answer']:.2f} s", kill["then"])
    return table


def _counts(verdict: Verdict) -> RenderableType:
    table = Table(title="What is left of it", title_style="bold", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows: list[tuple[str, int | str, bool]] = [
        ("items acknowledged as durable to those who sent them", verdict.acknowledged, verdict.acknowledged > 0),
        ("items present (some were written, and their sender killed before it was told)", verdict.present, True),
        ("lost", len(verdict.lost), not verdict.lost),
        ("duplicated", len(verdict.duplicated), not verdict.duplicated),
        ("not seen by the watching process", len(verdict.unseen_by_watcher), not verdict.unseen_by_watcher),
        ("forgotten when Redis was wiped", len(verdict.forgotten), not verdict.forgotten),
        ("went on as the same conversation", _yes(verdict.went_on_after_wipe), verdict.went_on_after_wipe),
        ("caller welcomed back", _yes(verdict.welcomed_back), verdict.welcomed_back),
        ("order kept", _yes(verdict.order_kept), verdict.order_kept),
        ("every word as in the transcript", _yes(verdict.words_as_written), verdict.words_as_written),
    ]
    for name, value, good in rows:
        table.add_row(name, Text(str(value), style="green" if good else "bold red"))
    return table


def _yes(value: bool) -> str:  # noqa: FBT001  # a value to print
    return "yes" if value else "no"
