"""The one TOML file of a gateway: every setting with its default, checked before anything starts.

What this box *is* (its name, its keys, central's addresses) comes from the join, never from here.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from shared.pki.key_types import KeyType
from shared.pki.partitions import Count
from shared.system import settings
from shared.system.settings import BackupSettings, Port, Section

DEFAULT_PATH = Path("/etc/tma-edge/gateway.toml")


class WebSettings(Section):
    """Where people, stations and relying parties reach this box."""

    address: str = Field(default="0.0.0.0", description="Address on which all listeners listen.")
    port: Port = Field(
        default=9443, description="HTTPS: technician page, and REST with station tokens."
    )
    machine_port: Port = Field(
        default=9444, description="HTTPS with optional client certificates: REST for machines."
    )
    status_port: Port = Field(
        default=9080, description="HTTP for what is signed by itself: OCSP, CRL, CA certificates."
    )
    never_issued: Literal["unknown", "revoked"] = Field(
        default="unknown",
        description="What OCSP says of serial numbers that were never issued here: `unknown`, or "
        "`revoked` (on hold since 1970, RFC 6960 §2.2), which no client can overlook.",
    )
    names: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1"),
        min_length=1,
        max_length=16,
        description="DNS names and IP addresses of this box; they go into its web certificate. "
        "The first one is the address that its certificates point to for CRL and OCSP.",
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = (self.port, self.machine_port, self.status_port)
        if len(set(ports)) < len(ports):
            raise ValueError("port, machine_port and status_port must be different numbers")
        return self


class TokenSettings(Section):
    """The PKCS#11 token that holds the gateway CA's key, served by ``tma-hsmd``."""

    socket: Path = Field(
        default=Path("run/hsmd.sock"),
        description="Unix socket of tma-hsmd; a relative path starts at the state directory.",
    )
    key_type: KeyType = Field(
        default=KeyType.EC_P256,
        description="Type of the CA key that this gateway makes on its token when it joins or "
        "takes a new CA, e.g. `ec-p384` or `rsa-3072`. Tokens make RSA, the NIST and Brainpool "
        "curves, secp256k1 and, if their module can, Ed25519 and Ed448. P-256 is the fastest.",
    )


class DiskSettings(Section):
    """When a filling disk warns and when it stops issuing (revoking always works)."""

    warning_mb: int = Field(
        default=1024, ge=1, description="Free megabytes below which the page says `limited`."
    )
    reserve_mb: int = Field(
        default=128,
        ge=1,
        description="Free megabytes below which nothing is issued, so that revoking still works.",
    )

    @model_validator(mode="after")
    def _warns_before_it_stops(self) -> Self:
        if self.warning_mb <= self.reserve_mb:
            raise ValueError("warning_mb must be larger than reserve_mb")
        return self


class OutboxSettings(Section):
    """When events that central applied, but has in no backup, are deleted here: never, unless set.

    Of what is deleted central then holds the only copy, and the page says so.
    """

    unarchived_days: int = Field(
        default=0, ge=0, le=3650, description="Days after which they are deleted; 0 means never."
    )
    unarchived_mb: int = Field(
        default=0,
        ge=0,
        description="Megabytes of the database above which they are deleted; 0 means never.",
    )


class CrlSettings(Section):
    """The CRLs of this gateway's CAs; complete ones are signed daily."""

    delta_hours: int = Field(
        default=0,
        ge=0,
        le=24 * 31,
        description="Hours between delta CRLs; 0 makes none. With deltas a revocation signs one at "
        "once, and the complete CRL follows within a day.",
    )
    delta_lifetime_hours: int = Field(
        default=24 * 7,
        ge=1,
        le=24 * 366,
        description="Hours from thisUpdate to nextUpdate of a delta CRL. After it, strict relying "
        "parties that use deltas refuse what the CA issued: a box without its token signs none.",
    )
    keep_expired_days: int = Field(
        default=32,
        ge=0,
        le=36_500,
        description="Days for which a CRL lists a certificate after its end; at least one complete "
        "CRL after its end lists it in any case.",
    )
    partitions: Count = Field(
        default=1,
        description="Partitions of the CRL: 1 (none), 2, 4, 8, 16, 32, 64, 128 or 256. A "
        "certificate names the one that its serial number falls into (RFC 5280 §5.2.5); those "
        "issued before keep the CRL that they name.",
    )

    @model_validator(mode="after")
    def _delta_outlives_its_schedule(self) -> Self:
        if self.delta_hours >= self.delta_lifetime_hours:
            raise ValueError("delta_lifetime_hours must be longer than delta_hours")
        return self


class EnrollSettings(Section):
    """What this box switches by itself of what central named."""

    aliases_off: tuple[str, ...] = Field(
        default=(), max_length=200, description="Enrollment aliases that are off at this box."
    )
    aliases_on: tuple[str, ...] = Field(
        default=(),
        max_length=200,
        description="Enrollment aliases that are on here although central has them off.",
    )


class GatewaySettings(Section):
    """Everything that an administrator of this box decides."""

    state: Path = Field(
        default=Path("/var/lib/tma-gateway"),
        description="Directory of the database, the wrapped keys and the sockets; mode 0700.",
    )
    title: str = Field(
        default="",
        max_length=64,
        description="Name of the line on the page; empty shows the gateway's.",
    )
    witness: Path = Field(
        default=Path("witness.cbor"),
        description="Second file that tells a restored database from a crash. Put it on another "
        "disk than `state` if there is one; a relative path starts at the state directory.",
    )
    web: WebSettings = WebSettings()
    token: TokenSettings = TokenSettings()
    disk: DiskSettings = DiskSettings()
    outbox: OutboxSettings = OutboxSettings()
    crl: CrlSettings = CrlSettings()
    backup: BackupSettings = BackupSettings()
    enroll: EnrollSettings = EnrollSettings()

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return self.state / "gateway.db"

    @property
    def box_slot_path(self) -> Path:
        """The 0600 file that holds the box's own half of the key wrapping (design.md §12)."""
        return self.state / "box.key"

    @property
    def agent_socket(self) -> Path:
        """Where the running agent takes commands."""
        return self.state / "run" / "agent.sock"

    @property
    def lock_path(self) -> Path:
        """What the one process that works on the state directory holds."""
        return self.state / "run" / "agent.lock"

    @property
    def token_socket(self) -> Path:
        """Where tma-hsmd listens."""
        return self.state / self.token.socket

    @property
    def witness_path(self) -> Path:
        """Where the witness lies."""
        return self.state / self.witness

    @property
    def status_url(self) -> str:
        """Base address of CRL, OCSP and CA certificates, as written into certificates."""
        return f"http://{self._host}:{self.web.status_port}"

    @property
    def machine_url(self) -> str:
        """Base address of the port for machines."""
        return f"https://{self._host}:{self.web.machine_port}"

    @property
    def _host(self) -> str:
        name = self.web.names[0]
        return f"[{name}]" if ":" in name else name


def load(path: Path) -> GatewaySettings:
    """Read and check the file; raises BadRequestError naming each wrong setting and the cure."""
    return settings.load(GatewaySettings, path, manual="docs/gateway.md")
