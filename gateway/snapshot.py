"""What is true of this box at one moment: read once, shown on the page and by the CLI.

Times are UTC µs. Nothing here is secret: the page shows it without a login.
"""

from dataclasses import dataclass
from enum import StrEnum

from shared.kernel.clock import ClockQuality, datetime_of
from shared.pki.plan import NO_EXPIRY_US


def local_text(utc_us: int) -> str:
    """Write a time as people at the line read it: in the time zone of this box.

    A certificate without an end (RFC 5280 §4.1.2.5) has no local time east of Greenwich.
    """
    if utc_us >= NO_EXPIRY_US:
        return "never"
    return f"{datetime_of(utc_us).astimezone():%Y-%m-%d %H:%M}"


class TokenState(StrEnum):
    """How far the token with the issuing key is."""

    READY = "ready"  # proved possession of the gateway CA's key
    STARTING = "starting"  # plugged in, not proven yet
    ABSENT = "absent"  # no token in the slot, or tma-hsmd does not run
    FOREIGN = "foreign"  # a token without our key
    LOCKED = "locked"  # the PIN is wrong or locked; it is never tried again by itself


class LineState(StrEnum):
    """Whether the operator lets the line enroll."""

    RUNNING = "running"
    STOPPED = "stopped"


class HistoryState(StrEnum):
    """Whether this database continues the history that the other side knows."""

    CONTINUOUS = "continuous"
    RESTORED = "restored"  # an old copy of the database
    CLONED = "cloned"  # two boxes speak with one name
    UNKNOWN = "unknown"  # central holds nothing that this history follows from


@dataclass(frozen=True, slots=True)
class TokenView:
    """The token, and what hsmd says about it."""

    state: TokenState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LinkView:
    """The link to central. ``since_us`` is when the present state began."""

    online: bool
    since_us: int
    last_contact_us: int | None
    offline_until_us: int  # how long this box may work without central
    offline_until_why: str


@dataclass(frozen=True, slots=True)
class QueueView:
    """Events that central has not confirmed yet.

    ``only_at_central``: deleted here by the opt-in rule, and in no backup of central.
    ``to_be_signed``: requests that central has not answered.
    """

    waiting: int
    oldest_us: int | None
    certificates_only_here: int
    only_at_central: int = 0
    to_be_signed: int = 0


@dataclass(frozen=True, slots=True)
class ClockView:
    """How well the time is known."""

    now_us: int
    quality: ClockQuality


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """The gateway CA and what the grant leaves it."""

    name: str
    fingerprint: str
    not_after_us: int
    issue_until_us: int
    ended: bool
    granted: bool
    grant_ends_us: int | None
    quota: int
    used: int
    crl_next_update_us: int | None
    crl_refused: str = ""  # why no CRL can be signed although the token is ready

    @property
    def remaining(self) -> int:
        """Certificates that may still be issued."""
        return max(0, self.quota - self.used)


@dataclass(frozen=True, slots=True)
class DiskView:
    """Bytes of the file system that holds the state directory."""

    free: int
    total: int
    warning: int
    reserve: int


@dataclass(frozen=True, slots=True)
class RecentView:
    """One line of the list of last enrollments; ``why`` is empty where it went well."""

    at_us: int
    device: str
    profile: str
    protocol: str
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the page shows."""

    gateway: str
    title: str
    version: str
    token: TokenView
    link: LinkView
    queue: QueueView
    clock: ClockView
    authority: AuthorityView
    disk: DiskView
    line: LineState
    line_reason: str
    history: HistoryState
    recent: tuple[RecentView, ...]
