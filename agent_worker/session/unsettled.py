"""What the caller said, and no message has yet: words that wait for the end of their turn. Pure."""

from dataclasses import dataclass

MOST_TRANSCRIPT_BYTES = 8 << 10
"""Of what was said and not made a message; the end of it is kept."""


@dataclass(frozen=True, slots=True)
class _Words:
    text: str
    may_be_skipped: bool


class UnsettledWords:
    """Final words in order; those at the front belong to the turn that is being completed, if one is."""

    def __init__(self) -> None:
        """Nothing was said."""
        self._words: list[_Words] = []
        self._in_turn = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._words)

    @property
    def text(self) -> str:
        """All of it, or the end of it if it is long."""
        return _end_of(" ".join(one.text for one in self._words))

    @property
    def may_be_skipped(self) -> bool:
        """Whether all of it was said while the agent could not be interrupted: LiveKit skips such a turn."""
        return bool(self._words) and all(one.may_be_skipped for one in self._words)

    def hear(self, text: str, *, may_be_skipped: bool) -> None:
        """Add final words."""
        self._words.append(_Words(_end_of(text.strip()), may_be_skipped))
        while len(self._words) > 1 and _size(self._words) > MOST_TRANSCRIPT_BYTES:
            del self._words[0]
            self._in_turn = max(0, self._in_turn - 1)

    def complete(self, turn: str) -> None:
        """Note that the turn of this text has ended; the application is asked what becomes of it."""
        count = 0
        for words in self._words:
            place = turn.find(words.text)
            if place < 0:
                break
            turn, count = turn[place + len(words.text) :], count + 1
        # what it says otherwise than it was heard is all that was heard
        self._in_turn = count or len(self._words)

    def refuse(self) -> None:
        """No message comes of the turn that has ended."""
        del self._words[: self._in_turn]
        self._in_turn = 0

    def settle(self) -> None:
        """Settle the words of the turn that has ended, or all if none has: their message has come."""
        del self._words[: self._in_turn or len(self._words)]
        self._in_turn = 0

    def cancel(self) -> None:
        """Forget the turn that has not ended: it was taken back."""
        del self._words[self._in_turn :]

    def clear(self) -> None:
        """No message comes of anything."""
        self._words.clear()
        self._in_turn = 0


def _size(words: list[_Words]) -> int:
    return sum(len(one.text.encode("utf-8", "replace")) + 1 for one in words)


def _end_of(text: str) -> str:
    return text.encode("utf-8", "replace")[-MOST_TRANSCRIPT_BYTES:].decode("utf-8", "ignore")
