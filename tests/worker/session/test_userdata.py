"""What the application keeps of a call comes back to the next job, field by field, in the object that it has."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

import pytest
from livekit.agents import Agent, AgentSession, RunContext, function_tool
from pydantic import BaseModel, ConfigDict, SecretStr

from agent_worker.session import active_agent
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.userdata import MOST_BYTES, USERDATA, Userdata
from tests.support.sessions.fakes_call import World
from tests.support.sessions.jobs import Jobs, NotedConversation, calls_when_asked

if TYPE_CHECKING:
    from collections import OrderedDict

MODEL = calls_when_asked("order")


class Stage(Enum):
    """How far the caller is."""

    NEW = 1
    READY = 2


class Line(BaseModel):
    """Something ordered."""

    dish: str
    price: Decimal


@dataclass
class Order:
    """Userdata as a dataclass."""

    name: str | None = None
    dishes: list[str] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    since: datetime | None = None
    stage: Stage = Stage.NEW
    total: Decimal = Decimal(0)
    places: tuple[int, ...] = ()
    untold: Any = None
    waiter: Agent | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    shop: ClassVar[str] = "Fernhill"


class Model(BaseModel):
    """Userdata as a pydantic model, which other code may add to."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    name: str = ""
    lines: list[Line] = []
    client: object = None


class Fixed(BaseModel):
    """Userdata that cannot be changed."""

    model_config = ConfigDict(frozen=True)

    name: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The same as a dataclass."""

    name: str = ""


@dataclass(slots=True)
class Slotted:
    """Userdata without a dictionary."""

    name: str = ""
    seen: list[str] = field(default_factory=list)


class Typed(TypedDict):
    """Userdata as a typed dictionary."""

    name: str
    since: NotRequired[datetime]


class Plain:
    """Userdata as an object of no particular kind."""

    def __init__(self) -> None:
        """With what is known at first."""
        self.name = ""
        self.seen: set[str] = set()
        self.since = datetime(2026, 1, 1, tzinfo=UTC)
        self.waiter = Agent(instructions="")
        self._count = 0

    def greet(self) -> str:
        """Say hello."""
        return f"Hello, {self.name}"


def session_with(userdata: Any) -> AgentSession[Any]:
    """A session that has not started."""
    return AgentSession(vad=None, turn_handling={"turn_detection": None}, userdata=userdata)


async def taken_over(before: Any, fresh: Any, *, kind: type | None = None, at_first: Any = None) -> Any:
    """The userdata of the next job, whose session begins with `fresh`, after one that ended with `before`."""
    conversation = NotedConversation()
    session = session_with(before if at_first is None else at_first)
    keeper = Userdata(session, conversation, kind=kind)
    session.userdata = before
    keeper.keep()
    following = session_with(fresh)
    await Userdata(following, conversation, kind=kind).restore(conversation.attributes)
    return following.userdata


def an_order() -> Order:
    """One with something in every field."""
    return Order(
        name="Anna",
        dishes=["soup"],
        lines={"soup": Line(dish="soup", price=Decimal("4.50"))},
        tables={3, 4},
        since=datetime(2026, 5, 1, 12, tzinfo=UTC),
        stage=Stage.READY,
        total=Decimal("4.50"),
        places=(1, 2),
        untold={"a": [1, None, True]},
    )


async def test_every_field_of_a_dataclass_comes_back_with_its_type() -> None:
    """Every field is of its type again, in the object and in the containers that others may hold."""
    fresh = Order()
    dishes, lines, tables = fresh.dishes, fresh.lines, fresh.tables
    back = await taken_over(an_order(), fresh)
    assert back is fresh
    assert back == an_order()
    assert (dishes, lines, tables) == (back.dishes, back.lines, back.tables)
    assert (dishes is back.dishes, lines is back.lines, tables is back.tables) == (True, True, True)


async def test_what_cannot_be_stored_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Agents, clients and tasks stay those of the new job, even while the old job had none; the rest comes back."""
    before, waiter = an_order(), Agent(instructions="")
    before.waiter, before.untold = Agent(instructions="old"), object()
    conversation = NotedConversation()
    keeper = Userdata(session_with(before), conversation)
    for _ in range(3):
        keeper.keep()
    [line] = [record for record in caplog.records if "not stored" in record.message]
    assert line.__dict__["fields"] == ["tasks", "untold", "waiter"]
    before.waiter = None
    keeper.keep()
    fresh = Order(waiter=waiter, untold="mine")
    session = session_with(fresh)
    await Userdata(session, conversation).restore(conversation.attributes)
    assert fresh == replace(an_order(), waiter=waiter, untold="mine")


