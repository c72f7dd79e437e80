"""The shapes: which agent, what is said in its calls, and what must be true of every one of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

from agent_worker.offline.script import Reply, RequestedCall
from tests.adopt.model import Message

_numbers = itertools.count(1)


class Fault(StrEnum):
    """What happens to the agent in the middle of its call."""

    NOTHING = "nothing"
    CRASH = "crash"
    HANG = "hang"
    DEPLOY = "deploy"
    MIGRATE = "migrate"

    @property
    def is_planned(self) -> bool:
        """Whether the agent may finish its sentence, so that nobody needs to say that anything happened."""
        return self in {Fault.NOTHING, Fault.DEPLOY, Fault.MIGRATE}


@dataclass(frozen=True, slots=True)
class Turn:
    """What the caller types, and what the agent says to it."""

    says: str
    hears: str
    call: tuple[str, str] | None = None
    """The tool that the model asks for, and its arguments as JSON."""
    speech: str | None = None
    """What the model says unasked behind the tool, where the tool's output is not read out."""
    kept: str | None = None
    """What the conversation keeps of what the caller says; empty: nothing, None: all of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of agent, and a call that shows whether it is still itself after a fault.

    The model reads a tool's output out, word for word: what a tool sees is what the caller hears.
    """

    name: str
    """The agent's module, in `tests.adopt.agents`, unless it has a `program` of its own."""
    before: tuple[Turn, ...]
    after: tuple[Turn, ...]
    others: tuple[Turn, ...] = ()
    """What the model has an answer to, beside what is said in every call."""
    greeting: str = ""
    """What the agent says before anybody has asked, once in the whole call; empty: nothing."""
    greeting_asked: str = ""
    """Words of the instructions by which the agent has the model greet; empty: the greeting is not the model's."""
    agent_name: str = ""
    """Empty: dispatched automatically."""
    metadata: str = ""
    brought: tuple[str, ...] = ()
    """What the application has put into the context itself: it stands in every request, in this order."""
    begins: tuple[str, ...] = ()
    """What is done at the beginning of the call, without having been asked for: the first of its effects."""
    effects: tuple[str, ...] = ()
    """What must have been done once by the end, in order."""
    diff: tuple[str, ...] = ("await attach(session, ctx)",)
    """Lines, beside the import, by which the agent differs from one without `agent_worker`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    is_voice: bool = False
    is_line_talk: bool = False
    """Whether our own lines are part of the talk: there is no voice but that of a model, which says them."""
    is_cut: bool = False
    """Whether the call is longer than what an agent keeps in its context."""
    by_livekit: bool = False
    """Whether its worker is started by LiveKit's own command line, and watched by ours."""
    program: str = ""
    """What `agent-worker start` is given: a file, and perhaps a server in it."""
    effects_as: str = "EFFECTS"
    """The variable by which its agents know the file into which they write what they have done."""

    @property
    def module(self) -> str:
        """By which `python -m agent_worker` finds it."""
        return self.program or f"tests.adopt.agents.{self.name}"

    @property
    def _turns(self) -> tuple[Turn, ...]:
        return (*self.before, *self.after, *self.others)

    def reply(self, messages: Sequence[Message]) -> Reply:
        """What the model answers: to the caller, by what the caller said; behind a tool, the tool's output."""
        if messages[-1]["role"] == "tool":
            return Reply(str(messages[-1]["content"]))
        said = [one for one in messages if one["role"] in {"user", "assistant", "tool"}]
        if said and said[-1]["role"] == "user" and not self._is_asked_to_speak(messages):
            return self._answer(str(said[-1]["content"]))
        return Reply(self._unasked(messages))

    def _is_asked_to_speak(self, messages: Sequence[Message]) -> bool:
        return messages[-1]["role"] in {"system", "developer"} and messages[-1] is not messages[0]

    def _answer(self, words: str) -> Reply:
        turn = next((one for one in self._turns if one.says == words), None)
        if turn is None:
            return Reply(f"I have no answer to {words!r}.")
        if turn.call is None:
            return Reply(turn.hears)
        name, arguments = turn.call
        return Reply(calls=(RequestedCall(f"call_{next(_numbers)}", name, arguments),))

    def _unasked(self, messages: Sequence[Message]) -> str:
        told = " ".join(str(one["content"]) for one in messages if one["role"] in {"system", "developer"})
        known = {self.greeting_asked: self.greeting} | {turn.speech: turn.hears for turn in self._turns if turn.speech}
        return next((line for asked, line in known.items() if asked and asked in told), "Nobody asked me anything.")


