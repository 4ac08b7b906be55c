"""The cable can be pulled and put in again, as often as one likes."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import relay
from tests.support.processes import ManagedProcess, PortBlocks, listening


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.request.sendall(data)


@pytest.fixture
def base() -> Iterator[int]:
    blocks = PortBlocks()
    yield blocks.take()
    blocks.close()


@pytest.fixture
def echo(base: int) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", base + 1), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield base + 1
        server.shutdown()
        thread.join()


def test_cut_ends_what_is_open_and_refuses_what_is_new(tmp_path: Path, base: int, echo: int):
    control = tmp_path / "relay.sock"
    process = ManagedProcess(
        "relay",
        ["python3", "-m", "tests.support.relay", str(control), f"{base}:{echo}"],
        tmp_path / "relay.log",
        extra_environ={},
    )
    process.start()
    try:
        process.wait_ready(lambda: control.exists() and listening(base))
        for _round in range(3):
            with socket.create_connection(("127.0.0.1", base), timeout=10) as connection:
                connection.sendall(b"hello")
                assert connection.recv(5) == b"hello"
                relay.command(control, "cut")
                with pytest.raises(ConnectionResetError):
                    assert connection.recv(5) == b""
                    raise ConnectionResetError
            with pytest.raises(ConnectionRefusedError):
                listening(base)
            relay.command(control, "restore")
    finally:
        process.stop()
    assert not process.running