async def test_a_pydantic_model_comes_back_in_place() -> None:
    """With nested models and fields that were added, in place."""
    fresh = Model(client=test_every_field_of_a_dataclass_comes_back_with_its_type)
    before = Model(name="Anna", lines=[Line(dish="soup", price=Decimal(3))], client=object(), more=[1])
    back = await taken_over(before, fresh)
    assert back is fresh
    assert (back.name, back.lines, back.client) == (
        "Anna",
        before.lines,
        test_every_field_of_a_dataclass_comes_back_with_its_type,
    )


async def test_a_typed_dictionary_comes_back_with_its_types() -> None:
    """What the type says is of its type again, the object stays."""
    fresh: Typed = {"name": ""}
    before: Typed = {"name": "Anna", "since": datetime(2026, 5, 1, tzinfo=UTC)}
    back = await taken_over(before, fresh, kind=Typed)
    assert back is fresh
    assert back == before


async def test_of_a_plain_dictionary_json_values_come_back() -> None:
    """Of JSON's values; others are of no type that could be told, and stay behind."""
    fresh: dict[str, Any] = {"items": [], "when": "fresh"}
    held = fresh["items"]
    back = await taken_over({"items": [1], "name": "Anna", "when": datetime.now(UTC), 3: "three"}, fresh)
    assert back is fresh
    assert back == {"items": [1], "name": "Anna", "when": "fresh"}
    assert held == [1]


async def test_the_first_values_of_a_plain_object_tell_its_types() -> None:
    """What its fields held at first tells their types."""
    before, fresh = Plain(), Plain()
    waiter = fresh.waiter
    before.name, before.seen, before._count = "Anna", {"menu"}, 3
    before.since = datetime(2026, 5, 1, tzinfo=UTC)
    back = await taken_over(before, fresh)
    assert back is fresh
    assert (back.name, back.seen, back.since, back._count) == ("Anna", {"menu"}, before.since, 3)
    assert back.waiter is waiter
    assert back.greet() == "Hello, Anna"


@pytest.mark.parametrize(("before", "fresh"), [(Frozen("Anna"), Frozen()), (Fixed(name="Anna"), Fixed())])
async def test_userdata_that_cannot_be_changed_is_replaced(before: Any, fresh: Any) -> None:
    """The session gets another object."""
    assert await taken_over(before, fresh) == before


async def test_an_object_with_slots_comes_back() -> None:
    """An object without a dictionary comes back too."""
    assert await taken_over(Slotted("Anna", ["menu"]), Slotted()) == Slotted("Anna", ["menu"])


@pytest.mark.parametrize(("before", "fresh"), [(["a", {"b": 1}], []), ("text", ""), (3, 0)])
async def test_a_list_a_text_or_a_number_comes_back_as_one_field(before: Any, fresh: Any) -> None:
    """A list, a text or a number is one field by itself."""
    assert await taken_over(before, fresh) == before


async def test_userdata_that_contains_itself_is_left_out() -> None:
    """What contains itself cannot be written, and is left out."""
    endless: list[Any] = []
    endless.append(endless)
    conversation = NotedConversation()
    Userdata(session_with({"endless": endless, "name": "Anna"}), conversation).keep()
    assert conversation.attributes[USERDATA]["fields"] == {"name": "Anna"}