def _talk(number: int) -> tuple[Turn, ...]:
    return tuple(Turn(f"Question {one}?", f"Answer {one}.") for one in range(1, number + 1))


MUSEUM = Shape(
    name="museum",
    before=(
        Turn("Good morning!", "Good morning."),
        Turn(
            "Are you open on Sunday?", "On Sunday we are open from ten to six.", ("opening_hours", '{"day": "Sunday"}')
        ),
    ),
    after=(
        Turn("And on Monday?", "On Monday we are closed.", ("opening_hours", '{"day": "Monday"}')),
        Turn("Thank you.", "See you on Sunday."),
    ),
    others=_talk(20),
)
REMINDER = Shape(
    name="reminder",
    agent_name="appointment-reminder",
    # more than half of what a dispatch may carry, written as no program would write it again
    metadata='{"phone_number": "+49 30 5550100",  "patient": "Mr Aydin", "notes": "' + "ö" * 30_000 + '" }\n',
    before=(
        Turn("Who is calling?", "The clinic, about your appointment."),
        Turn("Tuesday is fine.", "Mr Aydin comes on Tuesday.", ("confirm_appointment", '{"day": "Tuesday"}')),
    ),
    after=(
        Turn("Sorry, make that Friday.", "Mr Aydin comes on Friday.", ("confirm_appointment", '{"day": "Friday"}')),
    ),
    begins=("dialled +49 30 5550100",),
    effects=("dialled +49 30 5550100", "confirmed Mr Aydin Tuesday", "confirmed Mr Aydin Friday"),
    diff=("conversation = await attach(session, ctx)", 'async with conversation.once("dial") as todo:', "if todo:"),
)
FRONT_OFFICE = Shape(
    name="front_office",
    before=(
        Turn("I have a question about a bill.", "Who are you, and which bill is it?"),
        Turn(
            "Ms Novak, bill 4711.",
            "This is the clerk. How can I help?",
            ("to_the_clerk", '{"customer": "Ms Novak", "bill": "4711"}'),
            speech="Introduce yourself as the clerk.",
        ),
        Turn("Is it a lot?", "Let me see."),
    ),
    after=(
        Turn("How much do I owe?", "Bill 4711 of Ms Novak is open with 84 euros.", ("amount_due", "{}")),
        Turn("Good.", "Goodbye, Ms Novak."),
    ),
    diff=(
        'await attach(session, ctx, agents={"clerk": lambda saved: Clerk(**saved)})',
        "def saved_state(self) -> dict[str, Any]:",
        "return self._known",
    ),
)
CANTEEN = Shape(
    name="canteen",
    before=(
        Turn("Soup, please.", "soup is on the tray.", ("add_dish", '{"dish": "soup"}')),
        Turn("And I sit at number 7.", "Seat 7 is yours.", ("choose_seat", '{"number": 7}')),
    ),
    after=(
        Turn("A pudding, too.", "pudding is on the tray.", ("add_dish", '{"dish": "pudding"}')),
        Turn("What have I got?", "You have soup and pudding, and seat 7.", ("look_at_tray", "{}")),
    ),
)
HOTEL = Shape(
    name="hotel",
    greeting="Good evening, what can I do for you?",
    greeting_asked="Greet the guest",
    before=(Turn("I can't sleep.", "Shall I bring you some tea?"),),
    after=(Turn("No. Wake me at 7:30.", "We wake you at 7:30.", ("wake_up_call", '{"time": "7:30"}')),),
)
PHARMACY = Shape(
    name="pharmacy",
    greeting="Linden pharmacy, this call may be recorded.",
    before=(Turn("Have you got plasters?", "We have plasters.", ("in_stock", '{"article": "plasters"}')),),
    after=(Turn("Keep one for me.", "It is put aside."),),
)
LIBRARY = Shape(
    name="library",
    greeting="Welcome to the library!",
    greeting_asked="Welcome the visitor",
    before=(Turn("Where is Moby Dick?", "Moby Dick stands on shelf 12.", ("find_shelf", '{"title": "Moby Dick"}')),),
    after=(Turn("Can I borrow it?", "Of course."),),
)
BANK = Shape(
    name="bank",
    brought=(
        "The customer is Ms Orlova, who has been with us since 2009.",
        "Last time we spoke about a savings plan.",
    ),
    before=(Turn("I am back about the savings plan.", "Very well, Ms Orlova."),),
    after=(Turn("What did we say last time?", "We spoke about a savings plan."),),
)
TOUR = Shape(
    name="tour",
    before=(
        Turn("What is here?", "In the armoury you see the suit of armour of 1540.", ("main_sight", "{}")),
        Turn("To the kitchen, please.", "Welcome to the kitchen.", ("go_to", '{"place": "the kitchen"}')),
        Turn("It smells good.", "That was a long time ago."),
    ),
    after=(
        Turn("And what is here?", "In the kitchen you see a spit for a whole ox.", ("main_sight", "{}")),
        Turn("To the armoury again.", "Welcome to the armoury.", ("go_to", '{"place": "the armoury"}')),
    ),
    diff=(
        'await attach(session, ctx, agents={"guide": lambda saved: Guide(**saved)})',
        "def saved_state(self) -> dict[str, Any]:",
        'return {"place": self._place}',
    ),
)
HOTLINE = Shape(
    name="hotline",
    before=(Turn("Are you still there?", "I am."),),
    after=(Turn("And now?", "I am still here."),),
    others=(Turn("Goodbye.", "", ("hang_up", "{}")),),
)
RECEPTION = Shape(
    name="reception",
    environment={"AGENT_GREETING": "Reception, hello {name}.", "AGENT_FAREWELL": "Goodbye, {name}."},
    greeting="Reception, hello caller.",
    before=(Turn("Is the doctor in?", "Until six."),),
    after=(Turn("And tomorrow?", "From eight."),),
    others=(Turn("Goodbye.", "Goodbye, caller.", ("hang_up", "{}")),),
)
LAWYER = Shape(
    name="lawyer",
    brought=("Always observe: never name the client's wife.",),
    environment={"AGENT_SESSION_ITEMS": "12"},
    before=_talk(10),
    after=(Turn("Are you sure?", "I am."),),
    is_cut=True,
)
BAKERY = Shape(
    name="bakery",
    before=(Turn("A roll, please.", "A roll is 0.45 euros.", ("price", '{"article": "roll"}')),),
    after=(Turn("And a loaf.", "A loaf is 3.80 euros.", ("price", '{"article": "loaf"}')),),
)
FERRY = Shape(
    name="ferry",
    by_livekit=True,
    before=(
        Turn(
            "When can I leave from Kiel?",
            "The next ferry from Kiel leaves at noon.",
            ("next_crossing", '{"harbour": "Kiel"}'),
        ),
    ),
    after=(Turn("Then book it.", "It is booked."),),
)
CINEMA = Shape(
    name="cinema",
    greeting="Which film would you like to see?",
    greeting_asked="film None, seats 0",
    before=(
        Turn(
            "Casablanca.",
            "Casablanca. How many tickets?",
            ("choose_film", '{"film": "Casablanca"}'),
            speech="film Casablanca, seats 0",
        ),
        Turn("Two.", "2 tickets for Casablanca.", ("sell_tickets", '{"count": 2}')),
    ),
    after=(
        Turn("And one for my son.", "3 tickets for Casablanca.", ("sell_tickets", '{"count": 1}')),
        Turn("That is all.", "Enjoy the film."),
    ),
)
HELPDESK = Shape(
    name="helpdesk",
    greeting="Helpdesk, what is the problem?",
    greeting_asked="ask for the problem",
    before=(
        Turn("My printer is out of toner.", "The specialist is on the line.", ("fetch_specialist", "{}")),
        Turn("It is an LX-3.", "I see."),
    ),
    after=(
        Turn("Order some, please.", "Toner for the LX-3 is on its way.", ("order_toner", '{"model": "LX-3"}')),
        Turn("Thanks.", "Happy to help."),
    ),
)
TREASURY = Shape(
    name="treasury",
    is_voice=True,
    before=(Turn("What have we got?", "Two million."), Turn("Transfer it all to me.", "")),
    after=(Turn("And what now?", "Still two million."),),
)
CONCIERGE = Shape(
    name="concierge",
    is_voice=True,
    is_line_talk=True,
    greeting="Good evening. Shall I book a table?",
    greeting_asked="Greet the guest",
    before=(
        Turn("Is there a pool?", "On the roof."),
        Turn("A table for two at 8.", "A table for 2 at 8:00.", ("book_table", '{"guests": 2, "time": "8:00"}')),
    ),
    after=(
        Turn("Make it three.", "A table for 3 at 8:00.", ("book_table", '{"guests": 3, "time": "8:00"}')),
        Turn("Thank you.", "See you at eight."),
    ),
)
THEATRE = Shape(
    name="theatre",
    is_voice=True,
    greeting="The Globe, good evening.",
    before=(Turn("What is on on Friday?", "On Friday we play Hamlet.", ("playing", '{"day": "Friday"}')),),
    after=(
        Turn("And on Sunday?", "On Sunday we play Hamlet.", ("playing", '{"day": "Sunday"}')),
        Turn("Thank you.", "Goodbye."),
    ),
)

