"""Central's backups move what gateways may delete; one put back is a new incarnation."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.central_puppet import Puppet
from tests.support.fleet import Central, write_toml
from tests.support.processes import ProcessError, run
from tests.support.products import rows

#: Backups are SQLite files.
pytestmark = pytest.mark.parametrize("central", ["sqlite"], indirect=True)


async def _asked(central: Central, *arguments: str) -> Any:
    return json.loads(await asyncio.to_thread(central.command, *arguments, "--json"))


async def _rotated(central: Central, folder: Path) -> Any:
    """Back up until no earlier backup is retained: two are kept. Gives the last one."""
    await _asked(central, "backup", str(folder))
    return await _asked(central, "backup", str(folder))


def _held(puppet: Puppet) -> int:
    [(count,)] = rows(puppet.folder / "puppet.db", "SELECT count(*) FROM outbox")
    return count


def _fact(database: Path, name: str) -> str:
    [(value,)] = rows(database, "SELECT value FROM fact WHERE name = ?", name)
    return value


async def test_a_gateway_deletes_what_a_backup_covers(central: Central, newborn, tmp_path: Path):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = [puppet.certificate(f"SN-{number}") for number in range(20)]
        await puppet.emit("certificate.issued", *bodies)
        await puppet.drained()
        assert _held(puppet) == 22
        row = await _rotated(central, tmp_path)
        assert row["counts"]

        async def pruned() -> bool:
            return _held(puppet) == 2  # the rows at the watermarks stay

        await puppet.until(pruned)
        await puppet.emit("certificate.issued", puppet.certificate("SN-later"))
        await puppet.drained()
        assert _held(puppet) == 3
    standing = await _asked(central, "backups")
    assert standing["backups"][0]["state"] == "held"
    manifest = await _asked(central, "verify", row["path"])
    assert manifest["peers"][puppet.name] == 22


async def test_a_gateway_that_was_away_hears_of_the_backup_at_its_next_hello(
    central: Central, newborn, tmp_path: Path
):
    """The segment of its former start is drained: only a hello can ask for it."""
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await puppet.emit("certificate.issued", puppet.certificate("SN-1"))
        await puppet.drained()
    await _rotated(central, tmp_path)
    async with puppet.open(), puppet.online():

        async def pruned() -> bool:
            return _held(puppet) == 4  # one row in each lane of two segments

        await puppet.until(pruned)
    states = rows(puppet.folder / "puppet.db", "SELECT state FROM segment WHERE direction = 'out'")
    assert sorted(states) == [("archived",), ("open",)]


async def test_restoring_on_another_box_is_a_new_incarnation(central: Central, tmp_path: Path):
    file, state = tmp_path / "mine.tmabackup", tmp_path / "state"
    await _asked(central, "backup", str(file))
    write_toml(tmp_path / "other.toml", {"": {"state": str(state)}})
    (tmp_path / "secret").write_text(central.recovery_secret)
    other = ["tma-central", "-c", str(tmp_path / "other.toml")]
    secret = ["--secret-file", str(tmp_path / "secret")]
    printed = await asyncio.to_thread(run, [*other, "restore", str(file), *secret])
    assert "new incarnation" in printed
    restored = state / "central.db"
    assert _fact(restored, "incarnation") != _fact(central.database, "incarnation")
    assert rows(restored, "SELECT actor FROM audit WHERE action = 'central.restored'")
    # Every key opens under the new box's secret.
    await asyncio.to_thread(run, [*other, "broker", "config", str(tmp_path / "broker")])
    with pytest.raises(ProcessError):
        await asyncio.to_thread(run, [*other, "restore", str(file), *secret])
    # A central that does not run is backed up by the same command.
    await asyncio.to_thread(run, [*other, "backup", str(tmp_path / "second.tmabackup")])
    assert (tmp_path / "second.tmabackup").stat().st_mode & 0o77 == 0
