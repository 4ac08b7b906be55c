"""What is done about people, by page, REST and command; each act is one audited commit.

Nobody can give what he does not have, or take it away: any act on somebody who may more than
oneself needs all that he may.
"""

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from central.identity import people
from central.identity.approvals import Approvals, Content, Operation
from central.identity.orders import (
    AssignmentOrder,
    CertificateOrder,
    PasswordOrder,
    RoleOrder,
    TokenOrder,
    UserOrder,
)
from central.identity.people import Card, NewToken
from central.identity.reads import PeopleReads, Record
from central.metadata.orders import Wanted
from shared.kernel.clock import US_PER_SECOND, Clock, utc_us_of
from shared.kernel.errors import BadRequestError, ForbiddenError, NotFoundError
from shared.kernel.ids import Random
from shared.policy.rights import EVERYWHERE, ROLES, Permission, Right, Scope, permissions_of
from shared.store.database import Database
from shared.store.transaction import Transaction
from shared.web.auth import Principal, new_token
from shared.web.sessions import IDLE_US

_DAY_US = 24 * 3600 * US_PER_SECOND
_PASSWORD_BYTES = 15
_ID_BYTES = 6

#: Hashes a new password off the loop; raises BadRequestError when it breaks a rule.
Hash = Callable[[str, str], Awaitable[str]]
Act = Callable[[Transaction], Any]
#: Giving somebody a role with which he may change users; as ``approvals.operations`` names it.
ADD_ADMINISTRATOR = "administrator.add"
_ASSIGN, _DEFINE = ADD_ADMINISTRATOR, "role.define"


