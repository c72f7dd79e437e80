"""Small talk of the offline model: what it says if the caller speaks freely to the example shop's support agent.

It holds no model. It knows some dozen things that people say, remembers what the request's messages tell, and calls the
tools of the example agent if the request has them.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent_worker.offline import phrases
from agent_worker.offline.heard import Heard, ToolOutcome
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall, TranscriptScript, unclear
from agent_worker.offline.transcript import Transcript

KNOWN_ORDERS = "A-1042, A-1043 and A-0987"
"""The orders that a caller can ask about in the example agent's shop."""
_LOOK_UP, _RESCHEDULE, _NOTE = "look_up_order", "reschedule_delivery", "add_delivery_note"
_SUPERVISOR, _REFUND = "call_supervisor", "promise_refund"
_INTERRUPTED = re.compile(r"\binterrupted\b.*\bunknown\b")
_REFUND_OFFERED, _SUPERVISOR_OFFERED = "promise a refund", "Shall I get my supervisor?"
_DAY_OFFERED = ("Which day", "Possible days:", "now arrives on")
_FEW_WORDS = 4
_TO_DRIVER = re.compile(
    r"^.*?\b(?:tell|ask|let)\b.{0,20}?\b(?:driver|carrier|courier)\b\s*(?:know\s+)?(?:to|that)?\s*|"
    r"^.*?\b(?:leave|add|make)\b.{0,12}?\bnote\b\s*(?:for the driver)?\s*(?:that|to|:)?\s*",
    re.IGNORECASE,
)

Answer = Callable[[Heard], Reply | None]


@dataclass(frozen=True, slots=True)
class FirstCallScript:
    """A script that follows a transcript as long as the call does, and makes small talk otherwise.

    It does not say what is missing from a call. Only `TranscriptScript` by itself does that.
    """

    transcript: Transcript

    def reply(self, request: ChatRequest) -> Reply:
        """Return the transcript's next line, or small talk if the call is not on the transcript's way."""
        script = TranscriptScript(self.transcript)
        return (script if script.is_on_its_way(request) else SmallTalk()).reply(request)


class SmallTalk:
    """A script that answers what was said last, using what the messages tell about the caller."""

    def reply(self, request: ChatRequest) -> Reply:
        """Return the answer, or the call of a tool that is needed first."""
        heard = Heard.of(request)
        if heard is None:
            return Reply("Hello. How can I help?")
        if heard.is_answered:
            return Reply(phrases.ANYTHING_ELSE)
        if heard.outcomes:
            return Reply(" ".join(_told(heard, outcome) for outcome in heard.outcomes))
        return next((reply for answer in _ANSWERS if (reply := answer(heard)) is not None), _lost(heard))


def _told(heard: Heard, outcome: ToolOutcome) -> str:
    """Return a tool's output in the agent's words."""
    if _INTERRUPTED.search(outcome.output):
        return unclear(outcome.tool)
    if outcome.output.startswith("There is no order"):
        return f"{outcome.output} This shop knows {KNOWN_ORDERS}. Which one do you mean?"
    if outcome.tool == _LOOK_UP:
        return outcome.output + _moved(outcome.output, heard.outputs)
    if outcome.tool == _SUPERVISOR:
        return f"I am the supervisor, and have heard all of it{_to(heard)}. What can I put right?"
    return outcome.output


def _moved(found: str, outputs: Iterable[str]) -> str:
    """Return a sentence about the last change of an order's day in this call, which the carrier does not show."""
    order = found.partition(":")[0]
    changed = [text.removeprefix(moved) for text in outputs if text.startswith(moved := f"{order} now arrives on ")]
    return f" That is what the carrier shows; you moved it to {changed[-1]}" if changed else ""


def _to(heard: Heard) -> str:
    return f", {heard.name}" if heard.name else ""


def _call(heard: Heard, tool: str, say: str = "", **arguments: str) -> Reply:
    return Reply(say, (RequestedCall(f"call_talk_{heard.next_call}", tool, json.dumps(arguments)),))


def _identity(heard: Heard) -> Reply | None:
    if phrases.ROBOT.search(heard.words):
        return Reply(
            "Yes, a program: a stand-in without a language model, which knows a few sentences and this agent's tools."
        )
    if not phrases.IDENTITY.search(heard.words):
        return None
    who = "supervisor" if _REFUND in heard.tools else "support agent"
    return Reply(f"I am the {who} of the example's lamp shop; a stand-in that needs no account speaks for me.")


def _new_name(heard: Heard) -> Reply | None:
    if not heard.is_name_new:
        return None
    pleasure = f"Nice to meet you, {heard.name}."
    if heard.named_order and _LOOK_UP in heard.tools:
        return _call(heard, _LOOK_UP, f"{pleasure} One moment.", order_id=heard.named_order)
    if phrases.ORDER_WANTED.search(heard.words):
        return Reply(f"{pleasure} What is the number of your order?")
    return Reply(f"{pleasure} What can I do for you?")


def _memory_asked(heard: Heard) -> Reply | None:
    """Answer a question for what is known: the name, the order, the caller's own words, or all of it."""
    if phrases.OWN_NAME_ASKED.search(heard.words):
        return Reply(f"Your name is {heard.name}." if heard.name else "You have not told me your name yet. What is it?")
    if heard.named_order is None and phrases.ORDER_ASKED.search(heard.words):
        unknown = "You have not named an order yet. What is its number?"
        return Reply(f"You asked about order {heard.order}." if heard.order else unknown)
    if phrases.OWN_WORDS_ASKED.search(heard.words):
        place = 0 if "first" in heard.words.split() else -1
        return Reply(f"You said: {heard.earlier[place]}" if heard.earlier else "You have said nothing before that.")
    return _all_that_is_known(heard) if phrases.MEMORY_ASKED.search(heard.words) else None


