"""An HTTP server's life: it listens from ``async with`` to its end."""

from types import TracebackType
from typing import Self

from aiohttp import web


class Listening:
    """An aiohttp application while it listens on one port."""

    def __init__(self, app: web.Application, *, host: str, port: int, patience: float = 60.0) -> None:
        """Take port 0 for a free one. At the end, answers under way get `patience` seconds."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=patience)
        self._host, self._port = host, port

    @property
    def port(self) -> int:
        """The port. Raises `RuntimeError` while nobody listens on it."""
        if not self._runner.addresses:
            message = "the server is not running"
            raise RuntimeError(message)
        port: int = self._runner.addresses[0][1]
        return port

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken, and leaves nothing behind then."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()
