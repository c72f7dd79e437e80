"""OpenAI's Realtime API, ``/v1/realtime``, for the real OpenAI plugin: a model that hears and speaks the tone code.

It enforces the rules that OpenAI publishes: which ids and items are taken, that there is one response at a time, what
may be changed in a session, and how long a session lasts. The script is asked for the model's words in the form of a
chat, so the model answers as the chat does.
"""

import asyncio
import base64
import binascii
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web

from agent_worker.offline.realtime_behaviour import Answer, RealtimeBehaviour, RealtimeRequest
from agent_worker.offline.realtime_hearing import SoundBuffer
from agent_worker.offline.realtime_items import Event, EventRefusedError, Held, Items
from agent_worker.offline.realtime_options import SessionOptions, check_tools
from agent_worker.offline.realtime_output import Output, tell_added
from agent_worker.offline.realtime_responses import Response, done
from agent_worker.offline.refusals import require_key
from agent_worker.offline.tones import EventKind

logger = logging.getLogger(__name__)

_MIN_COMMITTED_MS = 100


async def realtime(
    request: web.Request,
    connections: set[web.WebSocketResponse],
    answer: Answer,
    behaviour: RealtimeBehaviour,
    *,
    sessions: set["RealtimeConnection"] | None = None,
) -> web.StreamResponse:
    """Hold a session until the client ends it or its time is up. It is in `connections` and `sessions` meanwhile.

    Raises `RequestRefusedError` if there is no key.
    """
    require_key(request.headers)
    socket = web.WebSocketResponse(compress=False, max_msg_size=16 << 20)
    held, session = set() if sessions is None else sessions, None
    try:
        await socket.prepare(request)
        connections.add(socket)
        session = RealtimeConnection(socket, request.query.get("model", "gpt-realtime"), answer, behaviour)
        held.add(session)
        await session.converse()
    except ConnectionResetError:
        logger.debug("the client hung up")
        return socket if socket in connections else web.Response()
    finally:
        connections.discard(socket)
        if session is not None:
            held.discard(session)
    return socket


