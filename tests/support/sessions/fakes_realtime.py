"""A model that hears and speaks by itself, without hearing or speaking: it answers with a text, and is asked for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from livekit import rtc
from livekit.agents.llm import ChatContext, FunctionCall, GenerationCreatedEvent, RealtimeModel, ToolContext
from livekit.agents.llm.realtime import MessageGeneration, RealtimeCapabilities, RealtimeSession

CAPABILITIES = RealtimeCapabilities(
    message_truncation=False,
    turn_detection=False,
    user_transcription=False,
    auto_tool_reply_generation=False,
    audio_output=True,
    manual_function_calls=False,
    mutable_chat_context=True,
    mutable_instructions=True,
    mutable_tools=True,
)


class FakeRealtime(RealtimeModel):
    """Says the same thing each time; `asked` has the instructions of each reply, None where there were none."""

    def __init__(self, line: str) -> None:
        """`line`: all that it says."""
        super().__init__(capabilities=CAPABILITIES)
        self.line = line
        self.asked: list[str | None] = []

    def session(self, *, turn_detection_disabled: bool = False) -> RealtimeSession[Any]:
        """See `RealtimeModel.session`."""
        assert not turn_detection_disabled
        return FakeRealtimeSession(self)

    async def aclose(self) -> None:
        """Nothing to close."""


class FakeRealtimeSession(RealtimeSession[Any]):
    """One conversation with it."""

    def __init__(self, model: FakeRealtime) -> None:
        """It knows nothing."""
        super().__init__(model)
        self._model, self._context, self._tools = model, ChatContext.empty(), ToolContext.empty()

    @property
    def chat_ctx(self) -> ChatContext:
        """What it was told."""
        return self._context

    @property
    def tools(self) -> ToolContext:
        """What it may use."""
        return self._tools

    async def update_instructions(self, instructions: str) -> None:
        """Be told what it is."""

    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        """Be told what was said."""
        self._context = chat_ctx

    async def update_tools(self, tools: list[Any]) -> None:
        """Be told what it may use."""
        self._tools = ToolContext(tools)

    def update_options(self, *, tool_choice: Any = None) -> None:
        """Be told how."""

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        """Hear."""

    def push_video(self, frame: rtc.VideoFrame) -> None:
        """See."""

    def generate_reply(self, *, instructions: Any = None, **_named: Any) -> asyncio.Future[GenerationCreatedEvent]:
        """Say its line."""
        self._model.asked.append(instructions if isinstance(instructions, str) else None)
        made: asyncio.Future[GenerationCreatedEvent] = asyncio.get_running_loop().create_future()
        event = GenerationCreatedEvent(
            message_stream=self._messages(), function_stream=_no_calls(), user_initiated=True
        )
        made.set_result(event)
        self.emit("generation_created", event)
        return made

    async def _messages(self) -> AsyncIterator[MessageGeneration]:
        modalities: asyncio.Future[list[Literal["text", "audio"]]] = asyncio.get_running_loop().create_future()
        modalities.set_result(["text", "audio"])
        number = len(self._model.asked)
        yield MessageGeneration(f"message_{number}", _text(self._model.line), _no_frames(), modalities)

    def commit_audio(self) -> None:
        """Take what was heard for a turn."""

    def clear_audio(self) -> None:
        """Forget what was heard."""

    def interrupt(self) -> None:
        """Stop."""

    def truncate(self, **_named: Any) -> None:
        """Forget what was not heard of a message."""

    async def aclose(self) -> None:
        """Nothing to close."""


async def _text(line: str) -> AsyncIterator[str]:
    yield line


async def _no_frames() -> AsyncIterator[rtc.AudioFrame]:
    frames: tuple[rtc.AudioFrame, ...] = ()
    for frame in frames:
        yield frame


async def _no_calls() -> AsyncIterator[FunctionCall]:
    calls: tuple[FunctionCall, ...] = ()
    for call in calls:
        yield call
