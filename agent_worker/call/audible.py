"""Keeping an agent audible whose first words are interrupted before anybody could hear them.

LiveKit holds speech back until somebody has subscribed to the agent's track: each speech waits for one future. A
speech that is interrupted while it waits cancels that future, and then the agent is silent for the whole call.
"""

import asyncio
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.io import AudioOutput


def keep_audible(session: AgentSession[Any]) -> None:
    """Let each speech wait for its first listener without ending the wait for all others.

    Call it before the session starts: its first speech may wait before the start has returned.
    """
    shielded: list[AudioOutput] = []

    def shield(_: object) -> None:
        try:
            output = session.room_io.audio_output
        except RuntimeError:  # the session has no room
            return
        while output is not None:
            subscribed = getattr(output, "subscribed", None)
            if isinstance(subscribed, asyncio.Future) and output not in shielded:
                shielded.append(output)
                _shield(output, subscribed)
            output = output.next_in_chain

    session.on("speech_created", shield)


def _shield(output: Any, subscribed: "asyncio.Future[None]") -> None:
    capture = output.capture_frame

    async def capture_frame(frame: rtc.AudioFrame) -> None:
        await asyncio.shield(subscribed)
        await capture(frame)

    output.capture_frame = capture_frame  # on this instance: LiveKit gives no way to wait in another manner