class RealtimeConnection:
    """One realtime session."""

    def __init__(self, socket: web.WebSocketResponse, model: str, answer: Answer, behaviour: RealtimeBehaviour) -> None:
        """Send nothing before `converse`."""
        self._socket, self._answer, self._behaviour = socket, answer, behaviour
        self._options, self._items = SessionOptions(model), Items()
        self._numbers = itertools.count(1)
        # ids are unique across sessions too, as those of OpenAI's server are
        self._name = f"{id(self):x}{int(asyncio.get_running_loop().time() * 1000):x}"[-12:]
        self._output = Output(self._items, self._send, self._fresh)
        self._buffer = SoundBuffer()
        self._response: Response | None = None
        self._responding: asyncio.Task[None] | None = None
        self._late: list[Event] = []
        self._telling: set[asyncio.Task[None]] = set()
        self._has_spoken = False
        self._hearing_as = ""
        self._handlers: dict[str, Callable[[Event], Awaitable[None]]] = {
            "session.update": self._update,
            "conversation.item.create": self._create,
            "conversation.item.delete": self._delete,
            "conversation.item.truncate": self._truncate,
            "input_audio_buffer.append": self._hear,
            "input_audio_buffer.commit": self._commit_asked,
            "input_audio_buffer.clear": self._clear,
            "response.create": self._respond_asked,
            "response.cancel": self._cancel_asked,
        }

    async def converse(self) -> None:
        """Take events until the connection or the session's time ends."""
        expiry = asyncio.create_task(self._expire_in_time())
        try:
            await self._send({"type": "session.created", "session": self._options.told()})
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(message.data)
                    # other sessions must not wait while much sound is heard at once
                    await asyncio.sleep(0)
        finally:
            expiry.cancel()
            for task in (*self._telling, *([self._responding] if self._responding is not None else [])):
                task.cancel()

    async def _expire_in_time(self) -> None:
        await asyncio.sleep(self._behaviour.session_limit.total_seconds())
        await self.expire()

    async def expire(self) -> None:
        """End the session as if its time were up."""
        minutes = max(1, round(self._behaviour.session_limit.total_seconds() / 60))
        message = f"Your session hit the maximum duration of {minutes} minutes."
        await self._refuse(EventRefusedError(message, code="session_expired"), None)
        await self._socket.close(code=WSCloseCode.GOING_AWAY)

    async def _take(self, text: str) -> None:
        event_id = None
        try:
            event = json.loads(text)
            event_id = event.get("event_id")
            await self._handlers.get(event.get("type"), self._unknown)(event)
        except (ValueError, AttributeError):
            message = "We could not parse the JSON body of your event."
            await self._refuse(EventRefusedError(message, code="invalid_json"), event_id)
        except EventRefusedError as error:
            await self._refuse(error, event_id)

    async def _unknown(self, event: Event) -> None:
        message = f"Invalid value: '{event.get('type')}'."
        raise EventRefusedError(message, code="invalid_value", param="type")

    async def _refuse(self, error: EventRefusedError, event_id: str | None) -> None:
        told = {
            "type": "invalid_request_error",
            "code": error.code,
            "message": str(error),
            "param": error.param,
            "event_id": event_id,
        }
        await self._send({"type": "error", "error": told})

    async def _send(self, event: Event) -> None:
        if not self._socket.closed:
            await self._socket.send_json({"event_id": self._fresh("event"), **event})

    def _fresh(self, kind: str) -> str:
        return f"{kind}_{self._name}{next(self._numbers)}"

    # The session and its items.

    async def _update(self, event: Event) -> None:
        self._options.update(event.get("session"), has_spoken=self._has_spoken)
        await self._send({"type": "session.updated", "session": self._options.told()})

    async def _create(self, event: Event) -> None:
        item = event.get("item")
        if any(words in json.dumps(item, ensure_ascii=False) for words in self._behaviour.refused_words):
            message = "The item could not be processed."
            raise EventRefusedError(message, code="invalid_value", param="item.content")
        held = self._items.create(item, event.get("previous_item_id"), self._fresh("item"))
        await tell_added(self._send, self._items, held)

    async def _delete(self, event: Event) -> None:
        self._items.delete(event.get("item_id"))
        await self._send({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    async def _truncate(self, event: Event) -> None:
        held = self._items.truncate(event.get("item_id"), event.get("audio_end_ms"))
        told = {"item_id": held.id, "content_index": 0, "audio_end_ms": held.audio_ms}
        await self._send({"type": "conversation.item.truncated", **told})

    # What is heard.

    async def _hear(self, event: Event) -> None:
        try:
            sound = base64.b64decode(str(event.get("audio")), validate=True)
        except (ValueError, binascii.Error):
            message = "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz)."
            raise EventRefusedError(message, code="invalid_value", param="audio") from None
        for heard in self._buffer.append(sound):
            if self._options.turn_detection is None:
                continue
            if heard.kind is EventKind.STARTED:
                await self._started(heard.began)
            elif heard.kind is not EventKind.PARTIAL:
                await self._stopped(heard.ended)

    async def _started(self, began: float) -> None:
        self._hearing_as = self._fresh("item")
        told = {"audio_start_ms": round(began * 1000), "item_id": self._hearing_as}
        await self._send({"type": "input_audio_buffer.speech_started", **told})
        if self._response is not None and (self._options.turn_detection or {}).get("interrupt_response", True):
            await self._cancel("turn_detected")

    async def _stopped(self, ended: float) -> None:
        told = {"audio_end_ms": round(ended * 1000), "item_id": self._hearing_as}
        await self._send({"type": "input_audio_buffer.speech_stopped", **told})
        await self._commit(self._hearing_as)
        detection = self._options.turn_detection or {}
        if detection.get("create_response", True) and self._response is None:
            await self._respond({})

    async def _commit_asked(self, _event: Event) -> None:
        if self._buffer.milliseconds < _MIN_COMMITTED_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer "
                f"only has {self._buffer.milliseconds:.2f}ms of audio."
            )
            raise EventRefusedError(message, code="input_audio_buffer_commit_empty")
        self._buffer.finish()
        await self._commit(self._fresh("item"))

    async def _commit(self, item_id: str) -> None:
        last = [held.id for held in self._items][-1:]
        previous = last[0] if last else None
        milliseconds, words = self._buffer.milliseconds, self._buffer.take()
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        self._items.append(Held(item, words=words))
        committed = {"previous_item_id": previous, "item_id": item_id}
        await self._send({"type": "input_audio_buffer.committed", **committed})
        await tell_added(self._send, self._items, self._items.find(item_id) or Held(item))
        if words:
            self._behaviour.heard(words)
        if not self._options.is_transcribed:
            return
        transcript = {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": item_id,
            "content_index": 0,
            "transcript": words,
            "usage": {"type": "duration", "seconds": milliseconds / 1000},
        }
        if self._behaviour.transcripts == "late":
            self._late.append(transcript)
        else:
            await self._send(transcript)

    async def _clear(self, _event: Event) -> None:
        self._buffer = SoundBuffer()
        await self._send({"type": "input_audio_buffer.cleared"})

    # What is said.

    async def _respond_asked(self, event: Event) -> None:
        if self._response is not None:
            message = (
                f"Conversation already has an active response in progress: {self._response.id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise EventRefusedError(message, code="conversation_already_has_active_response")
        wanted = event.get("response") or {}
        check_tools(wanted.get("tools"), "response.tools")
        await self._respond(wanted)

    async def _respond(self, wanted: Event) -> None:
        response = self._response = Response(self._fresh("resp"), wanted.get("metadata"), self._options.is_spoken)
        await self._send({"type": "response.created", "response": response.told()})
        tools = self._options.tools
        if wanted.get("tools") is not None:
            tools = {tool["name"]: tool for tool in wanted["tools"]}
        own = str(wanted.get("instructions") or "")
        instructions = own or self._options.instructions
        above = [{"role": "system", "content": instructions}] if instructions else []
        choice = wanted.get("tool_choice", self._options.tool_choice)
        request = RealtimeRequest([*above, *self._items.messages()], tools, choice != "none", own)
        self._responding = asyncio.create_task(self._say(response, request))

    async def _say(self, response: Response, request: RealtimeRequest) -> None:
        try:
            reply = await self._answer(request)
            if reply.text:
                self._behaviour.spoken(reply.text)
                self._has_spoken = self._has_spoken or response.is_spoken
                await self._output.say_words(response, reply.text)
            for call in reply.calls:
                call_fields = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
                await self._output.say_call(response, call_fields)
        except ConnectionResetError:
            return
        except Exception:
            logger.exception("the script failed")
            await self._end(response, "failed", {"type": "failed", "error": {"type": "server_error", "code": None}})
            return
        await self._end(response, "completed", None)

    async def _end(self, response: Response, status: str, details: Event | None) -> None:
        self._response = self._responding = None
        await self._send(done(response, status, details))
        late, self._late = self._late, []
        if late:
            self._tell_late(late)

    def _tell_late(self, transcripts: list[Event]) -> None:
        async def tell() -> None:
            await asyncio.sleep(self._behaviour.transcript_delay.total_seconds())
            with suppress(ConnectionResetError):
                for transcript in transcripts:
                    await self._send(transcript)

        task = asyncio.create_task(tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _cancel_asked(self, event: Event) -> None:
        wanted = event.get("response_id")
        if self._response is None or wanted not in (None, self._response.id):
            message = "Cancellation failed: no active response found"
            raise EventRefusedError(message, code="response_cancel_not_active")
        await self._cancel("client_cancelled")

    async def _cancel(self, reason: str) -> None:
        """End the response in the middle. An item of it that was begun stays, as far as it came."""
        response, task = self._response, self._responding
        if response is None:
            return
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._response is not response:
            return
        if response.output and response.output[-1].item["status"] == "in_progress":
            await self._output.finish(response, response.output[-1], "incomplete")
        await self._end(response, "cancelled", {"type": "cancelled", "reason": reason})
