"""The first call to central: over TLS, to the server that the join token names and to no other.

The transport root comes over a connection that proves nothing; it is believed only because its
key has the hash in the token. The secret then goes over a second connection, which OpenSSL has
verified under that root alone before a byte of it is sent.
"""

import ssl

from aiohttp import (
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.kernel.errors import UnavailableError, UntrustedError
from shared.pki import keys
from shared.sync import join
from shared.sync.join import JoinAnswer, JoinRequest, JoinToken
from shared.web.console import AnsweredError

_TIMEOUT = ClientTimeout(total=30)


async def introduce(token: JoinToken, request: JoinRequest) -> JoinAnswer:
    """Spend the join token and give central's answer.

    Raises UnavailableError (central is out of reach: try again), UntrustedError (another server
    answers at central's address: the secret was not sent), AnsweredError (central says no).
    """
    async with ClientSession(timeout=_TIMEOUT) as session:
        try:
            root = await _transport_root(session, token)
            body = await _exchange(session, token, root, request)
        except ClientConnectorCertificateError as error:
            raise UntrustedError(
                f"The server at {token.address} is not the central that made this join token.",
                remedy="Check the address in central's configuration (web.names), then invite "
                "again.",
            ) from error
        except (ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"Central does not answer at {token.address}.",
                remedy="Check cable, address and firewall, then repeat the command.",
            ) from error
    return JoinAnswer.decode(body)


async def _transport_root(session: ClientSession, token: JoinToken) -> x509.Certificate:
    """Fetch the transport root and compare its key with the token."""
    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname = False
    unproven.verify_mode = ssl.CERT_NONE  # the pin below decides, not this connection
    url = f"https://{token.address}{join.ROOT_PATH}"
    async with session.get(url, ssl=unproven) as response:
        der = await _read(response)
    try:
        root = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise UntrustedError(f"The server at {token.address} gives no transport root.") from error
    key = keys.of(root)
    if key is None or join.spki_hash(keys.spki(key)) != token.transport_root_hash:
        raise UntrustedError(
            f"The server at {token.address} is not the central that made this join token.",
            remedy="Do not use this network for joining until it is known who answers there.",
        )
    return root


async def _exchange(
    session: ClientSession, token: JoinToken, root: x509.Certificate, request: JoinRequest
) -> bytes:
    """Post the request over a connection that is verified under the transport root."""
    verified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    verified.minimum_version = ssl.TLSVersion.TLSv1_3
    verified.load_verify_locations(cadata=root.public_bytes(Encoding.PEM).decode())
    url = f"https://{token.address}{join.JOIN_PATH}"
    headers = {"Content-Type": join.CONTENT_TYPE}
    async with session.post(url, data=request.encode(), headers=headers, ssl=verified) as response:
        if not response.ok:
            raise AnsweredError(await response.json(content_type=None))
        return await _read(response)


async def _read(response: ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > join.MESSAGE_BYTES_MAX:
            raise UntrustedError("The server's answer is longer than any answer of central.")
    return bytes(body)
