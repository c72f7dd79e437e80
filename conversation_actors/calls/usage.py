"""What a call's models were used for: each job tells its own sum, again and again."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_NAMING = ("type", "provider", "model")
_MOST_JOBS = 8
"""Jobs whose sums may still change."""
_MOST_MODELS, _MOST_NUMBERS, _NAME_CHARACTERS = 24, 40, 128

Model = dict[str, str | int | float]


@dataclass(slots=True)
class Usage:
    """What jobs have told last, and the sum of those that tell nothing more."""

    jobs: dict[str, list[Model]] = field(default_factory=dict)
    settled: list[Model] = field(default_factory=list)

    def take(self, job: str, told: object) -> None:
        """Take what a job has used so far, as LiveKit counts it; whatever is not of that form is left out."""
        models = told.get("models") if isinstance(told, Mapping) else None
        if not isinstance(models, list):
            return
        self.jobs.pop(job, None)
        read = [_read(one) for one in models[:_MOST_MODELS] if isinstance(one, Mapping)]
        self.jobs[job] = [one for one in read if one]
        if len(self.jobs) > _MOST_JOBS:
            self.settled = _summed([*self.settled, *self.jobs.pop(next(iter(self.jobs)))])

    def record(self) -> tuple[Model, ...]:
        """Return the sum over all jobs, by model."""
        return tuple(_summed([*self.settled, *(model for models in self.jobs.values() for model in models)]))


def _read(told: Mapping[str, Any]) -> Model:
    named: Model = {name: told[name][:_NAME_CHARACTERS] for name in _NAMING if isinstance(told.get(name), str)}
    numbers = [(name, value) for name, value in told.items() if type(value) in {int, float} and math.isfinite(value)]
    return {**named, **{name[:_NAME_CHARACTERS]: value for name, value in numbers[:_MOST_NUMBERS]}}


def _summed(models: Iterable[Model]) -> list[Model]:
    sums: dict[tuple[str | int | float | None, ...], Model] = {}
    for model in models:
        total = sums.setdefault(tuple(model.get(name) for name in _NAMING), {})
        for name, value in model.items():
            old = total.get(name, 0)
            total[name] = value if isinstance(value, str) or isinstance(old, str) else old + value
    return list(sums.values())[:_MOST_MODELS]
