"""What the worker's commands do. Each imports what it needs when it runs: the supervisor of a worker stays small."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agent_worker.environment import instance_from_environment

if TYPE_CHECKING:
    from agent_worker.settings import LanguageModelSettings
    from agent_worker.worker.application import Entrypoint

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
_PLUGINS = ("livekit.plugins.openai", "livekit.plugins.deepgram")


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """A worker that is to run: whose agent, how much it logs, and with which models."""

    application: str | None = None
    entrypoint: str | None = None
    log_level: str = "info"
    offline: bool = False
    transcript: Path | None = None
    """The call that the offline models follow; None: the bundled one."""

    @property
    def is_example(self) -> bool:
        """Whether the agent is the example's, which speaks through OpenAI and Deepgram."""
        return self.application is None and self.entrypoint is None

    @property
    def arguments(self) -> list[str]:
        """The command line of the worker, for the supervisor that starts it."""
        arguments = ["work"]
        if self.application is not None:
            arguments += [self.application]
        if self.entrypoint is not None:
            arguments += ["--entrypoint", self.entrypoint]
        return arguments if self.log_level == "info" else [*arguments, "--log-level", self.log_level]

    def followed(self) -> Path | None:
        """Return the offline models' transcript; None if there are none. Raises `InvalidInputError` for a bad one."""
        from agent_worker.offline.transcript import bundled, load  # noqa: PLC0415  # see the module's docstring

        if not self.offline:
            return None
        load(transcript := self.transcript or bundled())
        return transcript


def start(command: WorkerCommand) -> int:
    """Run a supervisor, and the worker that it keeps up. Returns the worker's exit code."""
    from agent_worker.offline.running import models  # noqa: PLC0415  # see the module's docstring
    from agent_worker.worker.supervisor import Supervisor, instance_name  # noqa: PLC0415

    transcript = command.followed()
    _check_before_start(command)

    async def run() -> int:
        await _check_livekit()
        async with models(transcript) as environment:
            return await Supervisor(command.arguments, instance_name(), environment).run()

    if command.offline:
        logger.warning("calls are answered by offline stand-ins, and by no language model")
    return asyncio.run(run())


def dev(command: WorkerCommand, write: Callable[[str], object]) -> int:
    """Run a worker and the caller's page. Returns the worker's exit code."""
    from agent_worker.development.develop import develop  # noqa: PLC0415  # see the module's docstring
    from agent_worker.worker.supervisor import instance_name  # noqa: PLC0415

    transcript = command.followed()
    _check_before_start(command)

    async def run() -> int:
        await _check_livekit()
        return await develop([*command.arguments, "--development"], instance_name(), offline=transcript, write=write)

    return asyncio.run(run())


def work(command: WorkerCommand, *, is_development: bool) -> int:
    """Run a worker in this process, until it is told to stop."""
    from agent_worker import example  # noqa: PLC0415  # see the module's docstring
    from agent_worker.worker.application import entrypoint_named, load_server  # noqa: PLC0415
    from agent_worker.worker.server import PRELOADED, WorkerOptions, run_worker  # noqa: PLC0415

    # first of all: the application may read a file of variables when it is imported
    application = None if command.application is None else load_server(command.application, preload=PRELOADED)
    entrypoint = None if command.entrypoint is None else entrypoint_named(command.entrypoint)
    options = WorkerOptions(
        is_development=is_development, application=application, entrypoint=entrypoint, preloaded=example.PRELOADED
    )
    options.livekit.require()
    if command.is_example:
        _check_models(is_offline=False)
        options = replace(options, entrypoint=_answer_of_example())

    async def run() -> None:
        if instance_from_environment() is None:  # else the supervisor has asked, before the first of its workers
            await _check_livekit()
        await run_worker(options)

    asyncio.run(run())
    return 0


def _answer_of_example() -> "Entrypoint":
    from agent_worker.example.answer import answer_call  # noqa: PLC0415  # applications need none of its models

    return answer_call


def watch() -> int:
    """Follow agents that die anywhere, until told to stop."""
    from agent_worker.worker.server import WorkerOptions, run_watcher  # noqa: PLC0415  # see the module's docstring

    options = WorkerOptions()
    options.livekit.require()

    async def run() -> None:
        await _check_livekit()
        await run_watcher(options)

    asyncio.run(run())
    return 0


