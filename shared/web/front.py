"""A short way for small requests of machines: one segment in, one answer out, on a plain port.

The HTTP machinery costs several times what signing an OCSP answer costs. So a whole request that
came in one piece and has nothing unusual about it is offered to a ``Responder``; every other one,
and everything that follows on its connection, goes to the machinery as if nobody had looked.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from aiohttp.helpers import rfc822_formatted_time

_HEAD_BYTES_MAX = 4096
_IDLE_S = 60.0
_CLOSE = b"Connection: close\r\n"
_REQUEST = re.compile(
    rb"(GET|POST) (/[!-~]*) HTTP/1\.([01])\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n"
)
_LENGTH = re.compile(rb"^content-length:[\t ]*([0-9]{1,6})[\t ]*\r$", re.MULTILINE)
_CONNECTION = re.compile(rb"^connection:[\t ]*([a-z-]+)[\t ]*\r$", re.MULTILINE)
#: What changes how a request is read or answered is left to the machinery.
_UNUSUAL = re.compile(
    rb"^(?:transfer-encoding|expect|upgrade|if-[a-z-]+|origin|sec-[a-z-]+|range|content-encoding):",
    re.MULTILINE,
)


class Request(NamedTuple):
    """A plain request; ``body`` is empty for GET."""

    method: bytes
    target: bytes
    body: bytes


class Responder(Protocol):
    """Gives header fields and body of a 200 answer, now or later; None leaves it to others.

    It does not raise.
    """

    def __call__(self, request: Request, /) -> bytes | Awaitable[bytes] | None: ...  # noqa: D102


class Front(asyncio.Protocol):
    """One connection until the machinery takes it over."""

    __slots__ = ("_closing", "_connections", "_idle", "_make", "_respond", "_task", "_transport")

    def __init__(
        self,
        respond: Responder,
        make: Callable[[], asyncio.BaseProtocol],
        connections: "set[asyncio.Transport]",
    ) -> None:
        """``make`` gives the machinery's protocol for a connection."""
        self._respond = respond
        self._make = make
        self._connections = connections
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait a while for the first bytes."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; an answer that is being made finds nobody."""
        del exc
        self._idle.cancel()
        self._connections.discard(self._transport)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer the short way, or hand the connection over."""
        read = None if self._task else _read(data)
        answer = None if read is None else self._respond(read[0])
        if read is None or answer is None:
            self._hand_over(data)
            return
        self._closing = read[1]
        if isinstance(answer, bytes):
            self._send(answer)
        else:
            self._transport.pause_reading()  # what comes next waits its turn
            self._task = asyncio.ensure_future(self._send_later(answer))

    async def _send_later(self, answer: Awaitable[bytes]) -> None:
        try:
            self._send(await answer)
        except Exception:
            self._transport.abort()
            raise
        self._task = None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _send(self, answer: bytes) -> None:
        close = _CLOSE if self._closing else b""
        date = rfc822_formatted_time().encode("ascii")
        self._transport.write(b"HTTP/1.1 200 OK\r\nDate: %b\r\n%b%b" % (date, close, answer))
        if self._closing:
            self._transport.close()
        else:
            self._idle.cancel()
            self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._transport.close)

    def _hand_over(self, data: bytes) -> None:
        self._idle.cancel()
        self._connections.discard(self._transport)
        protocol = self._make()
        assert isinstance(protocol, asyncio.Protocol)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)


def _read(data: bytes) -> tuple[Request, bool] | None:
    """Read a whole request, and whether the connection ends with it; None if it is not plain."""
    found = _REQUEST.match(data, 0, _HEAD_BYTES_MAX)
    if found is None:
        return None
    method, target, version, head = found.groups()
    head = head.lower()
    body = data[found.end() :]
    lengths = _LENGTH.findall(head)
    expected = [b"%d" % len(body)] if method == b"POST" else []
    if (
        lengths != expected
        or head.count(b"content-length:") != len(lengths)
        or _UNUSUAL.search(head)
    ):
        return None
    if method == b"GET" and body:
        return None
    asked = _CONNECTION.findall(head)
    if len(asked) != head.count(b"\nconnection:") + head.startswith(b"connection:"):
        return None
    keep = (asked[0] == b"keep-alive" if asked else version == b"1") and len(asked) <= 1
    return Request(method, target, body), not keep
