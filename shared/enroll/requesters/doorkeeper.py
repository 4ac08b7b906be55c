"""The one place that tells who asks at an alias, and whether he may; deny by default."""

import binascii
import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass

from aiohttp import web

from shared.enroll.requesters.passwords import Passwords
from shared.enroll.requesters.ports import Codes, Rules
from shared.enroll.requesters.webhook import Webhooks
from shared.kernel.clock import Clock
from shared.kernel.errors import ForbiddenError, UnauthenticatedError, UntrustedError
from shared.pki import idevid
from shared.policy.access import Access, Alias, Evidence, Requester
from shared.web.access_log import PRINCIPAL
from shared.web.auth import Authenticator, Principal, peer_certificate
from shared.web.throttle import Throttle

_TOKEN_PREFIX = "tma_"  # noqa: S105  # what stations' tokens begin with
#: Four groups of five letters and digits: 100 random bits that a person can type.
CODE_FORM = re.compile(r"[0-9A-HJKMNP-TV-Z]{5}(?:-[0-9A-HJKMNP-TV-Z]{5}){3}")
_BASIC_CHARS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Enroller:
    """Somebody who may enroll at the alias. ``device``: for this serial number only.

    ``code`` is the hash of the one-time code that the enrollment spends.
    """

    name: str
    device: str | None = None
    code: bytes | None = None


class Doorkeeper:
    """Admits requests at aliases."""

    def __init__(
        self,
        *,
        rules: Rules,
        authenticator: Authenticator,
        codes: Codes,
        passwords: Passwords,
        webhooks: Webhooks,
        failures: Throttle,
        clock: Clock,
    ) -> None:
        """Take what is known of requesters; ``failures`` bounds guessing per peer address."""
        self._rules = rules
        self._authenticator = authenticator
        self._codes = codes
        self._passwords = passwords
        self._webhooks = webhooks
        self._failures = failures
        self._clock = clock

    async def admit(self, request: web.Request, alias: Alias) -> Enroller:
        """Tell who asks: by the Authorization header, else by the client certificate.

        Raises UnauthenticatedError, ForbiddenError, ThrottledError, UnavailableError.
        """
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, value = header.partition(" ")
            if scheme.lower() != "basic":
                return _station(await self._authenticator.principal(request), alias)
            enroller = await self._by_password(request, alias, *_basic(value))
        elif (der := peer_certificate(request)) is not None:
            enroller = await self._by_certificate(request, alias, der)
        else:
            raise UnauthenticatedError("The request carries no login and no client certificate.")
        request[PRINCIPAL] = enroller.name
        return enroller

    async def holder(self, request: web.Request) -> Principal:
        """Tell whose certificate is presented: one that this installation issued and still trusts.

        Raises UnauthenticatedError.
        """
        der = peer_certificate(request)
        if der is None:
            raise UnauthenticatedError(
                "Present the certificate that is to be renewed over mutual TLS."
            )
        return await self._authenticator.judge(request, "client certificate", der)

    async def presented(self, request: web.Request, alias: Alias) -> bytes | None:
        """Give the client certificate (DER) beside the login of whoever was admitted, if it counts.

        It counts if it would admit somebody here, or was issued here and is good. None: there is
        none. Raises UnauthenticatedError, ForbiddenError: a revoked or foreign one proves nothing.
        """
        der = peer_certificate(request)
        if der is None:
            return None
        if self._known_certificate(alias, der) is None:
            await self._authenticator.examine(request, "client certificate", der)
        return der

    async def _by_password(
        self, request: web.Request, alias: Alias, name: str, password: str
    ) -> Enroller:
        if password.startswith(_TOKEN_PREFIX):
            principal = await self._authenticator.judge(request, "token", password.encode())
            return _station(principal, alias)
        address = request.remote or ""
        self._failures.require(address)
        if CODE_FORM.fullmatch(password.upper()):
            enroller = await self._by_code(alias, name, password.upper())
        else:
            enroller = await self._by_requester(alias, name, password)
        if enroller is None:
            self._failures.count(address)
            raise UnauthenticatedError("Name or password is wrong, expired or not for this alias.")
        return enroller

    async def _by_code(self, alias: Alias, serial: str, text: str) -> Enroller | None:
        digest = code_hash(text)
        code = await self._codes.code(digest)
        if (
            code is None
            or Evidence.CODE not in alias.accepts
            or code.serial != serial
            or code.alias not in {alias.name, "*"}
            or self._clock.now().utc_us >= code.expires_at_us
        ):
            return None
        return Enroller(f"device:{serial}", device=serial, code=digest)

    async def _by_requester(self, alias: Alias, name: str, password: str) -> Enroller | None:
        requester = self._rules.access.by_requester.get(name)
        if requester is not None and not self._may(requester, alias):
            requester = None
        if requester is not None and requester.kind == "webhook":
            good = await self._webhooks.ask(requester, alias, password)
        else:
            kept = requester.password_hash if requester else None
            good = await self._passwords.match(kept, password)
        return Enroller(f"requester:{name}") if requester is not None and good else None

    async def _by_certificate(self, request: web.Request, alias: Alias, der: bytes) -> Enroller:
        known = self._known_certificate(alias, der)
        return known or _station(await self._authenticator.principal(request), alias)

    def _known_certificate(self, alias: Alias, der: bytes) -> Enroller | None:
        """Tell whose certificate that is, if a requester or a manufacturer vouches for it."""
        digest = hashlib.sha256(der).hexdigest()
        requester = self._rules.access.by_certificate.get(digest)
        if requester is not None and self._may(requester, alias):
            return Enroller(f"requester:{requester.name}")
        if Evidence.MANUFACTURER in alias.accepts:
            device = _device(self._rules.access, alias, der, self._clock.now().utc_us)
            if device is not None:
                return Enroller(f"cert:{digest}", device=device)
        return None

    def _may(self, requester: Requester, alias: Alias) -> bool:
        kind = Evidence(requester.kind)
        return kind in alias.accepts and requester.may_use(alias, self._clock.now().utc_us)


