"""What the simulator met: faults, events, and each row of the tables of hello and of batches.

Rows are told from results of transactions, so that nothing in ``shared/sync`` knows of them.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from shared.sync import outbox, reconcile
from shared.sync.effects import Run
from shared.sync.errands import Taken, Trouble
from shared.sync.inbox import Acceptance, Outcome
from shared.sync.lineage import Finding
from shared.sync.outbox import Contradiction
from shared.sync.ports import Lacking
from shared.sync.reconcile import Examination
from tests.support.sim_store import State

#: Which rule found it, by its sentence.
_RULES = (
    ("says of itself", r"The gateway itself says"),
    ("closed segment goes on", r"goes on here, but segment"),
    ("fenced", r"takes its history back"),
    ("opened in two ways", r"was opened in two ways"),
    ("begins anew", r"begins anew"),
    ("second child", r"have the same parent"),
    ("behind what is held", r"events of segment .* are held here|events of .*; \d+ are held"),
    ("another event at the head", r"is another one here"),
    ("another event", r"is another event here"),
    ("past the end", r"lies past the end"),
    ("forgot directives", r"has forgotten directives"),
)

#: Every row that a long enough run must meet; the rest may come besides. Not here is what only a
#: dishonest party could bring about: a welcome or a batch that shows a gateway to be an old copy,
#: after central compared all heads of its hello, which a box says anew after each start.
TABLE = (
    "hello: resume",
    "hello: overtaken",
    "hello: judged restored (behind what is held)",
    "hello: judged restored (says of itself)",
    "hello: judged restored (forgot directives)",
    "hello: judged clone (closed segment goes on)",
    "hello: judged unknown (begins anew)",
    "hello: suspected restored (fenced)",
    "hello: restored central lacks directives",
    "hello: restored central lacks events",
    "welcome: central is another incarnation",
    "batch: applied",
    "batch: known",
    "batch: gap",
    "batch: refused restored (fenced)",
    "part: yes",
    "part: not yet",
    "healed: up",
    "healed: dn",
)


def rule(reason: str) -> str:
    """Name the rule behind a sentence."""
    return next((name for name, text in _RULES if re.search(text, reason)), reason)


def rows(before: State, effect: Run, result: Any) -> Iterator[str]:
    """Name what a transaction of the engine decided."""
    unit = effect.unit
    if isinstance(unit, partial) and unit.func is reconcile.examine:
        blocked = before.facts.get("blocked", "")
        if blocked in {"", "restored"}:
            yield f"hello: {_hello(result, fresh=unit.keywords['floor'] is not None)}"
        else:
            yield f"hello: blocked {blocked}"
        return
    if isinstance(unit, partial) and unit.func is outbox.welcomed:
        if before.facts.get("peer_incarnation", "") not in {"", unit.keywords["incarnation"]}:
            yield "welcome: central is another incarnation"
        if isinstance(result, Contradiction):
            yield f"welcome: {result.kind.value}"
        return
    yield from _told(result)


def _told(result: Any) -> Iterator[str]:
    match result:
        case Contradiction():
            yield f"receipt: {result.kind.value}"
        case [Acceptance(), *_]:
            yield from (f"batch: {_batch(one)}" for one in result)
        case Taken():
            yield f"part: {result.value}"
        case Trouble():
            yield f"part: {result.reason}"
        case Finding():
            yield f"ask: {result.verdict.value} ({rule(result.reason)})"
        case _:
            pass


def _hello(examination: Examination | None, *, fresh: bool) -> str:
    if examination is None:
        return "overtaken"
    if (finding := examination.finding) is not None:
        certainty = "judged" if fresh else "suspected"
        return f"{certainty} {finding.verdict.value} ({rule(finding.reason)})"
    if examination.contradiction is not None:
        return "directives that are in no book"
    if examination.lacking is not Lacking.NOTHING:
        return f"restored central lacks {examination.lacking.value}"
    return "resume"


def _batch(one: Acceptance) -> str:
    if one.outcome is Outcome.REFUSED:
        return f"refused {one.verdict.value} ({rule(one.reason)})"
    return "applied, some quarantined" if one.quarantined else one.outcome.value
