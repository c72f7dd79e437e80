"""Make an agent anew, with the factory that the application gave for it or with the agent's own class."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from livekit.agents import Agent

_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Directories of an environment's libraries."""
_MAIN = ("__main__", "__mp_main__")
"""The names of a module that is run: the first in the process that runs it, the second in its children."""


def class_name(agent: Agent) -> str:
    """Return the name under which `found_class` finds the agent's class."""
    return name_of(type(agent))


def name_of(kind: type) -> str:
    """Return the name of a class: ``module:qualified.name``."""
    return f"{kind.__module__}:{kind.__qualname__}"


async def made_by_factory(factory: Callable[..., Any], state: Mapping[str, Any] | None) -> Agent:
    """Make an agent. Give the state to a factory that requires an argument or has one named ``saved``.

    Raises whatever the factory raises, and `TypeError` if the factory returns something other than an agent.
    """
    parameters = inspect.signature(factory).parameters.values()
    if any(one.name == "saved" and one.kind is one.KEYWORD_ONLY for one in parameters):
        made = factory(saved=state)
    elif any(one.name == "saved" or _is_required(one) for one in parameters):
        made = factory(state)
    else:
        made = factory()
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, Agent):
        message = "the factory made no agent"
        raise TypeError(message)
    return made


def made_by_itself(name: str, first: Agent) -> Agent | None:
    """Make an agent from the name of its class. Return None if there is no such class, or if it needs arguments.

    The class is only looked for in modules that are already imported, or that belong to the same program as the
    `first` agent. Raises whatever importing the module or making the agent raises.
    """
    found = found_class(name, first)
    if found is not None and issubclass(found, Agent) and _needs_nothing(found):
        make: Callable[[], Agent] = found
        return make()
    return None


def found_class(name: str, first: Agent) -> type | None:
    """Return the class of that name, or None. Look in the same modules as `made_by_itself`.

    Raises whatever importing the module raises.
    """
    module_name, _, path = name.partition(":")
    for module in _modules(module_name, first):
        found: Any = module
        for part in path.split("."):
            found = getattr(found, part, None)
        if inspect.isclass(found):
            return found
    return None


def _modules(name: str, first: Agent) -> list[ModuleType]:
    if name in _MAIN:
        names = dict.fromkeys([*_MAIN, type(first).__module__])
        return [sys.modules[one] for one in names if one in sys.modules]
    if name in sys.modules:
        return [sys.modules[name]]
    return [importlib.import_module(name)] if name and _is_of_same_program(name, first) else []


def _is_of_same_program(name: str, first: Agent) -> bool:
    """Tell whether a module that is not imported yet belongs to the program of the first agent.

    It does if its name is one of the first agent's package, even if there is no such module, or if its top package lies
    anywhere beneath the directory of the first agent's file. What is installed in an environment there does not: the
    name comes from the store, and may not have any library imported.
    """
    top, own = name.partition(".")[0], type(first).__module__
    if top == own.partition(".")[0]:
        return True
    beside = getattr(sys.modules.get(own), "__file__", None)
    spec = find_spec(top)
    if beside is None or spec is None or spec.origin is None or not spec.has_location:
        return False
    directory, origin = Path(beside).resolve().parent, Path(spec.origin).resolve()
    return directory in origin.parents and not _INSTALLED.intersection(origin.relative_to(directory).parts)


def _needs_nothing(kind: type[Agent]) -> bool:
    return not any(_is_required(one) for one in inspect.signature(kind).parameters.values())


def _is_required(parameter: inspect.Parameter) -> bool:
    is_variadic = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    return parameter.default is parameter.empty and not is_variadic
