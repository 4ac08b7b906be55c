"""Open questions: two facts or two rules disagree, and a person decides, once, among named choices.

Each question names both sides, and each choice what it will do. What is chosen is done in the
transaction that settles the question (design.md §4). Central chooses by itself only where the
profile of the certificates says how (``Duplicates``), and then it is the profile that settled it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import bindparam, insert, select, update

from central.inventory import audit
from shared.issuance.ports import CertificateStatus
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError
from shared.policy.profile import Duplicates
from shared.store import certificates
from shared.store.schema import conflict
from shared.store.transaction import Transaction

_INSERT = insert(conflict).returning(conflict.c.id)
_FIND = select(conflict).where(conflict.c.id == bindparam("number"))
_SETTLE = (
    update(conflict)
    .where(conflict.c.id == bindparam("number"), conflict.c.state == "open")
    .values(
        state="settled",
        resolution=bindparam("choice"),
        settled_by=bindparam("who"),
        settled_at=bindparam("now"),
    )
)
TWO_GATEWAYS: Final = "device-at-two-gateways"
_BY_RULE: Final = {
    Duplicates.HOLD_BOTH: "hold-both",
    Duplicates.REVOKE_EARLIER: "revoke-earlier",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """What a choice does to one certificate."""

    act: Literal["revoke", "hold"]
    ca_id: str
    serial: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to settle a question: its name, what it does in words, and to which certificates."""

    name: str
    sentence: str
    effects: tuple[Effect, ...] = ()


def add(
    transaction: Transaction, kind: str, gateway: str, subject: str, detail: Mapping[str, Any]
) -> int:
    """Open a question about what a gateway reported; gives its number."""
    row = {
        "kind": kind,
        "gateway": gateway,
        "subject": subject,
        "detail": json.dumps(detail),
        "state": "open",
        "created_at": transaction.now.utc_us,
    }
    inserted: Any = transaction.one(_INSERT, row)
    return inserted[0]


def follow_rule(transaction: Transaction, number: int, rule: Duplicates, profile: str) -> None:
    """Settle the question of a device at two gateways as the profile of its certificates says."""
    if rule in _BY_RULE:
        settle(transaction, number, _BY_RULE[rule], f"profile:{profile}")


def sides(kind: str, subject: str, detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the certificates that disagree as (CA id, serial), the one issued later first.

    Which is later is said by ``other_is_later``; without it, the one that was reported later.
    """
    this = _certificate(subject)
    other = _certificate(str(detail.get("other", ""))) if kind == TWO_GATEWAYS else None
    pair = [other, this] if detail.get("other_is_later") else [this, other]
    return [place for place in pair if place is not None]


def choices(kind: str, subject: str, detail: Mapping[str, Any]) -> Sequence[Choice]:
    """Give the ways to settle a question; the first one changes nothing."""
    places = sides(kind, subject, detail)
    if not places:
        return (Choice("seen", "Nothing is done; it was looked at."),)
    keep = Choice("keep", "Nothing is done; what was issued stays good.")
    if len(places) == 1:
        return (
            keep,
            Choice("hold", "The certificate is put on hold.", _effects("hold", *places)),
            Choice("revoke", "The certificate is revoked for good.", _effects("revoke", *places)),
        )
    later, earlier = places
    return (
        keep,
        Choice("hold-both", "Both certificates are put on hold.", _effects("hold", *places)),
        Choice(
            "revoke-earlier",
            f"The earlier certificate ({earlier[1]}) is revoked as superseded.",
            _effects("revoke", earlier),
        ),
        Choice(
            "revoke-later",
            f"The later certificate ({later[1]}) is revoked as superseded.",
            _effects("revoke", later),
        ),
    )


def settle(
    transaction: Transaction,
    conflict_id: int,
    wanted: str,
    actor: str,
    *,
    gateway: str | None = None,
) -> Choice:
    """Settle a question by a choice ('' is the first one) and do what it says.

    ``gateway`` is whose question it must be (None: anybody's).
    Raises NotFoundError, ConflictError (settled before), BadRequestError (no such choice).
    """
    row: Any = transaction.one(_FIND, {"number": conflict_id})
    if row is None or gateway not in {None, row.gateway}:
        raise NotFoundError("There is no such open question.")
    offered = choices(row.kind, row.subject, json.loads(row.detail))
    choice = next((one for one in offered if one.name == (wanted or offered[0].name)), None)
    if choice is None:
        raise BadRequestError(
            f"This question cannot be settled by “{wanted}”.",
            remedy=f"Choose one of: {', '.join(one.name for one in offered)}.",
            pointer="/choice",
        )
    settled = {"number": conflict_id, "choice": choice.name, "who": actor}
    if not transaction.execute(_SETTLE, {**settled, "now": transaction.now.utc_us}):
        raise ConflictError(f"This question was settled already: {row.resolution or 'seen'}.")
    for effect in choice.effects:
        _carry_out(transaction, conflict_id, effect, actor)
    detail = {"choice": choice.name, "kind": row.kind, "about": row.subject}
    audit.add(transaction, actor, "conflict.settled", str(conflict_id), detail)
    return choice


def _carry_out(transaction: Transaction, conflict_id: int, effect: Effect, actor: str) -> None:
    """Change a certificate; the event orders its gateway to do the same."""
    known = certificates.require(transaction, effect.ca_id, effect.serial)
    place = {"ca_id": effect.ca_id, "serial": effect.serial}
    if effect.act == "revoke":
        revoked_at_us = transaction.now.utc_us
        body = {**place, "reason": "superseded", "revoked_at_us": revoked_at_us, "device_id": None}
        if certificates.record_revoked(transaction, known.origin, body):
            transaction.emit("certificate.revoked", body, actor=actor)
    elif known.status is not CertificateStatus.REVOKED:
        body = {**place, "hold_id": f"conflict-{conflict_id}"}
        if certificates.record_held(transaction, known.origin, body, actor=actor):
            transaction.emit("certificate.held", body, actor=actor)


def _effects(act: Literal["revoke", "hold"], *places: tuple[str, str]) -> tuple[Effect, ...]:
    return tuple(Effect(act, *place) for place in places)


def _certificate(subject: str) -> tuple[str, str] | None:
    """Read ``ca_id/serial``; None where a question is about no certificate."""
    ca_id, slash, serial = subject.partition("/")
    return (ca_id, serial) if slash and serial and " " not in ca_id else None
