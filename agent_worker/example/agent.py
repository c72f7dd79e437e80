"""An example agent: telephone support of a lamp shop, with tools for orders and a supervisor it hands over to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from livekit.agents import Agent, function_tool
from livekit.agents.llm import ToolError

from agent_worker.session.restoration import active_agent
from conversation_actors.items import Item

INSTRUCTIONS = (
    "You are the friendly telephone support of Fernhill Lighting. You speak, so keep it short and use no lists. "
    "Look orders up before you say anything about them. Repeat numbers and days when you change something. "
    "If a tool's outcome is unknown, say so and check before you use it again. "
    "Hand complaints over to a supervisor."
)
SUPERVISOR_INSTRUCTIONS = (
    "You supervise the telephone support of Fernhill Lighting, and have just taken over a call with a complaint. "
    "You have heard all of it: don't ask again. Apologise once, then decide; you may promise a refund."
)

DELIVERY_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


@dataclass(frozen=True, slots=True)
class Order:
    """One order: what was ordered, where it is, and between which hours it is delivered."""

    article: str
    status: str
    window: str


ORDERS: Mapping[str, Order] = MappingProxyType(
    {
        "A-1042": Order(
            "brass reading lamp", "with the carrier, arriving Wednesday between 8 and 12", "between 8 and 12"
        ),
        "A-1043": Order(
            "green glass shade", "packed in our warehouse, arriving Thursday between 12 and 4", "between 12 and 4"
        ),
        "A-0987": Order("walnut desk clock", "delivered last Monday, signed for by T. Hale", "between 8 and 12"),
    }
)
"""The shop's orders. Nothing changes them, so another process that takes a call over gives the same answers."""


class SupportAgent(Agent):
    """The agent that answers questions about orders.

    Its tools confirm changes but keep them nowhere, because there is no real shop.
    """

    def __init__(self, orders: Mapping[str, Order] = ORDERS) -> None:
        """Serve `orders`, which maps order numbers to orders."""
        super().__init__(instructions=INSTRUCTIONS)
        self._orders = orders

    @staticmethod
    def of(history: Iterable[Item]) -> Agent:
        """Return the agent that has the word in a conversation: this one, unless it handed over."""
        return active_agent(history, {"supervisor_agent": SupervisorAgent}, SupportAgent)

    def _find(self, order_id: str) -> tuple[str, Order]:
        """Return the order's number as the shop writes it, and the order. Raises `ToolError` if there is none.

        Callers say ``1042`` and ``a1042`` for ``A-1042``.
        """
        plain = order_id.strip().upper()
        for number in (plain, f"A-{plain}", f"A-{plain.removeprefix('A').strip(' -')}"):
            if (order := self._orders.get(number)) is not None:
                return number, order
        message = f"There is no order {order_id}."
        raise ToolError(message)

    @function_tool
    async def look_up_order(self, order_id: str) -> str:
        """Tell what an order is and where it is now."""
        number, order = self._find(order_id)
        return f"Order {number}: {order.article}, {order.status}."

    @function_tool
    async def reschedule_delivery(self, order_id: str, day: str) -> str:
        """Move the delivery of an order to another day of the week."""
        number, order = self._find(order_id)
        if day not in DELIVERY_DAYS:
            message = f"There are no deliveries on {day}. Possible days: Monday to Saturday."
            raise ToolError(message)
        reference = f"R-{number.removeprefix('A-')}-{day[:3].upper()}"
        return f"Order {number} now arrives on {day} {order.window}. Reference {reference}."

    @function_tool
    async def add_delivery_note(self, order_id: str, note: str) -> str:
        """Leave a note for the driver who brings an order."""
        number, _ = self._find(order_id)
        return f"Note saved for order {number}: {note}"

    @function_tool
    async def call_supervisor(self) -> tuple[Agent, str]:
        """Hand the call over to a supervisor, who sees all that was said."""
        supervisor = SupervisorAgent()
        heard = self.chat_ctx.copy(exclude_instructions=True)
        # a context given to the constructor would lose the calls of tools that the supervisor does not have
        await supervisor.update_chat_ctx(heard, exclude_invalid_function_calls=False)
        return supervisor, "The supervisor is here now."


class SupervisorAgent(Agent):
    """The agent that decides about a complaint. Its promises are kept nowhere, because there is no real shop."""

    def __init__(self) -> None:
        """Begin without the call's context. `SupportAgent.call_supervisor` or `restore` gives it later."""
        super().__init__(instructions=SUPERVISOR_INSTRUCTIONS)

    @function_tool
    async def promise_refund(self, order_id: str, reason: str) -> str:
        """Promise the money for an order back."""
        return f"Refund for order {order_id} noted, because of: {reason}"