def _check_before_start(command: WorkerCommand) -> None:
    """Find what is missing here, and not in each worker, or in each call. Raises `InvalidInputError`."""
    from agent_worker.settings import LiveKitSettings, WorkerSettings  # noqa: PLC0415  # see the module's docstring
    from conversation_actors import Settings  # noqa: PLC0415

    LiveKitSettings().require()
    Settings().require_redis_url(shared_by="agent-worker")
    WorkerSettings()
    if command.is_example:
        _check_models(is_offline=command.offline)


def _check_models(*, is_offline: bool) -> None:
    """Check that the example agent can hear, think and speak. Raises `ImportError` or `InvalidInputError`."""
    from agent_worker.settings import LanguageModelSettings, SpeechSettings  # noqa: PLC0415  # see the module's docstring

    _check_plugins()
    if not is_offline:
        LanguageModelSettings().require_key()
        SpeechSettings().require_stt_key()


def _check_plugins() -> None:
    """Look for the plugins, which take seconds to import."""
    for plugin in _PLUGINS:
        if find_spec(plugin) is None:
            raise ModuleNotFoundError(plugin, name=plugin)


async def _check_livekit() -> None:
    from agent_worker.settings import LiveKitSettings  # noqa: PLC0415  # see the module's docstring
    from agent_worker.worker.admission import check_admission  # noqa: PLC0415

    await check_admission(LiveKitSettings())


def console(conversation_id: str, write: Callable[[str], object], *, llm_url: str | None, offline: bool) -> int:
    """Talk in the terminal until the input ends."""
    from conversation_actors import Settings  # noqa: PLC0415  # see the module's docstring

    _check_plugins()
    model = None if offline else _model(llm_url)
    if not offline:  # which needs none
        Settings().require_redis_url()
    from agent_worker.development import console as terminal  # noqa: PLC0415

    try:
        if model is None:
            asyncio.run(terminal.console_offline(conversation_id, write))
        else:
            asyncio.run(terminal.console(conversation_id, model, write))
    except KeyboardInterrupt:
        write("")
    return 0


def _model(llm_url: str | None) -> "LanguageModelSettings":
    from agent_worker.settings import LanguageModelSettings  # noqa: PLC0415  # see the module's docstring

    model = LanguageModelSettings() if llm_url is None else LanguageModelSettings(base_url=llm_url)
    model.require_key()
    return model


@dataclass(frozen=True, slots=True)
class TalkCommand:
    """A call in text that is to be held, or watched if there is no transcript."""

    conversation: str
    transcript: Path | None
    llm_url: str | None
    first_turn: int | None
    turns: int | None
    pause: timedelta
    caller: str | None = None


def talk(command: TalkCommand) -> int:
    """Hold a call in text. Returns 1 if the model cannot be asked."""
    from livekit.agents import APIError  # noqa: PLC0415  # takes two seconds

    try:
        asyncio.run(_talk_until_stopped(command))
    except APIError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return EXIT_FAILED
    return 0


async def _talk_until_stopped(command: TalkCommand) -> None:
    """End in order on SIGTERM as on SIGINT: flush what was recorded, close the client."""
    from agent_worker.development.talk import Report  # noqa: PLC0415  # see the module's docstring

    work = asyncio.ensure_future(_talk(command))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        Report(sys.stdout)("stopped")


async def _talk(command: TalkCommand) -> None:
    from agent_worker.development.calling import calling  # noqa: PLC0415  # see above
    from agent_worker.development.talk import Report, TalkOptions, talk, watch  # noqa: PLC0415
    from agent_worker.example.pipeline import text_session  # noqa: PLC0415
    from agent_worker.offline.transcript import load  # noqa: PLC0415
    from conversation_actors import ConversationClient, Settings  # noqa: PLC0415

    report = Report(sys.stdout)
    # what was given is checked before anything is connected or opened
    call = None if command.transcript is None else (_model(command.llm_url), load(command.transcript))
    options = TalkOptions(first_turn=command.first_turn, turns=command.turns, pause=command.pause)
    settings = Settings()
    if call is None:  # what somebody else says
        settings.refuse_memory("agent-worker talk --watch")
    report("opening", conversation=command.conversation, pid=os.getpid())
    async with ConversationClient(settings) as client:
        conversation = await client.open(command.conversation)
        if call is None:
            await watch(conversation, report)
            return
        model, transcript = call
        async with text_session(model) as session, calling(conversation, command.caller, report) as greeting:
            await talk(conversation, session, transcript, replace(options, greeting=greeting), report)
