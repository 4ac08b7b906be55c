"""Logins that another system judges: one signed POST, a short time, and no answer means no."""

import hashlib
import hmac
import json
import logging
from collections.abc import Callable

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from shared.kernel.errors import IntegrityError, TmaError
from shared.policy.access import Alias, Requester

_LOG = logging.getLogger(__name__)
_TIMEOUT = ClientTimeout(total=3)
_ANSWER_BYTES_MAX = 4 * 1024
#: Hex HMAC-SHA-256 of the body under the secret that central showed once.
SIGNATURE_HEADER = "X-TMA-Signature"


class Webhooks:
    """Asks the addresses that requesters of kind webhook name."""

    def __init__(self, opened: Callable[[bytes], bytes]) -> None:
        """Take what opens a sealed secret; it raises TmaError."""
        self._opened = opened

    async def ask(self, requester: Requester, alias: Alias, password: str) -> bool:
        """Tell if the other system answers 200 with ``{"allow": true}`` in time."""
        assert requester.url is not None
        assert requester.secret is not None
        body = json.dumps(
            {
                "requester": requester.name,
                "password": password,
                "alias": alias.name,
                "profile": alias.profile,
            }
        ).encode()
        try:
            secret = self._opened(requester.secret)
            headers = {
                "Content-Type": "application/json",
                SIGNATURE_HEADER: hmac.digest(secret, body, hashlib.sha256).hex(),
            }
            async with (
                ClientSession(timeout=_TIMEOUT) as session,
                session.post(
                    requester.url, data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                said = await answer.content.read(_ANSWER_BYTES_MAX)
                return answer.status == web.HTTPOk.status_code and _allows(said)
        except (ClientError, OSError, TimeoutError, TmaError) as error:
            _LOG.warning("The webhook of %s gave no answer: %s", requester.name, error)
            return False


def never(_sealed: bytes) -> bytes:
    """Open nothing: for boxes that hold no exchange key."""
    raise IntegrityError("This box cannot open what is sealed to it.")


def _allows(said: bytes) -> bool:
    try:
        return json.loads(said) == {"allow": True}
    except ValueError:
        return False
