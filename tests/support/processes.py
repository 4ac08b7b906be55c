"""Real processes: started with a log, waited for until ready, ended by their own pid."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from shared.system.processes import address_of

ROOT = Path(__file__).resolve().parents[2]
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.05
_LOG_TAIL_LINES = 25


class ProcessError(AssertionError):
    """A process did not do what it was started for; the message ends with its log."""


def program(name: str) -> str:
    """Find a command of ours beside this Python, or one of Debian, whatever the PATH is."""
    own = Path(sys.executable).with_name(name)
    found = str(own) if own.exists() else shutil.which(name, path=f"{os.defpath}:{_SYSTEM_FOLDERS}")
    if found is None:
        raise ProcessError(f"{name} is not installed; `make setup` installs it.")
    return found


class ManagedProcess:
    """One process and its log file; it dies with this one, however this one ends."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, *, extra_environ: dict[str, str]
    ) -> None:
        """Describe the process; ``start`` starts it, again after an end too."""
        self.name = name
        self.log = log
        self._argv = [program("setpriv"), "--pdeathsig", "TERM", "--", program(argv[0]), *argv[1:]]
        self._environ = os.environ | {"PYTHONUNBUFFERED": "1"} | extra_environ
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the running process."""
        assert self._popen is not None, f"{self.name} was never started."
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it was started and has ended."""
        return self._popen is not None and self._popen.poll() is not None

    def start(self) -> None:
        """Start it; the log is appended to. Call from the main thread only (PR_SET_PDEATHSIG)."""
        assert not self.running, f"{self.name} runs already."
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._argv,
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the one who started it
            )

    def stop(self) -> None:
        """End it politely, after 20 s by force. Ended already is fine."""
        if not self.running or self._popen is None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut of this one process would: kill -9."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait_ended(self, timeout_s: float = _READY_TIMEOUT_S) -> int:
        """Wait until it ends by itself; gives the exit status."""
        assert self._popen is not None
        return self._popen.wait(timeout_s)

    def wait_ready(self, probe: Callable[[], object], timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Wait until ``probe`` gives something true; OSError and the like mean *not yet*."""
        wait_until(
            probe,
            what=f"{self.name} became ready",
            timeout_s=timeout_s,
            check=self._require_running,
        )

    def tail(self) -> str:
        """Give the end of the log."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _require_running(self) -> None:
        if not self.running:
            status = self._popen.returncode if self._popen else "none"
            raise ProcessError(
                f"{self.name} ended with status {status}. {self.log}:\n{self.tail()}"
            )


def wait_until(
    probe: Callable[[], object],
    *,
    what: str,
    timeout_s: float = _READY_TIMEOUT_S,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Poll until ``probe`` gives something true. Raises ProcessError saying what did not happen."""
    deadline = time.monotonic() + timeout_s
    problem: object = None
    while time.monotonic() < deadline:
        check()
        try:
            if problem := probe():
                return
        except Exception as error:
            problem = error
        time.sleep(_POLL_S)
    raise ProcessError(f"Waited {timeout_s:.0f} s in vain until {what}; last: {problem!r}")


def run(
    argv: Sequence[str], *, extra_environ: dict[str, str] | None = None, stdin: str = ""
) -> str:
    """Run one command to its end and give its output. Raises ProcessError with what it wrote."""
    outcome = subprocess.run(
        [program(argv[0]), *argv[1:]],
        cwd=ROOT,
        env=os.environ | (extra_environ or {}),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        raise ProcessError(
            f"`{' '.join(argv)}` ended with status {outcome.returncode}:\n"
            f"{outcome.stdout}{outcome.stderr}"
        )
    return outcome.stdout


def listening(port: int) -> bool:
    """Tell whether something accepts connections on this loopback port."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def accepting(path: Path) -> bool:
    """Tell whether something accepts connections on this unix socket."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        address_of(path) as address,
    ):
        connection.connect(address)
        return True


class PortBlocks:
    """Blocks of free ports below the ephemeral range, reserved against other test processes."""

    SIZE = 32
    _FIRST = 20_000
    _END = 32_000

    def __init__(self) -> None:
        """Reserve nothing yet."""
        self._reservations = ExitStack()

    def take(self) -> int:
        """Reserve the first port of a block in which nothing listens."""
        bases = list(range(self._FIRST, self._END, self.SIZE))
        random.SystemRandom().shuffle(bases)
        for base in bases:
            if self._reserve(base) and all_free(range(base, base + self.SIZE)):
                return base
        raise ProcessError("No block of free ports is left on this machine.")

    def close(self) -> None:
        """Give the blocks back."""
        self._reservations.close()

    def _reserve(self, base: int) -> bool:
        """Bind an abstract socket named after the block: atomic, and gone with this process."""
        marker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            marker.bind(f"\0tma-edge-ports-{base}")
        except OSError:
            marker.close()
            return False
        self._reservations.enter_context(marker)
        return True


def all_free(ports: Iterable[int]) -> bool:
    """Tell whether nothing listens on any of these ports, on any address."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