class PeopleOperations:
    """The acts, and the lists with the time of now."""

    def __init__(
        self,
        database: Database,
        *,
        approvals: Approvals,
        hash_password: Hash,
        forget: Callable[[], None],
        clock: Clock,
        random: Random,
    ) -> None:
        """Take the database and the hasher; ``forget`` drops what authentication remembers."""
        self.reads = PeopleReads(database)
        self._database = database
        self._approvals = approvals
        approvals.register(_ASSIGN, Operation(ADD_ADMINISTRATOR, Permission.USER_WRITE, _assign))
        approvals.register(_DEFINE, Operation(ADD_ADMINISTRATOR, Permission.USER_WRITE, _define))
        self._hash = hash_password
        self._forget = forget
        self._clock = clock
        self._random = random

    # --- users --------------------------------------------------------------------------------

    async def users(self, wanted: Wanted | None = None) -> list[Record]:
        """Give every user, or those that carry all of the wanted pairs."""
        return await self.reads.users(self._now_us(), wanted or {})

    async def user(self, name: str) -> Record:
        """Give one user with tokens, sessions and certificates; raises NotFoundError."""
        found = await self.reads.user(name, self._now_us())
        return found | {
            "tokens": await self.tokens(name),
            "sessions": await self.sessions(name),
            "certificates": await self.reads.certificates(name),
        }

    async def add_user(self, order: UserOrder, who: Principal) -> Record:
        """Add a user; ``password`` in the answer is one that was made, shown this once.

        A first role that needs a second person waits as ``approval``; the user is there at once.
        """
        first = None
        if order.role is not None:
            first = AssignmentOrder(role=order.role, scope=order.scope)
            await self._require_to_give(who, first.role, Scope.parse(first.scope))
        made, encoded = None, ""
        if order.login:
            made, encoded = await self._password(order.password, order.name)

        def unit(transaction: Transaction) -> None:
            people.add_user(transaction, order.name, encoded, who.name, must_change=order.login)

        await self._run(unit)
        waits = None if first is None else await self.assign(order.name, first, who)
        made_user = {"id": order.name, "name": order.name, "password": made}
        return made_user if waits is None else made_user | {"approval": waits}

    async def set_password(self, name: str, order: PasswordOrder, who: Principal) -> Record:
        """Give a user another first password, which he must change; all his sessions end."""
        await self._require_above(who, name)
        made, encoded = await self._password(order.password, name)
        await self._run(
            lambda transaction: people.set_password(
                transaction, name, encoded, who.name, must_change=True
            )
        )
        return {"id": name, "name": name, "password": made}

    async def change_own_password(self, name: str, password: str, session_id: str) -> None:
        """Give oneself another password; all other sessions end."""
        encoded = await self._hash(password, name)
        await self._run(
            lambda transaction: people.set_password(
                transaction,
                name,
                encoded,
                f"user:{name}",
                must_change=False,
                keep_session=session_id,
            )
        )

    async def disable(self, name: str, who: Principal) -> None:
        """Refuse a user from now on; raises ConflictError for the last administrator."""
        await self._require_above(who, name)
        await self._run(lambda transaction: people.disable(transaction, name, who.name))

    async def enable(self, name: str, who: Principal) -> None:
        """Let a disabled or locked user in again."""
        await self._require_above(who, name)
        await self._run(lambda transaction: people.enable(transaction, name, who.name))

    # --- roles --------------------------------------------------------------------------------

    async def assign(self, name: str, order: AssignmentOrder, who: Principal) -> int | None:
        """Give a role; gives the number under which it waits for a second person, if it does.

        Raises ForbiddenError when one does not have all of it oneself.
        """
        scope = Scope.parse(order.scope)
        permissions = await self._require_to_give(who, order.role, scope)
        await self.reads.user(name, self._now_us())
        content = {"user": name, "role": order.role, "scope": scope.text}
        return await self._perhaps_later(_ASSIGN, name, content, who, permissions)

    async def withdraw(self, name: str, order: AssignmentOrder, who: Principal) -> None:
        """Take a role back."""
        await self._require_above(who, name)
        scope = Scope.parse(order.scope)
        await self._run(
            lambda transaction: people.withdraw(transaction, name, order.role, scope, who.name)
        )

    async def define_role(self, name: str, order: RoleOrder, who: Principal) -> int | None:
        """Make a role or change one; answers as ``assign``.

        Raises ForbiddenError for what one does not have oneself.
        """
        permissions = permissions_of(order.permissions)
        _require_all(who, [Right(name, permissions | await self._held_by(name))])
        content = {"name": name, "permissions": sorted(permissions)}
        return await self._perhaps_later(_DEFINE, name, content, who, permissions)

    async def drop_role(self, name: str, who: Principal) -> None:
        """Remove a role that nobody has."""
        _require_all(who, [Right(name, await self._held_by(name))])
        await self._run(lambda transaction: people.drop_role(transaction, name, who.name))

    # --- tokens, sessions, certificates ---------------------------------------------------------

    async def tokens(self, name: str | None = None) -> list[Record]:
        """Give the API tokens of a user, or all."""
        return await self.reads.tokens(name, self._now_us())

    async def add_token(self, order: TokenOrder, who: Principal) -> Record:
        """Make an API token; it is in the answer this once, and kept as a hash only."""
        await self._require_above(who, order.user)
        token, digest = new_token(self._random)
        new = NewToken(
            self._random(_ID_BYTES).hex(),
            order.user,
            order.name,
            digest,
            permissions_of(order.permissions) if order.permissions else None,
            Scope.parse(order.scope),
            self._now_us() + order.days * _DAY_US,
        )
        await self._run(lambda transaction: people.add_token(transaction, new, who.name))
        return {"id": new.id, "token": token}

    async def revoke_token(self, token_id: str, who: Principal, owner: str | None = None) -> None:
        """End a token at once, only of this owner if one is named; raises NotFoundError."""
        for token in await self.tokens(owner):
            if token["id"] == token_id:
                await self._require_above(who, token["user"])
        await self._run(
            lambda transaction: people.revoke_token(transaction, token_id, owner, who.name)
        )

    async def sessions(self, name: str | None = None) -> list[Record]:
        """Give the live sessions of a user, or all."""
        return await self.reads.sessions(name, self._now_us(), IDLE_US)

    async def end_sessions(self, name: str, session_id: str | None, who: Principal) -> None:
        """End one session of a user, or all (None)."""
        await self._require_above(who, name)
        await self._run(
            lambda transaction: people.end_sessions(transaction, name, session_id, who.name)
        )

    async def bind_certificate(self, name: str, order: CertificateOrder, who: Principal) -> Record:
        """Let a client certificate stand for a user; raises BadRequestError, ConflictError."""
        await self._require_above(who, name)
        card = _card(order.certificate)
        await self._run(
            lambda transaction: people.bind_certificate(transaction, name, card, who.name)
        )
        return {"id": card.sha256, "subject": card.subject}

    async def unbind_certificate(self, name: str, sha256: str, who: Principal) -> None:
        """Take a certificate away from a user, with all his sessions."""
        await self._require_above(who, name)
        await self._run(
            lambda transaction: people.unbind_certificate(transaction, name, sha256, who.name)
        )

    # --- helpers --------------------------------------------------------------------------------

    async def _perhaps_later(
        self,
        kind: str,
        subject: str,
        content: Content,
        who: Principal,
        permissions: frozenset[Permission],
    ) -> int | None:
        """Let a second person agree where the settings say so and an administrator is made."""
        if Permission.USER_WRITE in permissions:
            number = await self._approvals.do(kind, subject, content, who.name, scope=EVERYWHERE)
            self._forget()
            return number
        act = {_ASSIGN: _assign, _DEFINE: _define}[kind]
        await self._run(lambda transaction: act(transaction, content, who.name))
        return None

    async def _run(self, unit: Act) -> None:
        await self._database.writer.run(unit)
        self._forget()

    async def _password(self, given: str | None, name: str) -> tuple[str | None, str]:
        """Give (a password that was made, if none was given; the hash)."""
        if given is not None:
            return None, await self._hash(given, name)
        made = urlsafe_b64encode(self._random(_PASSWORD_BYTES)).decode()
        return made, await self._hash(made, name)

    async def _require_above(self, who: Principal, name: str) -> None:
        """Raise ForbiddenError when the user is another one, and may more than who asks."""
        if who.name != f"user:{name}":
            _require_all(who, await self.reads.rights_of(name))

    async def _held_by(self, role: str) -> frozenset[Permission]:
        """Give the permissions of a role of one's own; none if there is no such role."""
        named = {one["name"]: one["permissions"] for one in await self.reads.roles()}
        return frozenset(map(Permission, set(named.get(role, ())) & set(Permission)))

    async def _require_to_give(
        self, who: Principal, role: str, scope: Scope
    ) -> frozenset[Permission]:
        permissions = ROLES.get(role)
        if permissions is None:
            if role not in {one["name"] for one in await self.reads.roles()}:
                raise NotFoundError(
                    f"There is no role {role}.", remedy="`tma-central role list` shows all."
                )
            permissions = await self._held_by(role)
        _require_all(who, [Right(role, permissions, scope)])
        return permissions

    def _now_us(self) -> int:
        return self._clock.now().utc_us


def everything(actor: str) -> Principal:
    """Give who asks at the console of the box: he may do everything."""
    return Principal(actor, (Right.of(people.ADMIN, EVERYWHERE),))


def _assign(transaction: Transaction, content: Content, actor: str) -> None:
    scope = Scope.parse(content["scope"])
    people.assign(transaction, content["user"], content["role"], scope, actor)


def _define(transaction: Transaction, content: Content, actor: str) -> None:
    people.define_role(transaction, content["name"], content["permissions"], actor)


def _require_all(who: Principal, rights: Iterable[Right]) -> None:
    for right in rights:
        lacking = [one for one in right.permissions if not who.may(one, right.scope)]
        if lacking:
            raise ForbiddenError(
                f"You do not have {min(lacking)} on {right.scope.text} yourself, so you cannot "
                "give it or act on somebody who has it."
            )


def _card(text: str) -> Card:
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise BadRequestError(
            "This is no certificate in PEM.",
            remedy="Export the certificate of the card, without its key, as PEM.",
            pointer="/certificate",
        ) from error
    return Card(
        certificate.fingerprint(SHA256()).hex(),
        certificate.subject.rfc4514_string()[:256],
        utc_us_of(certificate.not_valid_after_utc),
    )
