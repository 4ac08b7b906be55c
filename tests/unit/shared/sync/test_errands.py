"""An errand ends where the other side gives what cannot be used, and says so once."""

from typing import Any

import pytest

from shared.kernel.clock import Instant
from shared.kernel.errors import BadRequestError, UnavailableError, UntrustedError
from shared.sync.effects import Alarm, Run, Send
from shared.sync.envelope import Kind
from shared.sync.errands import Errands, Rules
from shared.sync.events import Direction
from shared.sync.messages import Ask, Errand, Part
from tests.support.sim_store import MemoryTransaction, State

NOW = Instant(1_000_000, 1_000, "boot", "ntp")


def _tx() -> MemoryTransaction:
    return MemoryTransaction(State(), Direction.DOWN, NOW, bytes, lambda _effects, _event: None)


def _asked(rules: Rules) -> tuple[Errands, Any]:
    asks: list[Ask] = []

    def send(ask: Ask) -> Send:
        asks.append(ask)
        return Send(Kind.ASK, "", b"")

    errands = Errands(send, lambda _now: b"n" * 16)
    [begin] = errands.start(Errand.DIGEST, rules)
    assert isinstance(begin, Run)
    begin.then(begin.unit(_tx()), NOW)
    part = Part(nonce=asks[0].nonce, errand=Errand.DIGEST, content=[], position=b"", done=True)
    [take] = errands.received(part)
    return errands, take


@pytest.mark.parametrize("error", [BadRequestError("It is odd."), UntrustedError("It is odd.")])
def test_what_is_the_peers_fault_ends_it(error: Exception) -> None:
    def take(_store: Any, _part: Part) -> Any:
        raise error

    errands, run = _asked(Rules(lambda _: b"", take, lambda _: []))
    assert run.then(run.unit(_tx()), NOW) == [Alarm("It is odd.")]
    assert errands.running is None


def test_trouble_of_the_box_is_for_who_runs_the_unit() -> None:
    def take(_store: Any, _part: Part) -> Any:
        raise UnavailableError("The database is locked.")

    errands, run = _asked(Rules(lambda _: b"", take, lambda _: []))
    with pytest.raises(UnavailableError):
        run.unit(_tx())
    assert errands.running is Errand.DIGEST
