"""An application's own server, found by the name of its module, and run as the application has made it.

Everything in it stays what it is: its session function and the name of its agent (also none), its setup, its
answers to requests, its load, its permissions and ports. Only what LiveKit documents is used: `AgentServer`,
`ServerOptions` (which is `WorkerOptions`), `setup_fnc`, `load_fnc`, `update_options`, `run`, the event
``worker_registered``, `worker_info`. They are there since livekit-agents 1.3; `preload_modules` since 1.8.
"""

import ast
import asyncio
import dataclasses
import importlib
import importlib.util
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from livekit.agents import AgentServer, JobContext
from livekit.agents import WorkerOptions as ServerOptions

from conversation_actors import InvalidInputError

logger = logging.getLogger(__name__)

Entrypoint = Callable[[JobContext], Awaitable[None]]

_RUN_APP = "run_app"
_MAIN = "__main__"
_FORMS = "give it as package.module, package.module:attribute, or path/to/agent.py"


def load_server(name: str, *, preload: Sequence[str] = ()) -> AgentServer:
    """Return the `AgentServer` of ``package.module[:attribute]`` or ``path/to/agent.py[:attribute]``.

    Without an attribute it is the only server of the module. LiveKit's `WorkerOptions` do as well, also those that the
    module gives to ``run_app`` under its ``if __name__ == "__main__"``; to them the modules of `preload` are added.
    Raises `InvalidInputError`, one sentence, where there is none, or where the module cannot be imported.
    """
    place, _, attribute = name.partition(":")
    module_name, file = _module_name(place)
    tree = _syntax(module_name, name, file)
    if any(_is_run_app(call) for call in _calls_at_import(tree)):
        message = (
            f'application: {name!r} calls {_RUN_APP} when it is imported; put that under `if __name__ == "{_MAIN}"`'
        )
        raise _mistake(message)
    module = _imported(module_name, name)
    found = _named(module, attribute, name) if attribute else _only(module, tree, name)
    if isinstance(found, ServerOptions):
        return _server_of(found, preload)
    return found


def _server_of(options: ServerOptions, preload: Sequence[str]) -> AgentServer:
    if hasattr(options, "preload_modules"):
        modules = dict.fromkeys([*(options.preload_modules or []), *preload])
        options = dataclasses.replace(options, preload_modules=list(modules))
    server = AgentServer.from_server_options(options)
    if options.load_fnc == ServerOptions.load_fnc:
        server.load_fnc = None  # as in a server that was given none: LiveKit's own, unless the operator wants another
    return server


async def begin(server: AgentServer, *, is_development: bool) -> asyncio.Task[None]:
    """Start a server; the task is done when the server is closed, or has failed.

    Raises `InvalidInputError` where LiveKit does not start it as it is, such as one without a session function.
    """
    serving = asyncio.create_task(server.run(devmode=is_development))
    await asyncio.sleep(0)  # what LiveKit refuses it refuses at once; a port that is taken shows later
    if serving.done():
        try:
            await serving
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            message = f"application: LiveKit does not start this server: {reason}"
            raise _mistake(message) from error
    return serving


def _mistake(message: str) -> InvalidInputError:
    return InvalidInputError(message, field="application")


def _module_name(place: str) -> tuple[str, Path | None]:
    """Return the name to import a module by, and its file if that was given.

    Imports look into the directory of the file's outermost package, and into the file's own, as they do for a script.
    The name has to be good in the job's processes too, where the session function is found by it.
    """
    if not place.endswith(".py"):
        return place, None
    path = Path(place).resolve()
    if not path.is_file():
        message = f"application: there is no file {place!r}; {_FORMS}"
        raise _mistake(message)
    parts = [] if path.stem == "__init__" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    sys.path[:0] = [one for one in dict.fromkeys((str(directory), str(path.parent))) if one not in sys.path]
    return ".".join(parts), path