async def test_a_session_without_userdata_notes_nothing() -> None:
    """A session without userdata notes nothing; with a type to make it of it gets what was noted."""
    conversation = NotedConversation()
    bare: AgentSession[Any] = AgentSession(vad=None, turn_handling={"turn_detection": None})
    Userdata(bare, conversation).keep()
    assert conversation.attributes == {}
    Userdata(session_with(an_order()), conversation).keep()
    await Userdata(bare, conversation).restore(conversation.attributes)
    with pytest.raises(ValueError, match="not set"):
        _ = bare.userdata
    await Userdata(bare, conversation, kind=Order).restore(conversation.attributes.get)
    assert bare.userdata == an_order()


class OldVersion(BaseModel):
    """Version 1."""

    name: str = ""
    seats: int = 2
    dropped: str = "old"


@dataclass
class NewVersion:
    """Version 2: a field is gone, one is new, one has another type."""

    name: str = ""
    seats: list[int] = field(default_factory=lambda: [1])
    added: str = "new"


async def test_a_newer_version_of_the_application_takes_the_fields_it_knows(caplog: pytest.LogCaptureFixture) -> None:
    """What is known by both comes back; a field of another type keeps its new value, and is named."""
    back = await taken_over(OldVersion(name="Anna"), NewVersion())
    assert back == NewVersion(name="Anna")
    assert not hasattr(back, "dropped")
    [line] = [record for record in caplog.records if "keep their new values" in record.message]
    assert line.__dict__["fields"] == ["seats"]


async def test_a_field_that_is_not_of_its_annotated_type_comes_back_if_plain() -> None:
    """Annotations that are not true cost nothing, as long as what is there is plain."""
    before = Order(name=["Anna", "Berta"])  # type: ignore[arg-type]  # as applications do
    assert (await taken_over(before, Order())).name == ["Anna", "Berta"]


async def test_an_annotation_that_is_not_imported_costs_only_its_field() -> None:
    """One name that is not imported costs only itself."""

    @dataclass
    class Hidden:
        since: datetime | None = None
        shelf: "OrderedDict[str, int] | None" = None

    before = Hidden(since=datetime(2026, 5, 1, tzinfo=UTC), shelf=None)
    assert await taken_over(before, Hidden()) == before


async def test_secrets_are_not_stored() -> None:
    """What does not read back equal is left out, as a masked secret."""

    class Keys(BaseModel):
        key: SecretStr = SecretStr("fresh")

    conversation = NotedConversation()
    Userdata(session_with(Keys(key=SecretStr("hush"))), conversation).keep()
    assert conversation.attributes[USERDATA]["fields"] == {}


