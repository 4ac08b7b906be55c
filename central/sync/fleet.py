"""The registry of gateways: who is invited, joined, online, stopped. All inside transactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from central.inventory import audit
from shared.kernel.errors import NotFoundError
from shared.store import segments
from shared.store.schema import ca, directive, gateway, grant_use
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

_THIS = gateway.c.name == bindparam("gateway_name")
_FIND = select(gateway).where(_THIS)
_INSERT = insert(gateway)
_UPDATE = update(gateway).where(_THIS)
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


def end(transaction: Transaction, name: str, reason: str, actor: str) -> None:
    """End a gateway for good; its transport identity is to be revoked in the same transaction."""
    row = find(transaction, name)
    values = {
        "state": ENDED,
        "state_reason": reason,
        "join_secret_hash": None,
        "join_answer": None,
        "event_key": None,
        **_link(transaction, row, online=False),
    }
    change(transaction, name, values)
    _end_powers(transaction, name, "ended")
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
    segments.end_history(transaction, name)
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
    }
    change(transaction, name, values)
    detail = {"transport_serial": newborn.transport_serial, "software": newborn.software}
    audit.add(transaction, f"gateway:{name}", "gateway.joined", name, detail)


def _end_powers(transaction: Transaction, name: str, ca_state: str) -> None:
    """End grants and CAs: a retired CA is heard for status and late reports, an ended one less."""
    transaction.execute(_END_CAS, {"gateway_name": name, "new_state": ca_state})
    transaction.execute(_END_GRANTS, {"gateway_name": name})


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
