"""What one history was, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What one history was, and what is wrong with it: what is judged, or anything else that went wrong."""

    seed: int
    seconds: float
    figures: Counter[str]
    violations: list[str]
    troubles: list[str]

    def __str__(self) -> str:
        """Show all figures, and what is wrong."""
        figures = ", ".join(f"{name} {count}" for name, count in sorted(self.figures.items()))
        wrong = [f"violation: {one}" for one in self.violations] + [f"trouble: {one}" for one in self.troubles]
        return "\n    ".join([f"seed {self.seed}, {self.seconds:.0f} s: {figures}", *wrong[:20]])
