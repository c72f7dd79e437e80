"""The parts of one `CallConversation`, put together."""

from agent_worker.failures import Failures
from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.announcement import Announcement
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.at_most_once import AtMostOnce
from agent_worker.tenure.background import Background
from agent_worker.tenure.briefing import Briefing
from agent_worker.tenure.call_outcome import CallOutcome
from agent_worker.tenure.leaving import Leaving
from agent_worker.tenure.opening import Opening
from agent_worker.tenure.role_view import RoleView
from agent_worker.tenure.sign_of_life import SignOfLife
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.telling import Telling
from agent_worker.tenure.upkeep import Upkeep
from agent_worker.tenure.wishes import Wishes
from agent_worker.timing import Timing
from conversation_actors import Settings


class Parts:
    """Who of them uses whom. Two tell `Upkeep` what it has to know: of trouble, and of another agent."""

    def __init__(
        self,
        standing: Standing,
        assignment: Assignment,
        failures: Failures,
        *,
        settings: Settings,
        takeover: TakeoverSettings,
        timing: Timing,
    ) -> None:
        """Connect nothing, and start nothing."""
        announcement = Announcement(settings, standing.holder, standing.role, failures)
        background = Background()
        self.copy = RoleView(standing, settings.history)
        self.briefing = Briefing(standing, assignment, announcement, failures, timing=timing)
        self.telling = Telling(standing, failures, settings=settings, on_trouble=self._doubt, timing=timing)
        self.life = SignOfLife(
            standing, self.briefing, failures, settings=settings, takeover=takeover, on_deposed=self._depose
        )
        self.wishes = Wishes(standing, failures)
        self.opening = Opening(
            standing,
            self.briefing,
            failures,
            settings=settings,
            takeover=takeover,
            marks=self.telling.marks,
            background=background,
            timing=timing,
        )
        self.upkeep = Upkeep(
            standing,
            self.briefing,
            failures,
            life=self.life,
            telling=self.telling,
            wishes=self.wishes,
            background=background,
            takeover=takeover,
            timing=timing,
        )
        self.outcome = CallOutcome(
            standing, self.telling, failures, limit=settings.history.attributes_bytes, timing=timing
        )
        self.leaving = Leaving(
            standing,
            failures,
            opening=self.opening,
            life=self.life,
            telling=self.telling,
            upkeep=self.upkeep,
            outcome=self.outcome,
            background=background,
            timing=timing,
        )
        self.once = AtMostOnce(standing, self.telling.marks, self.opening, timing=timing)

    def _doubt(self, error: Exception) -> None:
        self.upkeep.doubt(error)

    def _depose(self, reason: str) -> None:
        self.upkeep.depose(reason)
