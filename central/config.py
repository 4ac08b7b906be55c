"""The one TOML file of central: every setting with its default, checked before anything starts."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, model_validator

from shared.system import settings
from shared.system.settings import BackupSettings, Port, Section

DEFAULT_PATH = Path("/etc/tma-edge/central.toml")

_HOURS_PER_DAY = 24


class WebSettings(Section):
    """Where people, machines, gateways and relying parties reach central."""

    never_issued: Literal["unknown", "revoked"] = Field(
        default="unknown",
        description="What OCSP says of serials that central's own CAs never issued: "
        "`unknown`, or `revoked` (on hold since 1970, RFC 6960 §2.2), which no client can "
        "overlook.",
    )
    names: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1"),
        min_length=1,
        max_length=16,
        description="DNS names and IP addresses of central; they go into its TLS certificates. "
        "The first one is the address in join tokens and in issued certificates (CRL, OCSP).",
    )
    address: str = Field(default="0.0.0.0", description="Address on which all listeners listen.")
    port: Port = Field(default=8443, description="HTTPS: the pages, and REST with tokens.")
    machine_port: Port = Field(
        default=8444, description="HTTPS with optional client certificates: REST for machines."
    )
    card_port: Port = Field(
        default=8445,
        description="HTTPS that demands a client certificate: login by smart card, if "
        "`web.card_authorities` names a CA.",
    )
    card_authorities: tuple[Path, ...] = Field(
        default=(),
        max_length=32,
        description="PEM files of the CAs whose certificates may log in, once an administrator "
        "has bound them to a user; none: no login by card.",
    )
    gateway_port: Port = Field(default=8446, description="HTTPS for gateways that join.")
    status_port: Port = Field(
        default=8080, description="HTTP for what is signed by itself: OCSP, CRL, CA certificates."
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.port, self.machine_port, self.gateway_port, self.status_port]
        if self.card_authorities:
            ports.append(self.card_port)
        if len(set(ports)) < len(ports):
            raise ValueError(
                "port, machine_port, card_port, gateway_port and status_port must differ"
            )
        return self


class DatabaseSettings(Section):
    """Where central keeps what it knows."""

    url: str = Field(
        default="",
        max_length=2048,
        pattern="^(postgres(ql)?://.*)?$",
        description="PostgreSQL 14 or newer, as `postgresql://user@host/name?sslmode=verify-full`; "
        "empty is the SQLite file in `state`. A socket reads `postgresql:///name?host=/run/"
        "postgresql`.",
    )
    password: str = Field(
        default="",
        max_length=1024,
        description="Where its password is: `file:/path` (mode 0600) or `credential:NAME` "
        "(systemd). Empty: none is needed (a socket's peer), or it stands in `~/.pgpass`.",
    )

    @model_validator(mode="after")
    def _no_secret_here(self) -> Self:
        address = urlsplit(self.url)
        if address.password is not None or "password" in parse_qs(address.query):
            raise ValueError("a password does not stand in url; name its file in database.password")
        return self


class BrokerSettings(Section):
    """The MQTT broker, as central reaches it."""

    host: str = Field(
        default="",
        max_length=253,
        description="Name or IP address of the broker; empty means the first of `web.names`.",
    )
    port: Port = Field(default=8883, description="Its port for MQTT over TLS 1.3.")


class GatewaySettings(Section):
    """How gateways reach central, where that differs from what central itself uses."""

    host: str = Field(
        default="",
        max_length=253,
        description="Name or IP address in join tokens; empty means the first of `web.names`.",
    )
    port: Port | None = Field(
        default=None, description="Port in join tokens, if not `web.gateway_port`."
    )
    broker_host: str = Field(
        default="",
        max_length=253,
        description="The broker's name for gateways, if not `broker.host`.",
    )
    broker_port: Port | None = Field(
        default=None, description="The broker's port for gateways, if not `broker.port`."
    )
    token_hours: int = Field(
        default=72, ge=1, le=24 * 30, description="Hours for which a join token can be spent."
    )
    compare_hours: int = Field(
        default=24,
        ge=0,
        le=24 * 366,
        description="Hours between comparisons of what central and a gateway hold of its "
        "certificates, while it is online and nothing is under way; 0: only on demand.",
    )


class ApprovalSettings(Section):
    """What only two people can do together."""

    operations: tuple[
        Literal["gateway.end", "administrator.add", "profile.publish", "certificate.revoke-many"],
        ...,
    ] = Field(
        default=(),
        description="What needs a second person: `gateway.end`, `administrator.add` (any role "
        "that may change users), `profile.publish`, `certificate.revoke-many` (by query).",
    )
    hours: int = Field(
        default=72, ge=1, le=24 * 30, description="Hours for which a request can be agreed to."
    )


class AuthoritySettings(Section):
    """The CAs that `init` makes and the status they publish."""

    organization: str = Field(
        default="TMA Edge",
        min_length=1,
        max_length=64,
        description="O of the CA names, unless the setup page named another one.",
    )
    issue_days: int = Field(
        default=365,
        ge=1,
        le=3650,
        description="How long a gateway CA issues; then it gets a new key.",
    )
    crl_hours: int = Field(
        default=24,
        ge=1,
        le=24 * 31,
        description="Hours between CRLs; a revocation signs one at once.",
    )
    crl_lifetime_days: int = Field(
        default=180, ge=1, le=3650, description="Days from thisUpdate to nextUpdate of a CRL."
    )
    crl_delta_hours: int = Field(
        default=0,
        ge=0,
        le=24 * 31,
        description="Hours between delta CRLs of CAs that issue to end entities; 0 makes none. "
        "With deltas a revocation signs one at once; the complete CRL follows within `crl_hours`.",
    )
    crl_delta_lifetime_hours: int = Field(
        default=24 * 7,
        ge=1,
        le=24 * 366,
        description="Hours from thisUpdate to nextUpdate of a delta CRL. After it, strict relying "
        "parties that use deltas refuse what the CA issued.",
    )
    crl_alarm_days: int = Field(
        default=14,
        ge=1,
        le=365,
        description="Days before its nextUpdate from which the CRL of any CA raises an alarm; one "
        "that holds for less than twice as long does so from its half.",
    )
    crl_keep_expired_days: int = Field(
        default=32,
        ge=0,
        le=36_500,
        description="Days for which a CRL lists a certificate after its end; at least one complete "
        "CRL after its end lists it in any case.",
    )

    @model_validator(mode="after")
    def _crl_outlives_its_schedule(self) -> Self:
        if self.crl_hours >= self.crl_lifetime_days * _HOURS_PER_DAY:
            raise ValueError("crl_lifetime_days must be longer than crl_hours")
        if self.crl_delta_hours >= self.crl_delta_lifetime_hours:
            raise ValueError("crl_delta_lifetime_hours must be longer than crl_delta_hours")
        return self


class GrantSettings(Section):
    """What a gateway may do without asking, from its join on."""

    profiles: tuple[str, ...] = Field(
        default=("tls-server", "tls-client", "idevid"),
        min_length=1,
        max_length=64,
        description="Profiles that it may issue.",
    )
    quota: int = Field(
        default=1_000_000, ge=1, le=10**12, description="Certificates that it may issue in total."
    )
    days: int = Field(default=365, ge=1, le=3650, description="Days for which the grant holds.")
    offline_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        description="Days after the last contact for which it goes on issuing without a link.",
    )


class CentralSettings(Section):
    """Everything that an administrator of central decides."""

    state: Path = Field(
        default=Path("/var/lib/tma-central"),
        description="Directory of the database, the wrapped keys and the socket; mode 0700.",
    )
    database: DatabaseSettings = DatabaseSettings()
    web: WebSettings = WebSettings()
    broker: BrokerSettings = BrokerSettings()
    authority: AuthoritySettings = AuthoritySettings()
    approvals: ApprovalSettings = ApprovalSettings()
    grant: GrantSettings = GrantSettings()
    gateways: GatewaySettings = GatewaySettings()
    backup: BackupSettings = BackupSettings()

    @model_validator(mode="after")
    def _grant_ends_before_the_crl(self) -> Self:
        if self.grant.offline_days > self.authority.crl_lifetime_days:
            raise ValueError(
                "grant.offline_days must not be longer than authority.crl_lifetime_days, "
                "or an offline line would run out of a valid CRL"
            )
        return self

    @model_validator(mode="after")
    def _backups_are_of_sqlite(self) -> Self:
        if self.database.url and self.backup.directory is not None:
            raise ValueError(
                "backup.directory works with SQLite only; back PostgreSQL up with pg_dump or "
                "continuous archiving"
            )
        return self

    @property
    def database_path(self) -> Path:
        """The SQLite file, if there is no ``database.url``."""
        return self.state / "central.db"

    @property
    def box_slot_path(self) -> Path:
        """The 0600 file that holds the box's own half of the key wrapping (design.md §12)."""
        return self.state / "box.key"

    @property
    def lock_path(self) -> Path:
        """Held by the one process that may change this central's state at all."""
        return self.state / "central.lock"

    @property
    def setup_code_path(self) -> Path:
        """The 0600 file with the code that the setup page asks for, until central is founded."""
        return self.state / "setup.code"

    @property
    def root_path(self) -> Path:
        """The root's certificate in PEM, for whoever is to trust it."""
        return self.state / "root.pem"

    @property
    def control_socket(self) -> Path:
        """Where the running server takes commands."""
        return self.state / "run" / "central.sock"

    @property
    def host(self) -> str:
        """The name under which central introduces itself."""
        return self.web.names[0]

    @property
    def broker_host(self) -> str:
        """Where central reaches the broker."""
        return self.broker.host or self.host

    @property
    def gateway_broker(self) -> tuple[str, int]:
        """Host and port under which gateways reach the broker."""
        return (
            self.gateways.broker_host or self.broker_host,
            self.gateways.broker_port or self.broker.port,
        )

    @property
    def join_address(self) -> str:
        """host:port in join tokens."""
        host = self.gateways.host or self.host
        return f"{in_url(host)}:{self.gateways.port or self.web.gateway_port}"

    @property
    def tls_names(self) -> tuple[str, ...]:
        """Every name under which central or its broker is called, for TLS certificates."""
        names = (*self.web.names, self.broker.host, self.gateways.host, self.gateways.broker_host)
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def status_url(self) -> str:
        """Base address of CRL, OCSP and CA certificates, as written into certificates."""
        return f"http://{in_url(self.host)}:{self.web.status_port}"


def in_url(host: str) -> str:
    """Write a host as URLs want it: IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


def load(path: Path) -> CentralSettings:
    """Read and check the file; raises BadRequestError naming each wrong setting and the cure."""
    return settings.load(CentralSettings, path, manual="docs/central.md")
