"""The registry of gateways: who is invited, joined, online, stopped. All inside transactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from central.authority.hierarchy import INFRASTRUCTURE
from central.inventory import audit
from central.sync import directives, forwards
from shared.kernel.errors import NotFoundError
from shared.store import certificates, facts, forks, segments
from shared.store.schema import ca, directive, gateway, grant_use, renewal
from shared.store.transaction import Transaction
from shared.sync.lineage import Verdict

ACTIVE, INVITED, ENDED = "active", "invited", "ended"
ONLINE, OFFLINE = "online", "offline"
#: States of a gateway whose history cannot go on; a person lets it join anew, or ends it.
STOPPED = {
    Verdict.CLONE: "cloned",
    Verdict.RESTORED: "restored",
    Verdict.UNKNOWN: "unknown",
}

#: Kinds of what a gateway asks to be certified.
IDENTITY, AUTHORITY = "identity", "authority"
#: Fact, with the gateway's name: what came of the last comparison (JSON); none since a restore.
COMPARED = "compared/"
#: Fact: a gateway adopted another identity, so the transport CRL is to be signed.
TRANSPORT_CRL_DUE = "transport_crl_due"

_NOTHING_NEXT = {
    "next_event_key": None,
    "next_exchange_key": None,
    "next_transport_serial": None,
}
_THIS = gateway.c.name == bindparam("gateway_name")
_FIND = select(gateway).where(_THIS)
_INSERT = insert(gateway)
_UPDATE = update(gateway).where(_THIS)
_asked = insert(renewal)
_ASK = _asked.on_conflict_do_update(
    index_elements=[renewal.c.gateway, renewal.c.kind],
    set_={name: getattr(_asked.excluded, name) for name in ("document", "requested_at")},
)
_TRANSPORT_CA = select(ca.c.ca_id).where(ca.c.kind == "transport_root", ca.c.state == "active")
_RETIRE_OTHERS = (
    update(ca)
    .where(
        ca.c.gateway == bindparam("gateway_name"),
        ca.c.ca_id != bindparam("adopted"),
        ca.c.state == "active",
    )
    .values(state="retired")
)
_END_CAS = (
    update(ca)
    .where(ca.c.gateway == bindparam("gateway_name"), ca.c.state != "ended")
    .values(state=bindparam("new_state"))
)
_GRANTS_OF = select(directive.c.subject).where(
    directive.c.peer == bindparam("gateway_name"), directive.c.kind == "grant"
)
_END_GRANTS = update(grant_use).where(grant_use.c.grant_id.in_(_GRANTS_OF)).values(state="ended")
_ALL_OFFLINE = (
    update(gateway)
    .where(gateway.c.link == ONLINE)
    .values(link=OFFLINE, link_since=bindparam("now"))
)


def known(transaction: Transaction, name: str) -> Any:
    """Give a gateway's row or None."""
    return transaction.one(_FIND, {"gateway_name": name})


def find(transaction: Transaction, name: str) -> Any:
    """Give a gateway's row; raises NotFoundError."""
    row = known(transaction, name)
    if row is None:
        raise NotFoundError(
            f"There is no gateway {name}.", remedy="`tma-central gateway list` shows all."
        )
    return row


def change(transaction: Transaction, name: str, values: Mapping[str, Any]) -> None:
    """Write some columns of a gateway."""
    transaction.execute(_UPDATE, {**values, "gateway_name": name})


def invite(
    transaction: Transaction, name: str, secret_hash: bytes, expires_at_us: int, actor: str
) -> None:
    """Let a gateway of this name join, for the first time or anew; an earlier token is void."""
    invitation = {
        "join_secret_hash": secret_hash,
        "join_expires_at": expires_at_us,
        "join_request_hash": None,
        "join_answer": None,
    }
    if known(transaction, name) is None:
        row = {
            "name": name,
            "state": INVITED,
            "state_reason": "",
            "link": OFFLINE,
            "link_since": transaction.now.utc_us,
            "created_at": transaction.now.utc_us,
        }
        transaction.execute(_INSERT, row | invitation)
    else:
        change(transaction, name, invitation)
    audit.add(transaction, actor, "gateway.invited", name, {"expires_at_us": expires_at_us})


def stop(transaction: Transaction, name: str, state: str, reason: str) -> None:
    """Keep a cloned or restored gateway stopped until a person lets it join anew."""
    if find(transaction, name).state != ACTIVE:
        return
    change(transaction, name, {"state": state, "state_reason": reason})
    audit.add(transaction, "system", f"gateway.{state}", name, {"reason": reason})


def resume(transaction: Transaction, name: str, reason: str) -> None:
    """Let a restored gateway count as whole again: it goes on behind what is held of it."""
    if find(transaction, name).state != STOPPED[Verdict.RESTORED]:
        return
    change(transaction, name, {"state": ACTIVE, "state_reason": ""})
    audit.add(transaction, "system", "gateway.healed", name, {"reason": reason})


def end(transaction: Transaction, name: str, reason: str, actor: str) -> None:
    """End a gateway for good; its transport identity is to be revoked in the same transaction."""
    row = find(transaction, name)
    values = {
        "state": ENDED,
        "state_reason": reason,
        "join_secret_hash": None,
        "join_answer": None,
        "event_key": None,
        **_NOTHING_NEXT,
        **_link(transaction, row, online=False),
    }
    change(transaction, name, values)
    _end_powers(transaction, name, "ended")
    forks.close(transaction, name)
    audit.add(transaction, actor, "gateway.ended", name, {"reason": reason})


