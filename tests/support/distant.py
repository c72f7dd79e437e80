"""A caller in a process of its own: for a host whose network can be cut (see `tests.support.netns`), or to be killed.

The process writes what it witnesses to its output, a line of JSON each, and takes commands from its input.
"""

import asyncio
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from livekit import api

from tests.support.caller import Caller, Said
from tests.support.livekit_server import ROOT, LiveKitServer
from tests.support.witness import Event, Witness, from_line, to_line

_REPLY = '{"reply": '
_GOODBYE_SECONDS = 10.0


class DistantCaller(Witness):
    """What `Caller` is, in another process; it witnesses here what the process does there.

    ``prefix`` goes before the process's command: ``SecondHost().prefix`` puts it on the second host.
    """

    def __init__(
        self,
        server: LiveKitServer,
        *,
        room: str,
        identity: str = "caller",
        kind: api.AccessToken.ParticipantKind | None = None,
        attributes: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Nothing runs before it is entered."""
        super().__init__()
        self.identity = identity
        self.said: list[Said] = []
        self._prefix = tuple(prefix)
        self._environment = {**os.environ, **server.env, "PYTHONPATH": str(ROOT)}
        self._arguments = {"room": room, "identity": identity, "kind": kind, "attributes": dict(attributes or {})}
        self._numbers = itertools.count()
        self._replies: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> Self:
        """Start the process, and join."""
        self.process = await asyncio.create_subprocess_exec(
            *self._prefix, sys.executable, "-m", "tests.support.distant", json.dumps(self._arguments),
            env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        try:
            await self.rejoin()
        except BaseException:
            self.process.kill()
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave, and end the process; kill it if it takes its time."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), _GOODBYE_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._reading

    async def say(self, text: str) -> Said:
        """See `Caller`."""
        self.said.append(Said(**await self._ask("say", text)))
        return self.said[-1]

    async def chat(self, text: str) -> float:
        """See `Caller`."""
        return float(await self._ask("chat", text))

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        """See `Caller`."""
        await self._ask("set_attributes", dict(attributes))

    async def leave(self) -> None:
        """See `Caller`."""
        await self._ask("leave")

    async def rejoin(self) -> None:
        """See `Caller`."""
        await self._ask("rejoin")

    async def _ask(self, command: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps([number, command, *arguments]).encode() + b"\n")
        await self.process.stdin.drain()
        return await reply

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if not line.startswith(_REPLY.encode()):
                self.note(from_line(line))
                continue
            reply = json.loads(line)
            waiting = self._replies.pop(reply["reply"])
            if reply["error"]:
                waiting.set_exception(RuntimeError(f"{self.identity}: {reply['error']}"))
            else:
                waiting.set_result(reply["value"])
        for waiting in self._replies.values():
            waiting.set_exception(RuntimeError(f"{self.identity}: its process has ended"))
        self._replies.clear()


class _Reporting(Caller):
    """A caller whose record is its output."""

    def note(self, event: Event) -> None:
        _print(to_line(event))

    async def obey(self, number: int, command: str, *arguments: Any) -> None:
        """Do as told, and say what came of it."""
        value, error = None, ""
        try:
            value = await getattr(self, command)(*arguments)
        except Exception as raised:  # noqa: BLE001 -- it is raised again on the other side
            error = repr(raised)
        if isinstance(value, Said):
            value = dataclasses.asdict(value)
        _print(json.dumps({"reply": number, "value": value, "error": error}))  # begins with _REPLY


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _main(arguments: dict[str, Any]) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    caller = _Reporting(LiveKitServer(Path()).start(), **arguments)
    tasks = [asyncio.create_task(caller.obey(*json.loads(line))) async for line in reader]
    await caller.leave()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
