"""The daemon's configuration: one TOML file for one token. The file is the policy of its keys.

    socket = "/run/tma/hsmd.sock"
    state = "/var/lib/tma/hsmd"

    [token]
    uri = "pkcs11:token=gw-01;serial=1f2e?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/tma/pin"

    [policy]
    purposes = ["leaf", "crl", "own_responder", "central_responder", "birth_csr"]

    [policy.keys.fleet-ca]
    purposes = ["ca", "crl", "own_responder"]

The file must not be writable by anyone but root and the daemon's user.
"""  # noqa: E501 - a URI cannot be broken

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from shared.hsm.requests import KeyLabel
from shared.issuance.ports import Purpose
from shared.system.settings import Section

#: Modules that may be loaded into the daemon: distribution paths of Debian 12, root-owned.
KNOWN_MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"),
    Path("/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so"),
)

_Purposes = Annotated[frozenset[Purpose] | None, Field(min_length=1)]


class Token(Section):
    """Which token, and how it is watched."""

    uri: str = Field(
        description="Where the keys are: an RFC 7512 URI with module-path and pin-source, or "
        "software:DIRECTORY?pin-source=SOURCE for wrapped key files. A SOURCE is file:PATH (mode "
        "0600) or credential:NAME (systemd)."
    )
    modules: tuple[Path, ...] = Field(
        default=KNOWN_MODULES,
        description="PKCS#11 modules that may be loaded; default: SoftHSM2 and OpenSC of Debian.",
    )
    poll_s: float = Field(
        default=5.0, gt=0, le=60, description="Seconds between looks for the token."
    )
    settle_s: float = Field(
        default=0.5, ge=0, le=60, description="Seconds a token must stay before it is opened."
    )
    hang_s: float = Field(
        default=60.0,
        ge=1,
        le=600,
        description="Seconds after which a call into the module counts as hanging: the daemon "
        "ends with status 70, to be started again.",
    )


class KeyPolicy(Section):
    """What one key may sign."""

    purposes: _Purposes = Field(
        default=None,
        description="What may be signed: leaf, crl, own_responder, central_responder, birth_csr, "
        "ca. Default: the CA certificate decides; path length 0 issues to end entities, any other "
        "to CAs.",
    )


class Policy(KeyPolicy):
    """What the keys of this token may sign, and whether clients may make further ones."""

    generate: bool = Field(default=True, description="Clients may make keys on the token.")
    keys: dict[KeyLabel, KeyPolicy] = Field(
        default_factory=dict[str, KeyPolicy],
        description="Exceptions by key label: tables policy.keys.LABEL with purposes.",
    )

    def purposes_of(self, key: str) -> frozenset[Purpose] | None:
        """Give the purposes of one key; None: those that its CA certificate implies."""
        return self.keys.get(key, self).purposes


class Settings(Section):
    """The whole file."""

    socket: Path = Field(
        description="Unix socket to listen on, mode 0600; its directory must exist."
    )
    state: Path = Field(
        description="Directory, mode 0700, made if missing: what is known of the token, CA "
        "certificates, pinned responder keys, a PIN that was refused."
    )
    client_uid: int | None = Field(
        default=None, ge=0, description="User who may connect; default: the daemon's own."
    )
    token: Token = Field(description="Which token, and how it is watched.")
    policy: Policy = Field(default=Policy(), description="What keys may sign.")


def describe(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """List each setting with its description and default, for ``--help``."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from describe(field.annotation, f"{prefix}{name}.")
            continue
        simple = isinstance(field.default, int | float)
        default = f" Default: {field.default}." if simple else ""
        yield f"{prefix}{name}: {field.description}{default}"