@pytest.mark.parametrize("large", ["x" * (5 << 20), list(range(5 << 18)), {"a": [{"b": "x" * (5 << 20)}]}])
async def test_a_field_of_five_megabytes_is_left_out_and_named_once(
    large: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A field that is too large is left out and named once; the others come back."""
    before = an_order()
    before.untold = large
    conversation = NotedConversation()
    keeper = Userdata(session_with(before), conversation)
    for _ in range(3):
        keeper.keep()
    [line] = caplog.records
    assert line.__dict__["fields"] == ["tasks", "untold", "waiter"]
    fresh = Order(untold="fresh")
    await Userdata(session_with(fresh), conversation).restore(conversation.attributes)
    assert fresh == replace(an_order(), untold="fresh")


async def test_as_much_as_fits_reaches_the_conversation(world: World) -> None:
    """An owner takes the largest userdata, and the most that is noted of an agent, of two agents in one room."""
    call = world.call()
    assert await call.open()
    Userdata(session_with({"page": "x" * (MOST_BYTES - 100)}), call).keep()
    for name in (ACTIVE_AGENT, f"{ACTIVE_AGENT}.translator"):
        call.note(name, {"agent_id": "x" * (active_agent.MOST_BYTES - 100)})
    call.note(f"{USERDATA}.translator", {"page": "x" * (MOST_BYTES - 100)})
    await call.flush()
    assert call.failures.counts == {}
    session = session_with({"page": ""})
    await Userdata(session, call).restore(call.attributes)
    assert len(session.userdata["page"]) == MOST_BYTES - 100


async def test_the_last_userdata_that_could_be_stored_stays(caplog: pytest.LogCaptureFixture) -> None:
    """The last that could be stored stays, and one line tells so."""
    userdata: dict[str, Any] = {"name": "Anna"}
    conversation = NotedConversation()
    keeper = Userdata(session_with(userdata), conversation)
    keeper.keep()
    userdata |= {f"page {number}": "x" * (MOST_BYTES // 4) for number in range(5)}
    for _ in range(3):
        keeper.keep()
    assert conversation.attributes[USERDATA]["fields"] == {"name": "Anna"}
    assert len(caplog.records) == 1
    del userdata["page 1"], userdata["page 2"]
    keeper.keep()
    assert len(conversation.attributes[USERDATA]["fields"]) == 4


async def test_noted_only_when_it_changed() -> None:
    """At the end of each turn and behind each tool, where something did."""
    counts: list[int] = []

    class Waiter(Agent):
        @function_tool
        async def order(self, context: RunContext[dict[str, int]]) -> str:
            """Order something."""
            context.userdata["orders"] += 1
            return "ordered"

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Waiter(instructions=""), NotedConversation(), userdata={"orders": 0})
        for text in ("Hello", "use order", "Thanks", "use order", "Bye"):
            await job.say(text)
            counts.append(job.conversation.noted.count(USERDATA))
        assert counts == [1, 2, 2, 3, 3]
        following = await jobs.follow(job, Waiter(instructions=""), userdata={"orders": 0})
        await following.say("use order")
    assert following.session.userdata == {"orders": 3}
    assert following.conversation.attributes[USERDATA]["fields"] == {"orders": 3}


async def test_it_is_there_when_the_session_starts() -> None:
    """The agent's `on_enter` sees what has come back; a tool that runs sees what it changed stored behind it."""
    seen: list[Any] = []

    class Curious(Agent):
        async def on_enter(self) -> None:
            seen.append(dict(self.session.userdata))

    async with Jobs(MODEL) as jobs:
        job = await jobs.start(Curious(instructions=""), NotedConversation(), userdata={"n": 1})
        job.session.userdata["n"] = 2
        job.userdata.stop()
        await jobs.follow(job, Curious(instructions=""), userdata={"n": 1})
    assert seen == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "noted",
    [
        3,
        {},
        {"fields": 1},
        {"fields": {"__class__": 3, "greet": 1, "name": 2}},
        {"fields": {"name": {}}, "forms": 7},
        {"fields": {"name": 3}, "forms": {"name": "newer"}},
    ],
)
async def test_foreign_notes_overwrite_no_methods_of_the_userdata(noted: Any) -> None:
    """Whoever wrote it: methods and what Python keeps in an object are not overwritten, and nothing is raised."""
    fresh = Plain()
    await Userdata(session_with(fresh), NotedConversation()).restore({USERDATA: noted})
    assert type(fresh) is Plain
    assert callable(fresh.greet)


async def test_a_later_change_does_not_change_what_waits_to_be_stored() -> None:
    """What the application changes afterwards does not change what waits to be stored."""

    class Waiting:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def note(self, _name: str, value: Any) -> None:
            self.told.append(value)

    waiting, userdata = Waiting(), {"dishes": ["soup"]}
    keeper = Userdata(session_with(userdata), waiting)
    keeper.keep()
    userdata["dishes"].append("fish")
    keeper.keep()
    assert [told["fields"]["dishes"] for told in waiting.told] == [["soup"], ["soup", "fish"]]


async def test_a_property_that_raises_costs_only_the_note() -> None:
    """A property that raises costs only the note, and is counted."""

    class Angry(dict[str, Any]):
        def items(self) -> Iterator[Any]:  # type: ignore[override]
            message = "private words"
            raise TypeError(message)

    conversation = NotedConversation()
    keeper = Userdata(session_with({"a": 1}), conversation)
    keeper._session.userdata = Angry()
    keeper.keep()
    assert conversation.attributes == {}
    assert keeper._failures.counts == {"userdata": 1}
