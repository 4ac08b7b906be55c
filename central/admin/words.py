"""What the pages say about states: level (colour and symbol), sentence, what to do. Pure."""

from dataclasses import dataclass

from central.inventory.models import CertificateLine, CrlView, Dashboard, GatewayView
from shared.kernel.clock import US_PER_SECOND
from shared.pki.plan import NO_EXPIRY_US
from shared.web.pages import age_text, utc_text

_SILENT_AFTER_US = 15 * 60 * US_PER_SECOND  # an online gateway says hello every five minutes

_STOPPED = {
    "cloned": "Two machines speak under this name, or an old copy goes on beside the real one.",
    "restored": "The gateway runs on an old copy of its database.",
    "unknown": "The gateway has lost its history.",
}
_CRLS_MAX = 20
_REMEDIES = {
    "cloned": "Look at both histories, and decide which box goes on.",
    "restored": "Connect it: it takes back what it forgot, and goes on by itself.",
    "unknown": "Set it up anew, invite it again and let it join.",
}
#: What each kind of open question means.
CONFLICTS = {
    "clock-in-doubt": "Issued while the gateway's clock was in doubt",
    "missing-at-gateway": "Certificates that central knows, and the gateway that issued them not",
    "crl-refused": "The gateway cannot sign its revocation list; a new CA starts an empty one",
    "directive-not-regained": "An order that the gateway gave back could not be taken",
    "device-at-two-gateways": "The same device was enrolled at two gateways",
    "directive-failed": "The gateway could not carry out an order",
    "history-gap": "An operator went on although events may be missing",
    "issued-after-end": "Issued after the gateway's CA or grant was ended",
    "issued-though-voided": "Issued although it was reported as voided",
    "issued-without-grant": "Issued without a grant of this central",
    "profile-withdrawn": "Issued under a profile that was withdrawn meanwhile",
    "quota-overdrawn": "More was issued than the grant allows",
    "serial-reused": "Two different certificates have the same serial number",
    "voided-though-issued": "Reported as voided although it was issued",
}


#: What a profile says of a device with certificates at two gateways.
RULES = {
    "report": "reports it, and leaves the decision to a person",
    "hold_both": "holds both",
    "revoke_earlier": "the earlier one is revoked as superseded",
}


@dataclass(frozen=True, slots=True)
class Remark:
    """A level (good, warn, bad, idle), a sentence, what to do, and where."""

    level: str
    sentence: str
    remedy: str = ""
    href: str = ""


def of_gateway(gateway: GatewayView, now_us: int) -> Remark:
    """Say how a gateway is, in one sentence."""
    if gateway.state in _STOPPED:
        return Remark(
            "bad",
            f"Stopped: {_STOPPED[gateway.state]} {gateway.state_reason}",
            _REMEDIES[gateway.state],
            f"/gateways/{gateway.name}/histories" if gateway.state == "cloned" else "",
        )
    if gateway.state == "invited":
        return _invited(gateway, now_us)
    if gateway.state == "ended":
        return Remark("idle", f"Ended: {gateway.state_reason}")
    return _active(gateway, now_us)


def _active(gateway: GatewayView, now_us: int) -> Remark:
    if gateway.lacking:
        return Remark(
            "warn",
            "Central was put back from a backup and lacks what this gateway did since; "
            "its OCSP answers tryLater for it.",
            "The gateway gives it back as soon as it is connected. End it if it will never be.",
        )
    since = utc_text(gateway.link_since_us)
    if gateway.link != "online":
        return Remark("warn", f"Offline since {since}.", "It goes on issuing; check its network.")
    silent_us = now_us - (gateway.last_contact_us or 0)
    if silent_us > _SILENT_AFTER_US:
        silent = age_text(silent_us / US_PER_SECOND)
        return Remark("warn", f"Connected, but silent for {silent}.", "Look at its page.")
    return Remark("good", f"Online since {since}.")


def _invited(gateway: GatewayView, now_us: int) -> Remark:
    until = utc_text(gateway.join_expires_at_us)
    if now_us >= (gateway.join_expires_at_us or 0):
        return Remark("warn", f"The invitation ended at {until}.", "Invite it again.")
    return Remark("idle", f"Invited; it has not joined yet. Its token works until {until}.")


def questions(seen: Dashboard, now_us: int) -> list[Remark]:
    """List what a person must look at, the worst first."""
    found = [
        Remark(remark.level, f"{gateway.name}: {remark.sentence}", remark.remedy, _page(gateway))
        for gateway in seen.gateways
        if (remark := of_gateway(gateway, now_us)).level in {"bad", "warn"}
    ]
    if seen.quarantined:
        found.append(
            Remark(
                "bad",
                f"{seen.quarantined} events could not be applied and are kept in quarantine.",
                "Update central; they are tried again then.",
                "/quarantine",
            )
        )
    if seen.backup_alarm:
        found.append(
            Remark(
                "warn",
                seen.backup_alarm,
                "Make one, and set backup.directory so that they are made by themselves.",
                "/backups",
            )
        )
    found += [_of_crl(one) for one in seen.crl_alarms[:_CRLS_MAX]]
    if more := seen.crl_alarms[_CRLS_MAX:]:
        found.append(Remark("warn", f"{len(more)} more CRLs are old; `GET /crls` lists all."))
    found += [
        Remark(
            "warn",
            f"{conflict.gateway}: {CONFLICTS.get(conflict.kind, conflict.kind)}.",
            href=f"/conflicts/{conflict.id}",
        )
        for conflict in seen.conflicts
    ]
    return sorted(found, key=lambda remark: remark.level != "bad")


def _of_crl(view: CrlView) -> Remark:
    """Say that a CRL is old, and who must act."""
    remedy = "Its keys are here: look into the log of central."
    if view.gateway is not None:
        remedy = f"Connect {view.gateway} and see to its token; `gateway command` sign-crl asks it."
    page = f"/gateways/{view.gateway}" if view.gateway else f"/authorities/{view.ca_id}"
    level = "bad" if view.over else "warn"
    return Remark(level, f"{view}: {view.alarm}", remedy, page)


def of_certificate(line: CertificateLine, now_us: int) -> Remark:
    """Say what a certificate is worth now."""
    if line.state == "voided":
        return Remark("idle", "voided")
    if line.status == "revoked":
        return Remark("bad", "revoked")
    if line.status == "hold":
        return Remark("warn", "on hold")
    if line.not_after_us is not None and now_us >= line.not_after_us:
        return Remark("idle", "expired")
    return Remark("good", "good")


def until_text(not_after_us: int | None) -> str:
    """Write the end of a certificate; the last second of 9999 means none (RFC 5280 §4.1.2.5)."""
    return "no expiry" if not_after_us == NO_EXPIRY_US else utc_text(not_after_us)


def _page(gateway: GatewayView) -> str:
    return f"/gateways/{gateway.name}"