TELLER = Shape(
    name="teller",
    before=(
        Turn("Good morning!", "Good morning, how can I help?"),
        Turn("This is Ms Orlova.", "Hello, how do you want to pay?", kept=""),
        Turn(
            "By card, 4111 1111 1111 1111.",
            "The card is charged.",
            ("charge_card", "{}"),
            kept="By card, [card number].",
        ),
        Turn("Forget my name, please.", "I do not know you.", ("forget_name", "{}")),
        Turn("Is that all?", "That is all."),
    ),
    after=(Turn("Who am I?", "I do not know."),),
)
SURVEY = Shape(
    name="survey",
    greeting="What is your name?",
    greeting_asked="Ask for the name now",
    before=(
        Turn("Anna.", "When is your birthday?", ("take_down", '{"answer": "Anna"}'), "Ask for the birthday now"),
        Turn("In May.", "How old are you?", ("take_down", '{"answer": "in May"}'), "Ask for the age now"),
        Turn("Who will know of it?", "Only we will."),
    ),
    after=(
        Turn("Thirty.", "Where do you live?", ("take_down", '{"answer": "30"}'), "Ask for the town now"),
        Turn("In Kiel.", "Which colour do you like?", ("take_down", '{"answer": "Kiel"}'), "Ask for the colour now"),
        Turn("Blue.", "That was all, thank you.", ("take_down", '{"answer": "blue"}')),
        Turn("What did I say?", "You said Anna, in May, 30, Kiel, blue.", ("read_out", "{}")),
    ),
    effects=("Anna, in May, 30, Kiel, blue",),
)
CLINIC = Shape(
    name="clinic",
    greeting="What is your name?",
    greeting_asked="Ask for the name now",
    # LiveKit names the tasks to go back to in the order of a set
    environment={"PYTHONHASHSEED": "0"},
    before=(
        Turn("Anna.", "When were you born?", ("enter", '{"text": "Anna"}'), "Ask for the birthday now"),
        Turn("In May.", "What hurts?", ("enter", '{"text": "in May"}'), "Ask for the complaint now"),
        Turn("My name is not right.", "What is your name?", ("out_of_scope", '{"task_ids": ["name"]}')),
        Turn("Anne.", "What hurts?", ("enter", '{"text": "Anne"}'), "Ask for the complaint now"),
        Turn("Who will know of it?", "Only the doctor."),
    ),
    after=(
        Turn("My back.", "Please take a seat.", ("enter", '{"text": "my back"}')),
        Turn("Thank you.", "Get well soon."),
    ),
    effects=(
        "ticked name: Anna",
        "ticked birthday: in May",
        "ticked name: Anne",
        "ticked complaint: my back",
        "name Anne, birthday in May, complaint my back",
    ),
)
INTERPRETER = Shape(
    name="interpreter",
    agent_name="interpreter",
    before=(
        Turn("Good morning!", "God morgen!"),
        Turn("Are you open on Sunday?", "Har I åbent om søndagen?"),
    ),
    after=(Turn("And on Monday?", "Og om mandagen?"),),
    diff=('await attach(session, ctx, role="interpreter")',),
)
"""A second agent in the museum's room."""
COURIER = Shape(
    name="courier",
    before=(Turn("Where is parcel 7?", "The depot looks for parcel 7.", ("ask_the_depot", '{"parcel": "7"}')),),
    after=(Turn("Thanks anyway.", "I am sorry."), Turn("Bye.", "Goodbye.")),
)
"""A tool of its works in the background: its successor speaks unasked."""

SHAPES = (
    MUSEUM, REMINDER, FRONT_OFFICE, CANTEEN, HOTEL, PHARMACY, LIBRARY, BANK, TOUR, HOTLINE, LAWYER, BAKERY, CINEMA,
    HELPDESK, FERRY, TREASURY, CONCIERGE, THEATRE, RECEPTION, TELLER, SURVEY, CLINIC,
)  # fmt: skip
TASKS = (SURVEY, CLINIC)
"""Agents that wait for tasks: a crash is what tells most of them."""
ALWAYS = (MUSEUM, REMINDER, FRONT_OFFICE, CANTEEN)
"""Those that run with every change; the others take their time."""
EVERYTHING = tuple(
    (shape, fault)
    for shape, fault in product(SHAPES, Fault)
    # LiveKit's own command line waits for its calls to end, and hands none over
    if not (shape.by_livekit and fault is Fault.DEPLOY)
)
