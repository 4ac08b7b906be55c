"""Keys that the server makes: short ones at once, long ones in threads of their own.

OpenSSL lets the event loop run meanwhile (measured: RSA-4096, worst stall 24 ms on a busy box with
two cores). RSA-8192 takes seconds to minutes: who asks waits a little, and a retry with the same
content finds the key, or the work that is still going on.
"""

import asyncio
import threading
from contextlib import suppress

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.kernel.errors import UnavailableError
from shared.pki import keys
from shared.pki.keys import KeyType

_THREADS = 2
_WAITING_MAX = 16  # long keys that are being made, or were made and not fetched yet
_WAIT_S = 10.0  # within the patience of HTTP clients
_FETCH_WITHIN_S = 900.0
_RETRY_AFTER_S = 5.0


class KeyMaker:
    """Makes private keys as PKCS#8 in DER, not encrypted."""

    def __init__(self) -> None:
        """Start nothing; a thread comes with each long key."""
        self._turns = asyncio.Semaphore(_THREADS)
        self._making: dict[str, asyncio.Task[bytes]] = {}

    async def make(self, name: str, kind: KeyType) -> bytes:
        """Make a key; while a long one is not fetched, the same name gives the same.

        Raises UnavailableError: the key is being made, come again with the same request; or too
        many are. Raises BadRequestError for a type that is not made here.
        """
        form = keys.FORMS[kind]
        if kind is KeyType.RSA_2048:  # 0.05 s of CPU, at times several of these: not on the loop
            return await asyncio.to_thread(_make, kind)
        if form.make is None or not form.slow:
            return _make(kind)
        making = self._making.get(name) or self._begin(name, kind)
        try:
            async with asyncio.timeout(_WAIT_S):
                return await asyncio.shield(making)
        except TimeoutError as error:
            raise UnavailableError(
                f"The {kind} key is still being made.",
                remedy="Send the same request again a little later; the work goes on meanwhile.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error

    def fetched(self, name: str) -> None:
        """Forget the key of this name: it is kept durably from now on."""
        self._making.pop(name, None)

    def _begin(self, name: str, kind: KeyType) -> asyncio.Task[bytes]:
        if len(self._making) >= _WAITING_MAX:
            raise UnavailableError(
                "Too many long keys are being made at once.",
                remedy="Try again later, or make the key yourself and send a CSR.",
                retry_after_s=_RETRY_AFTER_S,
            )
        loop = asyncio.get_running_loop()
        making = self._making[name] = loop.create_task(self._in_turn(kind))
        making.add_done_callback(lambda _done: loop.call_later(_FETCH_WITHIN_S, self.fetched, name))
        return making

    async def _in_turn(self, kind: KeyType) -> bytes:
        """Work in a daemon thread: a process that ends does not wait for its keys."""
        loop = asyncio.get_running_loop()
        made: asyncio.Future[bytes] = loop.create_future()

        def work() -> None:
            der = _make(kind)
            with suppress(RuntimeError, asyncio.InvalidStateError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(made.set_result, der)

        async with self._turns:
            threading.Thread(target=work, name="keygen", daemon=True).start()
            return await made


def _make(kind: KeyType) -> bytes:
    made = keys.generate(kind)
    return made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
