"""What may be ordered about people, by page, REST and command: each body says what it takes."""

from typing import Annotated

from pydantic import Field

from shared.web.console import Order, Text

#: Users may have capitals, as in a directory; stations may not.
UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Password = Annotated[str, Field(min_length=1, max_length=1024)]
ScopeText = Annotated[str, Field(min_length=1, max_length=512)]


class UserOrder(Order):
    """Add a user, with a first right if ``role`` is named.

    Without ``password`` one is made, to be changed at the first login; ``login`` false makes a
    user without one, for a program or for cards only.
    """

    name: UserName
    password: Password | None = None
    login: bool = True
    role: RoleName | None = None
    scope: ScopeText = "*"


class PasswordOrder(Order):
    """Give a user another first password; without ``password`` one is made."""

    password: Password | None = None


class AssignmentOrder(Order):
    """A role within a scope."""

    role: RoleName
    scope: ScopeText = "*"


class RoleOrder(Order):
    """What a role of your own allows."""

    permissions: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)]


class TokenOrder(Order):
    """Make an API token of a user; without ``permissions`` it may all that its user may."""

    user: UserName
    name: Text
    permissions: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    scope: ScopeText = "*"
    days: Annotated[int, Field(ge=1, le=3650)] = 90


class CertificateOrder(Order):
    """Bind a client certificate (PEM), on a card or not, to a user."""

    certificate: Annotated[str, Field(min_length=1, max_length=16 * 1024)]
