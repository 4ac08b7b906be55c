"""What administrators do with profiles, rules and grants: by page, REST or command."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import bindparam, select

from central.identity.approvals import Approvals, Content, Operation
from central.metadata import pairs
from central.metadata.orders import Kind, Wanted
from central.policy import books, lint
from central.policy.lint import Finding, Sample
from shared.kernel import cbor, limits
from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, NotFoundError
from shared.policy import presets
from shared.policy.grant import Devices, Grant
from shared.policy.presets import difference
from shared.policy.profile import Mode, Profile
from shared.policy.rights import Permission, Scope
from shared.policy.rules import RuleSet
from shared.policy.shipped import SHIPPED
from shared.store import facts
from shared.store.database import Database
from shared.store.schema import directive, fact, gateway, grant_use, profile
from shared.store.transaction import Transaction

_ALL = select(profile).order_by(profile.c.name, profile.c.version.desc())
_VERSIONS = (
    select(profile).where(profile.c.name == bindparam("wanted")).order_by(profile.c.version.desc())
)
_APPLIED = select(fact).where(fact.c.name.like("applied/%"))
_RULES = select(fact.c.value).where(fact.c.name == facts.RULES)
_SENT = (
    select(gateway.c.name, gateway.c.link, directive.c.number, directive.c.envelope)
    .join(directive, directive.c.peer == gateway.c.name)
    .where(directive.c.kind == "bundle", gateway.c.state == "active")
    .order_by(gateway.c.name)
)
_GRANTS = (
    select(grant_use, directive.c.peer, directive.c.number)
    .join(directive, directive.c.subject == grant_use.c.grant_id)
    .where(directive.c.kind == "grant")
    .order_by(directive.c.peer, grant_use.c.grant_id)
)


#: Putting a version of a profile in force; as ``approvals.operations`` names it.
PUBLISH = "profile.publish"


class Published(NamedTuple):
    """What pkilint remarked, and under which number it waits for a second person (None: done)."""

    findings: list[Finding]
    approval: int | None


class Authoring:
    """Drafts, checks, publishes; ``refresh`` is awaited after what is in force has changed."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        refresh: Callable[[], Awaitable[None]],
        approvals: Approvals,
    ) -> None:
        """Take where the documents lie, and who says what needs a second person."""
        self._database = database
        self._clock = clock
        self._refresh = refresh
        self._approvals = approvals
        publishing = Operation(PUBLISH, Permission.PROFILE_PUBLISH, _publish, self._follow)
        approvals.register(PUBLISH, publishing)

    async def profiles(self, wanted: Wanted | None = None) -> list[dict[str, Any]]:
        """List every version that is here, and the shipped ones that are not.

        With ``wanted`` only those of profiles that carry these pairs.
        """
        rows = await self._database.read(_ALL)
        held = [Profile.from_document(row.document) for row in rows]
        known = [_line(row.state, row.created_at, one) for row, one in zip(rows, held, strict=True)]
        more = [_line("shipped", None, one) for one in _offered(held)]
        lines = sorted(known + more, key=lambda line: (line["name"], -line["version"]))
        return await pairs.joined(self._database, Kind.PROFILE, lines, "name", wanted)

    async def profile(self, name: str, version: int | None = None) -> tuple[str, Profile]:
        """Find a version (None: the one in force, else the newest); raises NotFoundError."""
        rows = await self._database.read(_VERSIONS, {"wanted": name})
        in_force = [row for row in rows if row.state == books.ACTIVE]
        fitting = [row for row in rows if row.version == version] if version else in_force or rows
        if fitting:
            return fitting[0].state, Profile.from_document(fitting[0].document)
        for one in _offered([Profile.from_document(row.document) for row in rows]):
            if one.name == name and version in {None, one.version}:
                return "shipped", one
        raise NotFoundError(f"There is no such version of a profile {name}.")

    async def draft(self, document: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Keep a new version; without one it gets the next number. Raises BadRequestError."""
        given = dict(document)
        if "version" not in given and isinstance(given.get("name"), str):
            rows = await self._database.read(_VERSIONS, {"wanted": given["name"]})
            given["version"] = rows[0].version + 1 if rows else 1
        new = Profile.from_document(given)
        await self._database.writer.run(partial(books.draft, new=new, actor=actor))
        return _line(books.DRAFT, None, new)

    async def check(self, name: str, version: int | None, sample: Sample) -> list[Finding]:
        """Lint a sample for each key type of the profile; errors come first."""
        _state, found = await self.profile(name, version)
        if found.mode is Mode.STOCK:
            raise BadRequestError(
                f"The mode {found.mode.value} is understood but not issued by this version.",
                remedy="Use the mode local or forward.",
                pointer="/mode",
            )
        findings = await asyncio.to_thread(lint.lint, found, sample, self._now_us())
        return sorted(findings, key=lambda finding: not finding.refuses)

    async def publish(
        self, name: str, version: int | None, sample: Sample, actor: str
    ) -> Published:
        """Put a version in force here and at every gateway, once its samples are clean.

        Raises BadRequestError for an error among what pkilint remarks.
        """
        state, found = await self.profile(name, version)
        findings = await self.check(name, found.version, sample)
        if wrong := [one for one in findings if one.refuses]:
            raise BadRequestError(
                f"pkilint refuses a sample of the profile {name} with a key of type "
                f"{wrong[0].key_type}: {wrong[0].code} {wrong[0].message}".rstrip()
                + ".",
                remedy="Change the profile, or send a sample that shows what is meant.",
            )
        if state == "shipped":
            await self._database.writer.run(partial(books.draft, new=found, actor=actor))
        content = {"name": name, "version": found.version, "sha256": found.sha256}
        subject, where = f"{name} version {found.version}", Scope(profile=name)
        waits = await self._approvals.do(PUBLISH, subject, content, actor, scope=where)
        return Published(findings, waits)

    async def _follow(self, _content: Content) -> None:
        await self._refresh()

    async def withdraw(self, name: str, actor: str) -> None:
        """Take a profile out of force, here and at every gateway."""
        await self._database.writer.run(partial(books.withdraw, name=name, actor=actor))
        await self._refresh()

    async def difference(self, name: str, before: int | None, after: int) -> list[dict[str, Any]]:
        """List what a version changes against another (None: the one in force)."""
        _state, old = await self.profile(name, before)
        _state, new = await self.profile(name, after)
        return _changes(old, new)

    async def preset(self, name: str, actor: str, *, apply: bool) -> list[dict[str, Any]]:
        """Say what a preset changes in the profiles in force; ``apply`` publishes that."""
        in_force = await self._in_force()
        changed = presets.applied(presets.preset(name), in_force)
        old = {one.name: one for one in in_force}
        for new in changed if apply else ():
            newest = (await self._database.read(_VERSIONS, {"wanted": new.name}))[0].version
            numbered = Profile.from_document(new.to_document() | {"version": newest + 1})
            await self._database.writer.run(partial(books.draft, new=numbered, actor=actor))
            await self.publish(new.name, numbered.version, Sample.from_document({}), actor)
        return [{"profile": one.name, "changes": _changes(old[one.name], one)} for one in changed]

    async def rules(self) -> dict[str, Any]:
        """Give the rules in force."""
        rows = await self._database.read(_RULES)
        return json.loads(rows[0].value) if rows else {}

    async def put_rules(self, document: Mapping[str, Any], actor: str) -> None:
        """Replace all rules, here and at every gateway; raises BadRequestError."""
        rules = RuleSet.from_document(document)
        await self._database.writer.run(partial(books.put_rules, rules=rules, actor=actor))
        await self._refresh()

    async def roll_out(self) -> list[dict[str, Any]]:
        """Say for each gateway which bundle it was sent and whether it has applied that one."""
        applied = await self._applied()
        lines: list[dict[str, Any]] = []
        for row in await self._database.read(_SENT):
            body: Any = cbor.decode(row.envelope, limit=limits.EVENT_BYTES_MAX)
            told = applied.get(books.applied_fact("bundle", row.name, ""))
            line = {
                "gateway": row.name,
                "link": row.link,
                "sent": body["document"]["version"],
                "applied": told is not None and told["number"] == row.number,
                "applied_at_us": told["at_us"] if told else None,
            }
            lines.append(line)
        return lines

    async def grants(self) -> list[dict[str, Any]]:
        """Say of each grant what is used, left and overdrawn, and whether its holder has it."""
        applied = await self._applied()
        lines: list[dict[str, Any]] = []
        for row in await self._database.read(_GRANTS):
            grant = Grant.from_document(json.loads(row.document))
            told = applied.get(books.applied_fact("grant", row.peer, row.grant_id))
            lines.append(
                {
                    **grant.to_document(),
                    "gateway": row.peer,
                    "state": row.state,
                    "used": row.used,
                    "unused": max(0, row.quota - row.used),
                    "overdrawn": max(0, row.used - row.quota),
                    "applied": told is not None and told["number"] == row.number,
                }
            )
        return lines

    async def amend_grant(
        self, grant_id: str, changes: Mapping[str, Any], actor: str
    ) -> dict[str, Any]:
        """Change a grant (a quota is absolute, so that a retry tops up once); gives it.

        ``changes`` are fields of the document, or ``serials``: a list of device serials.
        """
        changes = dict(changes)
        if "serials" in changes:
            changes["devices"] = _devices(changes.pop("serials"))
        unit = partial(books.amend, grant_id=grant_id, changes=changes, actor=actor)
        return (await self._database.writer.run(unit)).to_document()

    async def end_grant(self, grant_id: str, actor: str) -> dict[str, Any]:
        """Withdraw a grant; gives it."""
        unit = partial(books.end, grant_id=grant_id, actor=actor)
        return (await self._database.writer.run(unit)).to_document()

    async def _in_force(self) -> Sequence[Profile]:
        rows = await self._database.read(_ALL)
        return [Profile.from_document(row.document) for row in rows if row.state == books.ACTIVE]

    async def _applied(self) -> dict[str, dict[str, int]]:
        return {row.name: json.loads(row.value) for row in await self._database.read(_APPLIED)}

    def _now_us(self) -> int:
        return self._clock.now().utc_us


def _offered(held: Sequence[Profile]) -> Iterator[Profile]:
    """Give the shipped profiles whose content no version here has, each under a free number."""
    for one in SHIPPED:
        ours = [version for version in held if version.name == one.name]
        if any(_content(version) == _content(one) for version in ours):
            continue
        newest = max((version.version for version in ours), default=0)
        document = one.to_document() | {"version": max(one.version, newest + 1)}
        yield Profile.from_document(document)


def _content(profile: Profile) -> dict[str, Any]:
    return profile.to_document() | {"version": None}


def shown(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Give findings as plain values."""
    return [asdict(finding) for finding in findings]


def published(done: Published) -> dict[str, Any]:
    """Give what came of publishing as plain values."""
    return {"findings": shown(done.findings), "approval": done.approval}


def _devices(serials: Any) -> dict[str, Any]:
    if not isinstance(serials, list):
        raise BadRequestError("serials is a list of device serials.", pointer="/serials")
    try:
        return Devices.of(map(str, serials)).to_document()  # pyright: ignore[reportUnknownArgumentType] - decoded JSON
    except ValidationError as error:
        raise BadRequestError(
            "These serials are too many singles and runs, or one of them is malformed.",
            remedy="Name ranges, or make several grants.",
            pointer="/serials",
        ) from error


def _line(state: str, created_at_us: int | None, one: Profile) -> dict[str, Any]:
    return {
        "name": one.name,
        "version": one.version,
        "state": state,
        "title": one.title,
        "purpose": one.purpose,
        "key_types": [kind.value for kind in one.key_types],
        "sha256": one.sha256,
        "created_at_us": created_at_us,
    }


def _changes(old: Profile, new: Profile) -> list[dict[str, Any]]:
    return [asdict(change) for change in difference(old.to_document(), new.to_document())]


def _publish(transaction: Transaction, content: Content, actor: str) -> None:
    """Publish exactly what was seen when it was asked for; raises ConflictError."""
    books.publish(transaction, content["name"], content["version"], content["sha256"], actor)
