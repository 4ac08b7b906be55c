"""A network cable that can be pulled: a TCP relay that runs as a process of its own.

    python -m tests.support.relay CONTROL_SOCKET LISTEN_PORT:TARGET_PORT...

``cut`` closes the listeners and every connection, so that a peer sees what it would see at a
broken link; ``restore`` listens again. ``trouble SEED`` lets the network be bad until then: what
passes is by chance delayed, throttled, or cut short in its middle with the connection.
``troubles`` counts that; ``traffic`` tells the bytes that passed since it was asked last. Neither
product knows that it is there.
"""

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from shared.system.processes import address_of

_CHUNK_BYTES = 64 * 1024
_CONTROL_TIMEOUT_S = 10.0
#: Trouble: how likely each chunk meets it, how long it is delayed, how fast a throttled one passes.
_DELAYED, _THROTTLED, _TRUNCATED = 0.10, 0.05, 0.02
_DELAY_S = (0.01, 0.8)
_TRICKLE_BYTES_PER_S = 50_000


class Relay:
    """Forwards loopback ports while the cable is in."""

    def __init__(self, routes: dict[int, int]) -> None:
        """Take ``routes``: port that is listened on to port that is behind."""
        self._routes = routes
        self._servers: list[asyncio.Server] = []
        self._writers = set[asyncio.StreamWriter]()
        self._passed = 0
        self._chance: random.Random | None = None
        self._troubles = 0

    async def trouble(self, seed: str) -> None:
        """Be a bad network until ``restore``."""
        self._chance = random.Random(seed)

    async def troubles(self) -> int:
        """Count what was done to passing bytes, since the start."""
        return self._troubles

    async def restore(self) -> None:
        """Listen, if not already listening; all is well."""
        self._chance = None
        if not self._servers:
            self._servers = [await self._listen(*route) for route in self._routes.items()]

    async def cut(self) -> None:
        """Close the listeners and reset every connection."""
        for server in self._servers:
            server.close()
        self._servers = []
        for writer in self._writers:
            writer.transport.abort()

    async def traffic(self) -> int:
        """Give the bytes that passed, both ways together, and begin to count anew."""
        passed, self._passed = self._passed, 0
        return passed

    async def _listen(self, port: int, target: int) -> asyncio.Server:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connect(reader, writer, target)

        return await asyncio.start_server(relay, "127.0.0.1", port)

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        """Pump both ways until either side ends."""
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward_writer}
        pumps = [
            asyncio.ensure_future(self._pump(reader, onward_writer)),
            asyncio.ensure_future(self._pump(onward_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, onward_writer):
                end.close()
                self._writers.discard(end)
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                self._passed += len(chunk)
                passing = await self._troubled(chunk)
                writer.write(passing)
                await writer.drain()
                if len(passing) < len(chunk):
                    return

    async def _troubled(self, chunk: bytes) -> bytes:
        """Give what passes of a chunk, perhaps late; a part of it means that no more will."""
        chance = self._chance
        lot = chance.random() if chance else 1.0
        if chance is None or lot >= _DELAYED + _THROTTLED + _TRUNCATED:
            return chunk
        self._troubles += 1
        if lot < _TRUNCATED:
            return chunk[: chance.randrange(len(chunk))]
        slowly = lot < _TRUNCATED + _THROTTLED
        await asyncio.sleep(
            len(chunk) / _TRICKLE_BYTES_PER_S if slowly else chance.uniform(*_DELAY_S)
        )
        return chunk


async def _serve(control: Path, routes: dict[int, int]) -> None:
    relay = Relay(routes)
    await relay.restore()

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word, *values = (await reader.readline()).decode().split()
        act: Callable[..., Awaitable[int | None]] = getattr(relay, word)
        writer.write(f"{await act(*values) or 0}\n".encode())
        await writer.drain()
        writer.close()

    with address_of(control) as address:
        server = await asyncio.start_unix_server(obey, address)
    await server.serve_forever()


def command(control: Path, word: str) -> int:
    """Give the relay behind this socket one of its commands; returns when it is done.

    ``traffic`` gives the number of bytes, ``troubles`` that of troubles.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        address_of(control) as address,
    ):
        connection.settimeout(_CONTROL_TIMEOUT_S)
        connection.connect(address)
        connection.sendall(f"{word}\n".encode())
        answer = connection.recv(32)
    assert answer.endswith(b"\n"), f"The relay did not {word}."
    return int(answer)


def main() -> None:
    """Run until killed."""
    control, *pairs = sys.argv[1:]
    ports = (pair.split(":") for pair in pairs)
    asyncio.run(_serve(Path(control), {int(listen): int(target) for listen, target in ports}))


if __name__ == "__main__":
    main()