@dataclass(frozen=True, slots=True)
class Newborn:
    """What a gateway that just joined is known by; keys are DER SubjectPublicKeyInfos."""

    event_key: bytes
    exchange_key: bytes
    transport_serial: str
    software: str
    request_hash: bytes


def join(transaction: Transaction, name: str, newborn: Newborn) -> None:
    """Begin a gateway's (new) life: what an earlier one was allowed ends, its history too."""
    _end_powers(transaction, name, "retired")
    directives.forget_keys(transaction, name)
    segments.end_history(transaction, name)
    forks.close(transaction, name)
    values = {
        "state": ACTIVE,
        "state_reason": "",
        "event_key": newborn.event_key,
        "exchange_key": newborn.exchange_key,
        "transport_serial": newborn.transport_serial,
        "version": newborn.software,
        "join_request_hash": newborn.request_hash,
        "link": OFFLINE,
        "link_since": transaction.now.utc_us,
        "last_contact": transaction.now.utc_us,
        "backlog": 0,
        **_NOTHING_NEXT,
    }
    change(transaction, name, values)
    detail = {"transport_serial": newborn.transport_serial, "software": newborn.software}
    audit.add(transaction, f"gateway:{name}", "gateway.joined", name, detail)


def _end_powers(transaction: Transaction, name: str, ca_state: str) -> None:
    """End grants and CAs: a retired CA is heard for status and late reports, an ended one less."""
    transaction.execute(_END_CAS, {"gateway_name": name, "new_state": ca_state})
    transaction.execute(_END_GRANTS, {"gateway_name": name})
    forwards.drop(transaction, name)


def ask(transaction: Transaction, name: str, kind: str, document: bytes) -> None:
    """Let a request of a gateway wait until it is certified; a later one takes its place."""
    row = {
        "gateway": name,
        "kind": kind,
        "document": document,
        "requested_at": transaction.now.utc_us,
    }
    transaction.execute(_ASK, row)


def expect(
    transaction: Transaction, name: str, event_key: bytes, exchange_key: bytes, serial: str
) -> None:
    """Accept these keys (SPKIs) beside the present ones until the gateway adopted them."""
    values = {
        "next_event_key": event_key,
        "next_exchange_key": exchange_key,
        "next_transport_serial": serial,
    }
    change(transaction, name, values)


def adopt_identity(transaction: Transaction, name: str) -> None:
    """Put the expected keys in the place of the old ones, whose certificate is revoked."""
    row = find(transaction, name)
    if row.next_event_key is None:
        return
    ca_row: Any = transaction.one(_TRANSPORT_CA)
    revoked = {
        "ca_id": ca_row.ca_id,
        "serial": row.transport_serial,
        "reason": "superseded",
        "revoked_at_us": transaction.now.utc_us,
    }
    certificates.record_revoked(transaction, INFRASTRUCTURE, revoked)
    facts.put(transaction, TRANSPORT_CRL_DUE, "yes")
    values = {
        "event_key": row.next_event_key,
        "exchange_key": row.next_exchange_key,
        "transport_serial": row.next_transport_serial,
        **_NOTHING_NEXT,
    }
    change(transaction, name, values)
    detail = {"transport_serial": row.next_transport_serial}
    audit.add(transaction, f"gateway:{name}", "gateway.identity-renewed", name, detail)


def adopt_authority(transaction: Transaction, name: str, ca_id: str) -> None:
    """Retire the gateway's other CAs, and have central's responder for this one certified."""
    transaction.execute(_RETIRE_OTHERS, {"gateway_name": name, "adopted": ca_id})
    actor = f"gateway:{name}"
    spki = facts.get(transaction, responder_spki(ca_id))
    if spki is not None:
        directives.order_responder(transaction, name, ca_id, bytes.fromhex(spki), actor)
        facts.put(transaction, responder_spki(ca_id), None)
    audit.add(transaction, actor, "gateway.authority-adopted", name, {"ca_id": ca_id})


def responder_spki(ca_id: str) -> str:
    """Name the fact with central's OCSP key (hex SPKI) for a CA that is not adopted yet."""
    return f"responder_spki/{ca_id}"


@dataclass(slots=True)
class Report:
    """What was seen of a gateway since the last write; several sightings become one commit."""

    online: bool | None = None
    contact_us: int | None = None
    backlog: int | None = None
    version: str | None = None

    def write(self, transaction: Transaction, name: str) -> None:
        """Write it; a message proves that the gateway is online, whatever the broker says."""
        row = find(transaction, name)
        values: dict[str, Any] = {}
        if self.contact_us is not None:
            values["last_contact"] = self.contact_us
        if self.backlog is not None:
            values["backlog"] = self.backlog
        if self.version is not None:
            values["version"] = self.version
        if self.online is not None:
            values |= _link(transaction, row, online=self.online)
        if values:
            change(transaction, name, values)


def all_offline(transaction: Transaction) -> None:
    """Note that central has just begun to listen: nobody is known to be online."""
    transaction.execute(_ALL_OFFLINE, {"now": transaction.now.utc_us})


def _link(transaction: Transaction, row: Any, *, online: bool) -> dict[str, Any]:
    state = ONLINE if online else OFFLINE
    return {} if row.link == state else {"link": state, "link_since": transaction.now.utc_us}
