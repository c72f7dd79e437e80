"""The examples that answer calls, as shapes: what is said in their calls, and what must be true of them."""

from pathlib import Path

from tests.adopt.shapes import Shape, Turn

EXAMPLES = Path(__file__).parents[2] / "examples"

SUPPORT = Shape(
    name="support",
    program=str(EXAMPLES / "support.py"),
    effects_as="DELIVERIES",
    is_voice=True,
    greeting="Lamp shop, good morning.",
    before=(
        Turn(
            "Where is order A-1042?",
            "Order A-1042: a brass reading lamp, arriving on Wednesday.",
            ("look_up_order", '{"order_id": "A-1042"}'),
        ),
        Turn(
            "Can you bring it on Friday?",
            "Order A-1042 now arrives on Friday.",
            ("reschedule_delivery", '{"order_id": "A-1042", "day": "Friday"}'),
        ),
    ),
    after=(
        Turn(
            "So when does it come?",
            "Order A-1042: a brass reading lamp, arriving on Friday.",
            ("look_up_order", '{"order_id": "A-1042"}'),
        ),
        Turn("Thank you.", "You are welcome."),
    ),
    effects=('{"order": "A-1042", "day": "Friday"}',),
)
TUTOR = Shape(
    name="tutor",
    program=str(EXAMPLES / "tutor.py"),
    is_voice=True,
    is_line_talk=True,
    greeting="Hello! Shall we begin?",
    greeting_asked="Greet the pupil",
    before=(
        Turn("Yes, please.", "What is seven times eight?", ("next_question", "{}")),
        Turn("Fifty-six.", "56 is right. 1 of 1 so far.", ("mark_right", '{"answer": "56"}')),
        Turn("The next one!", "What is twelve times twelve?", ("next_question", "{}")),
    ),
    after=(
        Turn("One hundred forty-four.", "144 is right. 2 of 2 so far.", ("mark_right", '{"answer": "144"}')),
        Turn("And one more.", "What is nine times six?", ("next_question", "{}")),
    ),
)
ASSISTANT = Shape(
    name="assistant",
    program=str(EXAMPLES / "assistant.py"),
    effects_as="LETTERS",
    greeting="What is to be done?",
    greeting_asked="ask what is to be done",
    before=(
        Turn("The password is swordfish.", "I shall keep it.", kept="[forgotten]"),
        Turn(
            "Write to Tom that I am late.",
            "The letter to Tom is sent.",
            ("send_letter", '{"to": "Tom", "text": "late"}'),
        ),
        Turn("Forget the password.", "It is forgotten.", ("forget", '{"topic": "password"}'), kept="[forgotten]"),
        Turn("Good.", "Anything else?"),
    ),
    after=(
        Turn("What is the password?", "I do not know it."),
        Turn(
            "Then write to Ann as well.",
            "The letter to Ann is sent.",
            ("send_letter", '{"to": "Ann", "text": "late"}'),
        ),
    ),
    effects=("Tom: late", "Ann: late"),
)
WORKFLOW = Shape(
    name="workflow",
    program=str(EXAMPLES / "workflow.py"),
    effects_as="BOOKINGS",
    # LiveKit names the tasks to go back to in the order of a set
    environment={"PYTHONHASHSEED": "0"},
    greeting="On which day?",
    greeting_asked="Ask for the day now",
    before=(
        Turn("On Friday.", "How many will you be?", ("write_down", '{"answer": "Friday"}'), "Ask for the guests now"),
        Turn("Have you got a terrace?", "We have one."),
    ),
    after=(
        Turn("We are four.", "In which name?", ("write_down", '{"answer": "4"}'), "Ask for the name now"),
        Turn("Novak.", "A table for 4 on Friday. See you then!", ("write_down", '{"answer": "Novak"}')),
    ),
    effects=("day: Friday", "guests: 4", "booked Friday, 4 guests, Novak"),
)
TEAM = Shape(
    name="team",
    program=f"{EXAMPLES / 'team.py'}:desk",
    before=(
        Turn("I speak only Danish.", "An interpreter joins us.", ("fetch_interpreter", "{}")),
        Turn(
            "Ms Novak, bill 4711.",
            "This is the adviser.",
            ("hand_over", '{"customer": "Ms Novak", "bill": "4711"}'),
            speech="Introduce yourself as the adviser",
        ),
    ),
    after=(
        Turn("How much do I owe?", "Bill 4711 of Ms Novak is open with 84 euros.", ("amount_due", "{}")),
        Turn("Good.", "Goodbye, Ms Novak."),
    ),
)
INTERPRETERS = Shape(
    name="interpreters",
    program=f"{EXAMPLES / 'team.py'}:interpreters",
    agent_name="interpreter",
    before=(Turn("Ms Novak, bill 4711.", "Fru Novak, regning 4711."),),
    after=(Turn("How much do I owe?", "Hvor meget skylder jeg?"), Turn("Good.", "Godt.")),
)
"""The second role in the team's call."""
ANSWERING = (SUPPORT, TUTOR, ASSISTANT, WORKFLOW)
"""Those in whose calls there is one agent."""
