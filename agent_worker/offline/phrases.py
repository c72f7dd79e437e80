"""What people say to a support line, as patterns over `Heard.words`, and the answers that depend on nothing else."""

import re
from dataclasses import dataclass

ANYTHING_ELSE = "Is there anything else I can do for you?"


def says(*phrases: str) -> re.Pattern[str]:
    """Return a pattern that finds any of these phrases as whole words."""
    return re.compile(rf"\b(?:{'|'.join(phrases)})\b")


ROBOT = says(
    "(are|r) (you|u) (an? |really (an? )?)?(robot|bot|machine|computer|ai|human|person|real|program|alive)",
    "am i (talking|speaking) to",
)
IDENTITY = says("(who|what) are you", "(whats|what is) your name", "who is (this|there)", "your name")
PERSON_WANTED = says(
    "(talk|speak|connect|transfer|get|want|give|put|need) .*(human|person|supervisor|manager|colleague|somebody|someone"
    "|operator|boss)",
    "complain",
    "complaint",
    "^(human|supervisor|manager|operator)$",
)
MONEY_WANTED = says("refund", "money back", "cancel")
OWN_NAME_ASKED = says("(whats|what|know|remember|say|tell|recall|forget|forgot) .*my name", "who am i")
ORDER_ASKED = says(
    "(which|what|whats|remember|know) .*(order|number|parcel) .*(ask|asked|said|say|tell|told|gave|give|talk|talking"
    "|mean|meant|mention|mentioned)",
    "(whats|what is|know|remember|tell me|repeat) my (order number|order|number)",
)
MEMORY_ASKED = says("(remember|know|forget|forgot|recognise|recognize) .*(me|i)", "^remember$")
OWN_WORDS_ASKED = says(
    "what (did|have|was) i (just )?(say|said|ask|asked|tell|told)", "my (last|first|previous) (question|words)"
)
REPETITION_WANTED = says(
    *("repeat", "pardon", "come again", "once more", "say (that|it) again", "what did you say", "what was that"),
    *("^(again|what|sorry)$", "didnt (hear|catch|get)"),
)
HELP_WANTED = says(
    "what (else )?(can|could|do|should) (you|i|we) (do|say|ask|help|know|try|talk)",
    "^(help|help me|please help|options|menu)",
    "how (does|do) (this|that|it|you) work",
    *("how can you help", "what is this", "help me$"),
)
DAY = says("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "tomorrow", "today")
MOVE_WANTED = says(
    *(
        "deliver",
        "delivered",
        "bring",
        "move",
        "moved",
        "reschedule",
        "change",
        "instead",
        "possible",
        "rather",
        "better",
    ),
    *("postpone", "(can|could) (i|we|you) (get|have|come)", "how about", "make it"),
)
OTHER_DAY_WANTED = says("(another|other|different) day", "(move|reschedule|postpone|change) .*(it|delivery|order|day)")
MOMENT_ASKED = says("when", "(will|does|is|has) it")
NOTE_WANTED = says(
    "(tell|ask|let|note) .*(driver|carrier|courier)",
    *("(driver|courier) (should|must|has|can)", "(leave|add|make) a note", "(gate|door) code"),
)
ORDER_WANTED = says(
    *(
        "orders?",
        "ordered",
        "parcel",
        "package",
        "delivery",
        "delivered",
        "shipment",
        "shipped",
        "lamp",
        "track",
        "tracking",
    ),
    *(
        "arrives?",
        "arrived",
        "arriving",
        "where is it",
        "wheres it",
        "where is my stuff",
        "(when|will|does) it",
        "when is it",
        "is it (coming|here|late|shipped|on its way)",
    ),
)
AGREED = says("^(yes|yeah|yep|sure|ok|okay|please|please do)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """An answer that depends on nothing else. ``{name}`` in it becomes ``, Anna`` if the caller's name is known."""

    wanted: re.Pattern[str]
    answer: str


HEARD = Sentence(
    says(
        "(can|do|could) you (hear|read|see|understand) me", "(are you|anybody|anyone) (still )?there", "test", "testing"
    ),
    "Yes, I hear you. I understand what is typed; a voice needs a real model.",
)
WEATHER = Sentence(
    says("weather", "rain", "raining", "sunny"), "I can't see the weather from here; I only know about orders."
)
SENTENCES = (
    Sentence(
        says("what (time|day|date)", "(the|current) time", "time is it", "whats the (time|date)"),
        "I have no clock, so I can't tell you the time or the day.",
    ),
    Sentence(
        says("joke", "funny", "laugh"),
        "How many stand-ins does it take to change a light bulb? None: we only look up the order.",
    ),
    Sentence(
        says("record", "recorded", "recording", "stored", "saved", "privacy", "private", "data"),
        "Yes: what we say is kept in Redis, so that another agent can go on if this one dies.",
    ),
    Sentence(
        says("(speak|talk|sprechen|parlez|habla) .*(german|deutsch|french|spanish|english|espanol|francais)"),
        "I know English only, and little of that.",
    ),
    Sentence(
        says("sell", "buy", "price", "costs?", "how much", "shop", "stock", "exchange", "invoice", "pay"),
        "I know about orders of lamps that were placed already; buying and selling is beyond me.",
    ),
    Sentence(
        says("bye", "goodbye", "see you", "good night", "ciao", "hang up", "thats all", "that is all", "im done"),
        "Goodbye{name}, and thank you for calling.",
    ),
    Sentence(
        says("thanks", "thank", "thx", "cheers", "great help", "appreciate"), "You're welcome{name}. " + ANYTHING_ELSE
    ),
    Sentence(
        says("how (are|r) (you|u|things)", "how is it going", "hows it going"),
        "I'm fine, thank you{name}. How can I help?",
    ),
    Sentence(
        says("^(hello|hi|hey|hallo|good (morning|day|evening|afternoon)|greetings)"),
        "Hello{name}. How can I help? Ask me what I can do.",
    ),
    Sentence(
        says("stupid", "idiot", "useless", "terrible", "awful", "angry", "sucks", "hate", "broken", "wrong"),
        "I'm sorry{name}. Shall I get my supervisor?",
    ),
    Sentence(
        says("^(no|nope|nothing|never ?mind|not really|forget it)"),
        "All right{name}. Just say so if there is anything else.",
    ),
    Sentence(
        says("^(ok|okay|k|yes|yeah|yep|sure|fine|good|great|nice|cool|al ?right|perfect|i see|got it|understood|wow)"),
        "Good{name}. " + ANYTHING_ELSE,
    ),
    Sentence(says("^(wait|hold on|(one|just a) (moment|second)|hm+|um|uh)"), "Take your time{name}."),
)
"""The sentences in the order in which they are tried, after every answer that depends on what is known."""
