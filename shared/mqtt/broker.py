"""The text of mosquitto's configuration: who may connect, and who may say what where.

The broker trusts the transport root only, so no device certificate opens it, and the name in the
transport certificate decides the topics (design.md §5). It keeps nothing on disk.
"""

from dataclasses import dataclass
from pathlib import Path

from shared.sync.effects import topic
from shared.sync.events import Direction
from shared.sync.join import CENTRAL_NAME

#: An envelope and MQTT's own header around it.
_PACKET_BYTES_MAX = 300_000
_INFLIGHT_MESSAGES_MAX = 64
#: Per client. What exceeds it is dropped and sent again: the broker is a pipe, not a store.
_QUEUED_MESSAGES_MAX = 4_096
_QUEUED_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Paths that the broker reads: PEM files of the transport hierarchy, and its ACL."""

    transport_root: Path
    transport_crl: Path
    certificate: Path
    key: Path
    acl: Path


def configuration(files: BrokerFiles, *, port: int, host: str = "", user: str = "") -> str:
    """Give mosquitto.conf (mosquitto 2.0). SIGHUP makes the broker read ACL and CRL again.

    ``user`` is what the broker becomes when root starts it (Debian's default: mosquitto); it must
    be able to read the files. Raises ValueError when a value has characters that would begin
    another setting.
    """
    settings: dict[str, object] = {
        "user": user,
        "listener": f"{port} {host}".rstrip(),
        "tls_version": "tlsv1.3",
        "cafile": files.transport_root,
        "crlfile": files.transport_crl,
        "certfile": files.certificate,
        "keyfile": files.key,
        "require_certificate": "true",
        "use_identity_as_username": "true",
        # Else any gateway could end another's session by connecting under its client id.
        "use_username_as_clientid": "true",
        "acl_file": files.acl,
        "persistence": "false",
        "set_tcp_nodelay": "true",
        "max_packet_size": _PACKET_BYTES_MAX,
        "max_inflight_messages": _INFLIGHT_MESSAGES_MAX,
        "max_queued_messages": _QUEUED_MESSAGES_MAX,
        "max_queued_bytes": _QUEUED_BYTES_MAX,
        "max_keepalive": 120,
        "log_dest": "stderr",
        "log_type": "warning",
    }
    lines = [f"{name} {value}" for name, value in settings.items() if value]
    if not all(line.isprintable() for line in lines):
        raise ValueError("A path or the host of the broker has a control character.")
    return "\n".join([*lines, "log_type error", "log_type notice", ""])


def acl() -> str:
    """Give the ACL: each gateway its own topics (``%u`` is the certificate's CN), central all."""
    return "\n".join(
        [
            f"user {CENTRAL_NAME}",
            f"topic read {topic('+', Direction.UP, '#')}",
            f"topic write {topic('+', Direction.DOWN, '#')}",
            "",
            f"pattern write {topic('%u', Direction.UP, '#')}",
            f"pattern read {topic('%u', Direction.DOWN, '#')}",
            "",
        ]
    )