def _all_that_is_known(heard: Heard) -> Reply:
    facts = [f"your name is {heard.name}"] if heard.name else []
    facts += [f"you asked about order {heard.order}"] if heard.order else []
    if not facts:
        return Reply("I remember this conversation; you have told me neither your name nor an order in it yet.")
    return Reply(f"Yes: {' and '.join(facts)}.")


def _person_wanted(heard: Heard) -> Reply | None:
    wants_money = phrases.MONEY_WANTED.search(heard.words)
    has_agreed = phrases.AGREED.search(heard.words) and heard.last_answer.endswith(_SUPERVISOR_OFFERED)
    if not wants_money and not has_agreed and not phrases.PERSON_WANTED.search(heard.words):
        return None
    if _SUPERVISOR in heard.tools:
        return _call(heard, _SUPERVISOR, f"I'll get my supervisor{_to(heard)}. One moment.")
    if _REFUND in heard.tools:
        return _refund(heard) if wants_money else Reply("You are speaking with the supervisor. What can I put right?")
    return Reply("There is no other person whom I could call. I am a stand-in, and all there is.")


def _refund(heard: Heard) -> Reply:
    if heard.order is None:
        return Reply("I can promise a refund. What is the number of the order?")
    return _call(heard, _REFUND, order_id=heard.order, reason=heard.said)


def _refund_agreed(heard: Heard) -> Reply | None:
    is_offered = _REFUND in heard.tools and _REFUND_OFFERED in heard.last_answer
    return _refund(heard) if is_offered and (heard.named_order or phrases.AGREED.search(heard.words)) else None


def _help_wanted(heard: Heard) -> Reply | None:
    if heard.named_order or not phrases.HELP_WANTED.search(heard.words):
        return None
    if _REFUND in heard.tools:
        return Reply("I am the supervisor: tell me what went wrong with your order, and I can promise a refund.")
    if _LOOK_UP not in heard.tools:
        tools = f" I was given these tools: {', '.join(sorted(heard.tools))}." if heard.tools else ""
        return Reply(
            f"I can chat a little, and remember your name and an order number.{tools} I hold no language model."
        )
    return Reply(
        "I can tell you where an order is (try A-1042), move its delivery to another day, leave a note for the driver, "
        "get my supervisor, and remember your name, also if I am killed in between."
    )


def _note_wanted(heard: Heard) -> Reply | None:
    if _NOTE not in heard.tools or not phrases.NOTE_WANTED.search(heard.words):
        return None
    if heard.order is None:
        return Reply("I can leave a note for the driver. What is the number of the order?")
    note = _TO_DRIVER.sub("", heard.said, count=1).strip(" .") or heard.said
    return _call(heard, _NOTE, order_id=heard.order, note=note)


def _day_wanted(heard: Heard) -> Reply | None:
    if _RESCHEDULE not in heard.tools or not _wants_other_day(heard):
        return None
    if heard.order is None:
        return Reply("I can move a delivery. What is the number of the order?")
    days = [day for day in phrases.DAY.findall(heard.words) if day not in {"today", "tomorrow"}]
    if not days:
        return Reply("I can move it to any day from Monday to Saturday. Which day shall it be?")
    return _call(heard, _RESCHEDULE, order_id=heard.order, day=days[-1].capitalize())


def _wants_other_day(heard: Heard) -> bool:
    if phrases.OTHER_DAY_WANTED.search(heard.words):
        return True
    if not phrases.DAY.search(heard.words):
        return False
    is_asked = any(words in heard.last_answer for words in _DAY_OFFERED) and len(heard.words.split()) <= _FEW_WORDS
    return is_asked or (
        phrases.MOVE_WANTED.search(heard.words) is not None and not phrases.MOMENT_ASKED.match(heard.words)
    )


def _order_wanted(heard: Heard) -> Reply | None:
    if not heard.named_order and not phrases.ORDER_WANTED.search(heard.words):
        return None
    number = "What is the number of your order?"
    if _REFUND in heard.tools:
        return Reply(
            f"I cannot look orders up. Shall I {_REFUND_OFFERED} for {heard.order}?" if heard.order else number
        )
    if _LOOK_UP not in heard.tools:
        known = f"I have noted order {heard.order}" if heard.order else "I would ask for your order's number"
        return Reply(f"{known}, but this agent gave me no tool to look orders up.")
    if heard.order is None:
        return Reply(f"{number} If you have none, try A-1042.")
    return _call(heard, _LOOK_UP, order_id=heard.order)


def _repetition_wanted(heard: Heard) -> Reply | None:
    if not phrases.REPETITION_WANTED.search(heard.words):
        return None
    return Reply(heard.last_answer or "I have said nothing yet. How can I help?")


def _sentence(sentence: phrases.Sentence) -> Answer:
    def answer(heard: Heard) -> Reply | None:
        return Reply(sentence.answer.replace("{name}", _to(heard))) if sentence.wanted.search(heard.words) else None

    return answer


def _lost(heard: Heard) -> Reply:
    """Return the answer to everything else, which says what would be understood."""
    wish = "Ask me where an order is" if _LOOK_UP in heard.tools else "Tell me your name"
    return Reply(f"I did not understand that{_to(heard)}: I know a few sentences only. {wish}, or ask what I can do.")


_ANSWERS: tuple[Answer, ...] = (
    *(_identity, _memory_asked, _new_name, _refund_agreed, _person_wanted),
    *(_sentence(phrases.HEARD), _sentence(phrases.WEATHER)),
    *(_note_wanted, _day_wanted, _help_wanted, _order_wanted, _repetition_wanted),
    *(_sentence(one) for one in phrases.SENTENCES),
)
"""The possible answers in order. The first one that is not None is given."""