def code_hash(text: str) -> bytes:
    """Hash a one-time code as it is kept: 100 random bits need no salt and no slow hash."""
    return hashlib.sha256(text.encode()).digest()


def _station(principal: Principal, alias: Alias) -> Enroller:
    """Admit a station or a program that may enroll for the alias's profile."""
    if Evidence.TOKEN not in alias.accepts or not principal.may_use(alias.profile):
        raise ForbiddenError(f"You may not enroll at the alias {alias.name}.")
    return Enroller(principal.name)


def _device(access: Access, alias: Alias, der: bytes, now_us: int) -> str | None:
    """Give the serial number of a device whose manufacturer the alias names; None: no such one.

    Raises ForbiddenError for a device that is genuine, but not meant.
    """
    for name in alias.manufacturers:
        manufacturer = access.by_manufacturer.get(name)
        if manufacturer is None:
            continue
        store = idevid.TrustStore(manufacturer.certificates, manufacturer.crls)
        try:
            idevid.verify(der, store, now_us)
        except UntrustedError:
            continue
        serial = idevid.serial_number(der)
        if serial is None or not alias.fits(serial):
            raise ForbiddenError(
                f"The device certificate's serial number {serial or '(none)'} does not fit "
                f"the pattern {alias.serial_pattern} of the alias {alias.name}."
            )
        return serial
    return None


def _basic(value: str) -> tuple[str, str]:
    """Read Basic credentials (RFC 7617)."""
    if len(value) > _BASIC_CHARS_MAX:
        raise UnauthenticatedError("The Authorization header is too long.")
    try:
        name, colon, password = b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise UnauthenticatedError("The Authorization header is malformed.") from error
    if not colon:
        raise UnauthenticatedError("The Authorization header holds no name and password.")
    return name, password