def _syntax(module_name: str, name: str, file: Path | None) -> ast.Module:
    """Return the module as it is written; an empty one if there is no source to read."""
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"application: {name!r} is not there ({error}); {_FORMS}"
        raise _mistake(message) from error
    except Exception as error:  # of the package that the module is in
        raise _cannot_import(name, error) from error
    if spec is None:
        message = f"application: {name!r} is not there (no module named {module_name!r}); {_FORMS}"
        raise _mistake(message)
    if file is not None and Path(spec.origin or "").resolve() != file:
        message = f"application: another module is called {module_name!r} as well ({spec.origin}); rename {name!r}"
        raise _mistake(message)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ast.Module(body=[], type_ignores=[])
    try:
        return ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except (SyntaxError, ValueError) as error:
        raise _cannot_import(name, error) from error


def _imported(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except SystemExit as error:
        message = f"application: {name!r} ends the process when it is imported (exit code {error.code})"
        raise _mistake(message) from error
    except Exception as error:
        logger.debug("the application cannot be imported", exc_info=True)
        raise _cannot_import(name, error) from error


def _cannot_import(name: str, error: Exception) -> InvalidInputError:
    message = f"application: {name!r} cannot be imported ({type(error).__name__}: {error}); --verbose shows where"
    return _mistake(message)


def _named(module: ModuleType, attribute: str, name: str) -> AgentServer | ServerOptions:
    found = getattr(module, attribute, None)
    if isinstance(found, (AgentServer, ServerOptions)):
        return found
    what = "there is none" if found is None else f"it is {type(found).__name__!r}"
    message = f"application: {name!r} is no AgentServer and no WorkerOptions ({what})"
    if callable(found):
        message = f"{message}; for a function use --entrypoint {name}"
    raise _mistake(message)


def _only(module: ModuleType, tree: ast.Module, name: str) -> AgentServer | ServerOptions:
    found: dict[int, tuple[str, AgentServer | ServerOptions]] = {}
    for attribute, value in vars(module).items():
        if isinstance(value, (AgentServer, ServerOptions)):
            found.setdefault(id(value), (attribute, value))
    if not found and (given := _given_to_run_app(module, tree)) is not None:
        return given
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if not found:
        message = f"application: {name!r} has no AgentServer and no WorkerOptions; give a function with --entrypoint"
        raise _mistake(message)
    names = ", ".join(f"{name}:{attribute}" for attribute, _ in found.values())
    message = f"application: {name!r} has several servers; name one ({names})"
    raise _mistake(message)


def _given_to_run_app(module: ModuleType, tree: ast.Module) -> AgentServer | ServerOptions | None:
    """Return what the module would run as a program: ``cli.run_app(WorkerOptions(…))`` under its main guard."""
    guarded = [statement for statement in tree.body if _is_main_guard(statement)]
    calls = [node for one in guarded for node in ast.walk(one) if isinstance(node, ast.Call) and _is_run_app(node)]
    if len(calls) != 1 or len(calls[0].args) != 1:
        return None
    expression = compile(ast.Expression(calls[0].args[0]), str(module.__file__), "eval")
    try:
        given = eval(expression, vars(module))  # noqa: S307  # the application's own words, in its own module
    except NameError:  # something that only the program would have made
        return None
    return given if isinstance(given, (AgentServer, ServerOptions)) else None


def _is_main_guard(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test))


def _calls_at_import(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.stmt) and _is_main_guard(node):
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from _calls_at_import(node)


def _is_run_app(call: ast.Call) -> bool:
    function = call.func
    return (isinstance(function, ast.Attribute) and function.attr == _RUN_APP) or (
        isinstance(function, ast.Name) and function.id == _RUN_APP
    )


def entrypoint_named(name: str) -> Entrypoint:
    """Return the function that ``package.module:function`` names. Raises `InvalidInputError`."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        message = f"entrypoint: {name!r} is not there ({error}); give it as package.module:function"
        raise InvalidInputError(message, field="entrypoint") from error
    if not callable(found):
        message = f"entrypoint: {name!r} is not a function"
        raise InvalidInputError(message, field="entrypoint")
    entrypoint: Entrypoint = found
    return entrypoint
