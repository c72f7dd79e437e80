"""In which language a message was said, as the recogniser tells it of the words that became the message."""

from livekit.agents import UserInputTranscribedEvent
from livekit.agents.llm import ChatMessage

from conversation_actors.items import LANGUAGE


class HeardLanguage:
    """The language of what was understood last, until a message has the words."""

    def __init__(self) -> None:
        """Nothing was understood."""
        self._words, self._language = "", ""

    def hear(self, event: UserInputTranscribedEvent) -> None:
        """Take what the recogniser is done with; of words whose language it does not tell, none is known."""
        if event.is_final and event.transcript.strip():
            self._words, self._language = event.transcript.strip(), str(event.language or "")

    def note_in(self, message: ChatMessage) -> None:
        """Note the language in the message, if it has the words: one that was typed meanwhile does not."""
        if self._language and self._words in (message.text_content or ""):
            message.extra.setdefault(LANGUAGE, self._language)
            self._words = self._language = ""
