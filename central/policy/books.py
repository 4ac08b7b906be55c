"""Profiles, rules, bundles and grants as rows: each act with its orders and its audit, one commit.

A published version never changes; what a gateway holds is the last bundle that was ordered.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, insert, or_, select, update

from central.inventory import audit
from central.sync import directives
from shared.kernel.errors import ConflictError, NotFoundError
from shared.policy.bundle import Bundle
from shared.policy.grant import Grant
from shared.policy.profile import Duplicates, Profile
from shared.policy.rules import RuleSet
from shared.store import facts
from shared.store.schema import ca, directive, gateway, grant_use, profile
from shared.store.transaction import Transaction

DRAFT: Final = "draft"
ACTIVE: Final = "active"
WITHDRAWN: Final = "withdrawn"
SUPERSEDED: Final = "superseded"  # by a later version: what is still issued under it is no question
_BUNDLE_VERSION = "bundle_version"

_FIND = select(profile).where(
    profile.c.name == bindparam("wanted"), profile.c.version == bindparam("number")
)
_IN_FORCE = select(profile.c.document).where(profile.c.state == ACTIVE).order_by(profile.c.name)
_SET_STATE = (
    update(profile)
    .where(profile.c.name == bindparam("wanted"), profile.c.version == bindparam("number"))
    .values(state=bindparam("new_state"))
)
_OUT_OF_FORCE = (
    update(profile)
    .where(profile.c.name == bindparam("wanted"), profile.c.state == ACTIVE)
    .values(state=bindparam("new_state"))
)
_REPLACE = (
    update(profile)
    .where(profile.c.name == bindparam("wanted"), profile.c.version == bindparam("number"))
    .values(sha256=bindparam("digest"), document=bindparam("text"))
)
_GATEWAYS = select(gateway.c.name).where(gateway.c.state == "active")
_CHAIN = select(ca.c.der).where(
    or_(
        ca.c.gateway == bindparam("owner"),
        ca.c.kind == "fleet",
        ca.c.kind == "root",
        ca.c.kind == "foreign",  # a root of others, below which central may sign
    ),
    ca.c.state == "active",
)
_GRANT = select(grant_use).where(grant_use.c.grant_id == bindparam("wanted"))
_HOLDER = select(directive.c.peer).where(
    directive.c.kind == "grant", directive.c.subject == bindparam("wanted")
)
_AMEND = (
    update(grant_use)
    .where(grant_use.c.grant_id == bindparam("wanted"))
    .values(
        version=bindparam("number"),
        quota=bindparam("new_quota"),
        state=bindparam("new_state"),
        document=bindparam("text"),
    )
)
_ORDERED = select(directive.c.number, directive.c.incarnation).where(
    directive.c.peer == bindparam("owner"),
    directive.c.kind == bindparam("which"),
    directive.c.subject == bindparam("about"),
)


def draft(transaction: Transaction, new: Profile, actor: str) -> None:
    """Keep a version that is not published yet; the same again changes nothing.

    Raises ConflictError when this version was published with another content.
    """
    known = transaction.one(_FIND, {"wanted": new.name, "number": new.version})
    if known is None:
        row = {
            "name": new.name,
            "version": new.version,
            "sha256": new.sha256,
            "document": new.document,
            "state": DRAFT,
            "created_at": transaction.now.utc_us,
        }
        transaction.execute(insert(profile), row)
    elif known.sha256 == new.sha256:
        return
    elif known.state != DRAFT:
        raise ConflictError(
            f"Version {new.version} of the profile {new.name} was published with other content.",
            remedy=f"Give it a version above {new.version}.",
        )
    else:
        values = {"wanted": new.name, "number": new.version}
        transaction.execute(_REPLACE, {**values, "digest": new.sha256, "text": new.document})
    detail = {"version": new.version, "sha256": new.sha256}
    audit.add(transaction, actor, "profile.drafted", new.name, detail)


def publish(transaction: Transaction, name: str, version: int, sha256: str, actor: str) -> None:
    """Put a drafted version in force here, and order it to every gateway; again changes nothing.

    Raises ConflictError when it has another content (``sha256``, hex) than what was looked at.
    """
    known: Any = transaction.one(_FIND, {"wanted": name, "number": version})
    if known is None or known.sha256 != sha256:
        raise ConflictError(
            f"Version {version} of the profile {name} was changed meanwhile.",
            remedy="Look at it again, and publish what you see.",
        )
    if known.state == ACTIVE:
        return
    transaction.execute(_OUT_OF_FORCE, {"wanted": name, "new_state": SUPERSEDED})
    values = {"wanted": name, "number": version, "new_state": ACTIVE}
    transaction.execute(_SET_STATE, values)
    detail = {"version": version, "sha256": sha256}
    audit.add(transaction, actor, "profile.published", name, detail)
    roll_out(transaction, actor)


def withdraw(transaction: Transaction, name: str, actor: str) -> None:
    """Take a profile out of force; what it issued stays valid. Raises NotFoundError."""
    if not transaction.execute(_OUT_OF_FORCE, {"wanted": name, "new_state": WITHDRAWN}):
        raise NotFoundError(f"There is no profile {name} in force.")
    audit.add(transaction, actor, "profile.withdrawn", name, {})
    roll_out(transaction, actor)


def duplicates(transaction: Transaction, name: str, version: int) -> Duplicates:
    """Give what a profile says of a device at two gateways; one that is not known reports."""
    known: Any = transaction.one(_FIND, {"wanted": name, "number": version})
    return Duplicates.REPORT if known is None else Profile.from_document(known.document).duplicates


def put_rules(transaction: Transaction, rules: RuleSet, actor: str) -> None:
    """Replace all rules; the same again changes nothing."""
    text = json.dumps(rules.to_document(), sort_keys=True)
    if facts.get(transaction, facts.RULES) == text:
        return
    facts.put(transaction, facts.RULES, text)
    audit.add(transaction, actor, "rules.changed", "rules", rules.to_document())
    roll_out(transaction, actor)


def roll_out(transaction: Transaction, actor: str) -> None:
    """Order a new bundle to every active gateway."""
    version = bundle_version(transaction) + 1
    facts.put(transaction, _BUNDLE_VERSION, str(version))
    for row in transaction.all(_GATEWAYS):
        chain = tuple(one.der for one in transaction.all(_CHAIN, {"owner": row.name}))
        directives.order_bundle(transaction, row.name, bundle(transaction, chain), actor)


def bundle_version(transaction: Transaction) -> int:
    """Count the bundles; the first one is what gateways get when they join."""
    return int(facts.get(transaction, _BUNDLE_VERSION) or 1)


def bundle(transaction: Transaction, certificates: tuple[bytes, ...]) -> Bundle:
    """Give what is in force now, with the CA certificates of one gateway."""
    rules = facts.get(transaction, facts.RULES)
    return Bundle(
        version=bundle_version(transaction),
        profiles=tuple(Profile.from_document(row.document) for row in transaction.all(_IN_FORCE)),
        certificates=certificates,
        rules=RuleSet.from_document(rules) if rules else RuleSet(),
    )


def acknowledge(transaction: Transaction, name: str, body: Mapping[str, Any], at_us: int) -> None:
    """Note that a gateway applied the newest bundle or grant that it was ordered."""
    wanted = {"owner": name, "which": body["kind"], "about": body["subject"]}
    ordered: Any = transaction.one(_ORDERED, wanted)
    place = (body["incarnation"], body["number"])
    if ordered is not None and (ordered.incarnation, ordered.number) == place:
        told = json.dumps({"number": body["number"], "at_us": at_us})
        facts.put(transaction, applied_fact(body["kind"], name, body["subject"]), told)


def applied_fact(kind: str, name: str, subject: str) -> str:
    """Name the fact that tells which order of this kind a gateway has applied."""
    return f"applied/{kind}/{name}/{subject}"


def amend(transaction: Transaction, grant_id: str, changes: Mapping[str, Any], actor: str) -> Grant:
    """Make a new version of a grant and order it; what is used stays used.

    ``changes`` are fields of the document; the same content again changes nothing. Raises
    NotFoundError, BadRequestError, ConflictError (the grant has ended).
    """
    row, old = _held(transaction, grant_id)
    if row.state != "active":
        raise ConflictError("This grant has ended; the gateway gets a new one when it joins again.")
    new = Grant.from_document(old.to_document() | dict(changes) | {"grant_id": grant_id})
    if new == old:
        return old
    return _order_version(transaction, new, "active", actor, "grant.changed")


def end(transaction: Transaction, grant_id: str, actor: str) -> Grant:
    """Withdraw a grant: from when the gateway hears of it, it issues nothing under it."""
    row, old = _held(transaction, grant_id)
    if row.state != "active":
        return old
    last_us = max(old.not_before_us + 1, min(old.not_after_us, transaction.now.utc_us))
    new = old.model_copy(update={"not_after_us": last_us})
    return _order_version(transaction, new, "ended", actor, "grant.ended")


def _held(transaction: Transaction, grant_id: str) -> tuple[Any, Grant]:
    row: Any = transaction.one(_GRANT, {"wanted": grant_id})
    if row is None:
        raise NotFoundError(f"There is no grant {grant_id}.")
    return row, Grant.from_document(json.loads(row.document))


def _order_version(
    transaction: Transaction, grant: Grant, state: str, actor: str, action: str
) -> Grant:
    new = grant.model_copy(update={"version": grant.version + 1})
    text = json.dumps(new.to_document())
    transaction.execute(
        _AMEND,
        {
            "wanted": new.grant_id,
            "number": new.version,
            "new_quota": new.quota,
            "new_state": state,
            "text": text.encode(),
        },
    )
    holder: Any = transaction.one(_HOLDER, {"wanted": new.grant_id})
    if holder is not None:
        directives.order_grant(transaction, holder.peer, new, actor)
    detail = {"version": new.version, "quota": new.quota, "not_after_us": new.not_after_us}
    audit.add(transaction, actor, action, new.grant_id, detail)
    return new
